"""The description of a replica in its membership Lease, and how other replicas read it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from porterlb.core.model import Address, Interface, Member
from porterlb.core.observed import Nic
from porterlb.core.problems import Parsed, Problem, Reason

PREFIX = "porterlb-"  # prefix of the Lease's name; the node's name follows
ANNOTATION = "porter.kubesphere.io/member"
SIGN = "porter.kubesphere.io/alive"
"""Annotation of the Lease of a replica that is cut off from the others: a number that rises with each sign of life."""


@dataclass(slots=True, eq=False)
class Absence:
    """Since when members have been gone: their Leases are deleted after ``patience`` seconds, not at once."""

    patience: float
    _since: dict[str, float] = field(default_factory=dict)

    def longer_gone(self, members: Iterable[str], present: Collection[str], now: float) -> frozenset[str]:
        """The members that have not been ``present`` for longer than that. ``now``: monotonic seconds."""
        self._since = {name: self._since.get(name, now) for name in members if name not in present}
        return frozenset(name for name, since in self._since.items() if now - since >= self.patience)

    def clear(self) -> None:
        """Starts counting again, because the present members are not known for now."""
        self._since.clear()


def lease_name(node: str) -> str:
    """The name of a node's membership Lease."""
    return PREFIX + node


def node_of(name: str) -> str:
    """The node whose membership Lease has this name; empty if it is another Lease."""
    return name[len(PREFIX) :] if name.startswith(PREFIX) else ""


def member_here(
    node: str,
    address: str,
    port: int,
    nics: Iterable[Nic],
    gateways: tuple[Address, ...],
    named: Iterable[str],
    listed: Iterable[str] = (),
    routers: tuple[Address, ...] = (),
) -> Member:
    """The description of the replica on this node, without a boot number.

    Addresses without a subnet (/32, /128) do not identify a segment, and kube-ipvs0 has one for each VIP.
    ``named``: the interfaces in spec.interface of Eips; ``listed``: those in spec.layer2.interfaces and of BgpPeers.
    """
    nics, listed = list(nics), set(listed)
    found = [(nic, a) for nic in nics for a in nic.addresses if a.network.prefixlen < a.max_prefixlen]
    inner = [interface.network for nic, interface in found if nic.inner]
    lacks = listed.union(named) - {nic.name for nic in nics if nic.up}
    return Member(
        node,
        address,
        port,
        0,
        tuple(interface for _, interface in found),
        gateways,
        tuple(dict.fromkeys(inner)),
        tuple(sorted(lacks)),
        tuple(sorted((nic.name, nic.addresses) for nic in nics if nic.up and nic.name in listed)),
        routers,
    )


def described(member: Member) -> dict[str, str]:
    """The annotations of the Lease of a member."""
    content: dict[str, Any] = {
        "address": member.address,
        "port": member.port,
        "boot": member.boot,
        "subnets": [str(subnet) for subnet in member.subnets],
        "gateways": [str(gateway) for gateway in member.gateways],
        "inner": [str(subnet) for subnet in member.inner],
        "lacks": list(member.lacks),
    }
    if member.listed:
        content["listed"] = {name: [str(address) for address in addresses] for name, addresses in member.listed}
    if member.routers:
        content["routers"] = [str(address) for address in member.routers]
    return {ANNOTATION: json.dumps(content)}


def parse(name: str, carried: Mapping[str, str]) -> Parsed[Member]:
    """A membership Lease by its name and annotations. Others write them, so their content is not trusted."""
    node = node_of(name)
    text = carried.get(ANNOTATION)
    if not node or not isinstance(text, str):
        return _refused(f"The Lease {name} does not describe a replica.")
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return _refused(f"The Lease {name} has an annotation {ANNOTATION} that is not JSON.")
    if not isinstance(content, dict):
        return _refused(f"The Lease {name} has an annotation {ANNOTATION} that is not a JSON object.")
    address, subnets = content.get("address"), content.get("subnets", [])
    port: Any = content.get("port")
    boot: Any = content.get("boot")
    texts = isinstance(address, str) and isinstance(subnets, list) and all(isinstance(s, str) for s in subnets)
    if not texts or not _whole(port, 1, 65535) or not _whole(boot, 0, 2**63 - 1):
        return _refused(f"The Lease {name} of replica {node} has no usable address, port, boot number and subnets.")
    try:
        interfaces: tuple[Interface, ...] = tuple(ip_interface(subnet) for subnet in subnets)
        gateways = tuple(ip_address(str(text)) for text in content.get("gateways") or ())
        inner = tuple(ip_network(str(text)) for text in content.get("inner") or ())
        lacks = tuple(str(text) for text in content.get("lacks") or ())
        listed = tuple(
            (str(name), tuple(ip_interface(str(text)) for text in found))
            for name, found in sorted((content.get("listed") or {}).items())
        )
        routers = tuple(ip_address(str(text)) for text in content.get("routers") or ())
        hello = str(ip_address(str(address)))
        return Parsed(Member(node, hello, port, boot, interfaces, gateways, inner, lacks, listed, routers))
    except (ValueError, TypeError, AttributeError) as error:
        return _refused(f"The Lease {name} of replica {node}: {error}.")


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _refused(message: str) -> Parsed[Member]:
    return Parsed(None, (Problem(Reason.UNREADABLE, message),))
