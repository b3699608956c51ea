"""The node under a replica: kernel settings, interfaces, memory. Kernel documentation: networking/ip-sysctl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_interface
from typing import Any

from porterlb.core.doctor.facts import Facts, State
from porterlb.core.doctor.finding import Check, Finding, Severity
from porterlb.core.doctor.replicas import host_of
from porterlb.core.doctor.text import grouped
from porterlb.core.model import Address, Interface

ERROR, WARNING = Severity.ERROR, Severity.WARNING

FULL = 0.9
"""Part of the memory limit above which the kernel's OOM killer may soon act."""

STRICT = 1
"""rp_filter: a packet is dropped when the answer would leave by another interface (RFC 3704 2.2)."""

ARP_IGNORE_ALL = 8
"""arp_ignore: no ARP request is answered at all."""


def findings(facts: Facts) -> Iterator[Finding]:
    proxy = facts.installation.kube_proxy
    strict = "Set ipvs.strictARP: true in the kube-proxy configuration, and restart kube-proxy."
    if proxy is not None and proxy.mode == "ipvs" and not proxy.strict_arp:
        what = "kube-proxy runs in IPVS mode without strictARP: every node answers ARP for every VIP."
        yield Finding(Check.KUBE_PROXY, ERROR, "ConfigMap kube-system/kube-proxy", what, strict)
    elif proxy is None:
        loose = {node: "ipvs" for node, state in facts.states.items() if _answers_all(state)}
        for _, nodes in grouped(loose):
            what = "kube-ipvs0 has the VIPs and arp_ignore is 0: the node answers ARP for every VIP (no strictARP)."
            yield Finding(Check.KUBE_PROXY, ERROR, f"node {nodes}", what, strict)
    for node, state in sorted(facts.states.items()):
        yield from _memory(node, state)
        for name, nic in sorted(_nics(state).items()):
            yield from _interface(facts, node, state, name, nic)


def _nics(state: State) -> Mapping[str, Mapping[str, Any]]:
    found = host_of(state).get("nics")
    return found if isinstance(found, Mapping) else {}


def _answers_all(state: State) -> bool:
    return bool(host_of(state).get("ipvs")) and any(_sysctl(state, nic, "arp_ignore") == 0 for nic in _nics(state))


def _sysctl(state: State, nic: str, name: str) -> int:
    """The effective value: the higher one of ``all`` and the interface, as in the kernel for these settings."""
    everywhere = (host_of(state).get("all") or {}).get(name)
    own = (_nics(state).get(nic) or {}).get(name)
    return max((value for value in (everywhere, own) if isinstance(value, int)), default=0)


def _interface(facts: Facts, node: str, state: State, name: str, nic: Mapping[str, Any]) -> Iterator[Finding]:
    where = f"node {node}, {name}"
    mine = _addresses(state, name)
    if nic.get("multicast") is False and any(address.version == 6 for address in mine):
        what = "The interface has no multicast: neighbour solicitations for IPv6 VIPs do not arrive."
        yield Finding(Check.INTERFACES, ERROR, where, what, f"ip link set {name} multicast on")
    if _sysctl(state, name, "arp_ignore") >= ARP_IGNORE_ALL:
        what = "arp_ignore is 8: the node answers no ARP request, so every probe finds it dead."
        yield Finding(Check.SYSCTLS, ERROR, where, what, f"sysctl -w net.ipv4.conf.{name}.arp_ignore=1, all likewise.")
    if _sysctl(state, name, "proxy_arp"):
        what = "proxy_arp is on: the node answers ARP for addresses that it routes, VIPs among them."
        yield Finding(Check.SYSCTLS, WARNING, where, what, f"sysctl -w net.ipv4.conf.{name}.proxy_arp=0, all likewise.")
    if _sysctl(state, name, "rp_filter") == STRICT and _is_second(facts, node, mine):
        what = "rp_filter is strict, and the default gateway is behind another interface: routed clients are dropped."
        do = f"sysctl -w net.ipv4.conf.{name}.rp_filter=2, and all.rp_filter=0 or 2."
        yield Finding(Check.SYSCTLS, WARNING, where, what, do)


def _is_second(facts: Facts, node: str, mine: tuple[Interface, ...]) -> bool:
    """Whether an interface has pools on its subnet, and the default gateway is behind another one."""
    snapshot = facts.snapshot
    member = snapshot.members.get(node) if snapshot else None
    if snapshot is None or member is None:
        return False
    subnets = [interface.network for interface in mine if interface.version == 4]
    gateways: list[Address] = [gateway for gateway in member.gateways if gateway.version == 4]
    behind = any(gateway in subnet for gateway in gateways for subnet in subnets)
    pools = any(r.first in subnet for eip in snapshot.eips.values() for r in eip.ranges for subnet in subnets)
    return bool(gateways) and not behind and pools


def _addresses(state: State, name: str) -> tuple[Interface, ...]:
    for nic in (state.get("wire") or {}).get("nics") or ():
        if nic.get("name") == name:
            return tuple(ip_interface(text) for text in nic.get("addresses") or ())
    return ()


def _memory(node: str, state: State) -> Iterator[Finding]:
    memory = host_of(state).get("memory") or {}
    used, limit = memory.get("used"), memory.get("limit")
    if isinstance(used, int) and isinstance(limit, int) and limit > 0 and used >= FULL * limit:
        what = f"The manager uses {used / 2**20:.0f} MiB of the {limit / 2**20:.0f} MiB that it may use."
        do = "Raise resources.limits.memory in the chart's values: the kernel ends the manager at the limit."
        yield Finding(Check.MEMORY, WARNING, f"replica on {node}", what, do)
