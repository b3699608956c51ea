"""The BgpPeer of one node, after ``spec.overrides`` (the first entry that selects the node counts)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from porterlb.core.model import Address, Peer, PeerOverride, Snapshot


def number_of(peer: Peer, snapshot: Snapshot, node: str) -> int | None:
    """Index of the entry that counts on a node; None: none. An entry without a selector applies to all nodes."""
    labels = snapshot.nodes[node].labels if node in snapshot.nodes else None
    for number, override in enumerate(peer.overrides):
        selector = override.node_selector
        if selector is None or (labels is not None and selector.matches(labels)):
            return number
    return None


def override_of(peer: Peer, snapshot: Snapshot, node: str) -> PeerOverride | None:
    """The entry that counts on a node."""
    number = number_of(peer, snapshot, node)
    return None if number is None else peer.overrides[number]


def on_node(peer: Peer, snapshot: Snapshot, node: str) -> Peer:
    """The peer with the values of this node. Its address is None if the node has no router."""
    override = override_of(peer, snapshot, node)
    if override is None:
        return replace(peer, overrides=()) if peer.overrides else peer
    address = gateway_of(snapshot, node, override.gateway) if override.gateway else override.address or peer.address
    own_as = bool(override.peer_as or override.dynamic)
    own_source = bool(override.local_address or override.interface)
    return replace(
        peer,
        address=address,
        peer_as=override.peer_as if own_as else peer.peer_as,
        dynamic=override.dynamic if own_as else peer.dynamic,
        local_as=override.local_as or peer.local_as,
        router_id=override.router_id,
        local_address=override.local_address if own_source else peer.local_address,
        interface=override.interface,
        overrides=(),
    )


def gateway_of(snapshot: Snapshot, node: str, version: int) -> Address | None:
    """The default gateway of a node, as its replica reports it, without link-local addresses (see ``gateways``)."""
    return next((found for found in gateways(snapshot, node, version) if not found.is_link_local), None)


def gateways(snapshot: Snapshot, node: str, version: int) -> tuple[Address, ...]:
    """All default gateways of a node for an IP version."""
    member = snapshot.members.get(node)
    return tuple(address for address in member.gateways if address.version == version) if member else ()


def routers(peer: Peer, snapshot: Snapshot) -> Mapping[str, Address | None]:
    """The router of each replica if the peer has overrides; else empty."""
    if not peer.overrides:
        return {}
    return {name: on_node(peer, snapshot, name).address for name in sorted(snapshot.members)}


def addresses(peer: Peer) -> tuple[Address, ...]:
    """Every router address in the BgpPeer, without duplicates."""
    found = (peer.address, *(override.address for override in peer.overrides))
    return tuple(dict.fromkeys(address for address in found if address is not None))
