"""Addresses that are never VIPs: those of nodes, gateways and peers, and the ends of connected subnets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from porterlb.core.bgp.overrides import addresses as router_addresses
from porterlb.core.model import Address, Interface, Member, Node, Peer

Reserved = Mapping[Address, str]
"""A clause by address: ``is an address of node node-a``."""


def reserved_addresses(
    nodes: Mapping[str, Node], members: Mapping[str, Member], peers: Mapping[str, Peer]
) -> dict[Address, str]:
    """Addresses that are in use by the network and are therefore no VIPs.

    Node.status.addresses; the interfaces and gateways of the replicas; the BGP peers; the network and broadcast
    address of connected IPv4 subnets (RFC 919), and the subnet-router anycast address of IPv6 ones (RFC 4291 2.6.1).
    The interfaces are those with a subnet: kube-proxy in IPVS mode has every VIP as a /32 on every node.
    """
    found: dict[Address, str] = {}
    for name, peer in sorted(peers.items()):
        for address in router_addresses(peer):
            found.setdefault(address, f"is the address of BgpPeer {name}")
    for name, node in sorted(nodes.items()):
        for address in (*node.addresses, *node.other_addresses):
            found.setdefault(address, f"is an address of node {name}")
    for name, member in sorted(members.items()):
        for interface in member.subnets:
            if interface.network.prefixlen < interface.max_prefixlen:
                found.setdefault(interface.ip, f"is an address of node {name}")
        for gateway in member.gateways:
            found.setdefault(gateway, f"is the gateway of node {name}")
    for _, member in sorted(members.items()):
        for interface in member.subnets:
            for address, what in _ends(interface):
                found.setdefault(address, f"is the {what} of the connected subnet {interface.network}")
    return found


def _ends(interface: Interface) -> Iterable[tuple[Address, str]]:
    network = interface.network
    if interface.max_prefixlen - network.prefixlen < 2 or interface.ip.is_loopback or interface.ip.is_link_local:
        return ()  # both addresses of a /31 are hosts (RFC 3021)
    if network.version == 6:
        return ((network.network_address, "subnet-router anycast address"),)
    return ((network.network_address, "network address"), (network.broadcast_address, "broadcast address"))


@dataclass(frozen=True, slots=True)
class ReservedMemo:
    """The last result: nodes and members rarely change, and there may be a thousand."""

    nodes: Mapping[str, Node] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)
    peers: Mapping[str, tuple[Address, ...]] = field(default_factory=dict)
    reserved: Reserved = field(default_factory=dict)

    def updated(
        self, nodes: Mapping[str, Node], members: Mapping[str, Member], peers: Mapping[str, Peer]
    ) -> ReservedMemo:
        """The present result; the same value if nothing has changed."""
        addresses = {name: router_addresses(peer) for name, peer in peers.items()}
        if nodes is self.nodes and members is self.members and addresses == self.peers:
            return self
        fresh = reserved_addresses(nodes, members, peers)
        return ReservedMemo(nodes, members, addresses, self.reserved if fresh == self.reserved else fresh)
