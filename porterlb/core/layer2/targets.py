"""The probe targets: one address of each node and of each gateway on each of our interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from porterlb.core.desired import DesiredWire
from porterlb.core.hello import GATEWAY
from porterlb.core.model import Address, Member
from porterlb.core.observed import Nic

__all__ = ["GATEWAY", "Gateway", "Target", "TargetKey", "find_targets", "own_addresses", "source_for"]


class TargetKey(NamedTuple):
    """A probed address: interface index and packed address."""

    nic: int
    address: bytes


class Gateway(NamedTuple):
    """The next hop of a default route, and the index of the interface towards it."""

    nic: int
    address: Address


@dataclass(slots=True)
class Target:
    """A probed address. ``decides``: it is an InternalIP; if it is dead, the node can serve no VIP on any segment."""

    node: str
    key: TargetKey
    decides: bool = True
    up: bool = True  # state of our interface
    mac: bytes = b""
    last: float = 0.0  # when it last answered; 0: never
    misses: int = 0  # probes sent since then


def source_for(nic: Nic, address: Address) -> Address | None:
    """Our own address on an interface in the subnet of ``address``, longest prefix first; None: not on-link."""
    fitting = [own for own in nic.addresses if own.version == address.version and address in own.network]
    fitting = [own for own in fitting if own.network.prefixlen < own.max_prefixlen]
    return max(fitting, key=lambda own: own.network.prefixlen).ip if fitting else None


def own_addresses(own: str, wanted: DesiredWire) -> tuple[Address, ...]:
    """Our InternalIPs, else our hello address: the manager names only the nodes to probe, not our own."""
    member = wanted.members.get(own)
    named = wanted.nodes.get(own, ())
    return named or ((ip_address(member.address),) if member is not None and member.address else ())


def find_targets(
    own: str,
    nodes: Mapping[str, Iterable[Address]],
    members: Mapping[str, Member],
    nics: Iterable[Nic],
    gateways: Iterable[Gateway] = (),
) -> list[Target]:
    """One address to probe for each node and interface: the InternalIP, or, if a node has none on an interface of ours,
    the first address there that its replica reports. Nothing is probed through an inner bridge (`Nic.inner`)."""
    nics = list(nics)
    ours = {interface.ip for nic in nics for interface in nic.addresses}
    nics = [nic for nic in nics if not nic.inner]
    targets: dict[TargetKey, Target] = {}
    for node, addresses in nodes.items():
        if node == own:
            continue
        told = members[node].subnets if node in members else ()
        for nic in nics:
            choices = [(address, True) for address in addresses] + [(interface.ip, False) for interface in told]
            for address, decides in choices:
                if address not in ours and not address.is_link_local and source_for(nic, address) is not None:
                    key = TargetKey(nic.index, address.packed)
                    targets.setdefault(key, Target(node, key, decides, nic.up))
                    break
    for gateway in gateways:
        nic_of = next((nic for nic in nics if nic.index == gateway.nic), None)
        if nic_of is not None and source_for(nic_of, gateway.address) is not None:
            key = TargetKey(gateway.nic, gateway.address.packed)
            targets.setdefault(key, Target(GATEWAY, key, False, nic_of.up))
    return list(targets.values())
