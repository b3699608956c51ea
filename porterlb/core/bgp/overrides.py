"""The BgpPeer of one node: after ``spec.overrides`` (the first entry that selects the node counts), and with the router
that was found on ``spec.interface``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from porterlb.core.model import Address, Peer, PeerOverride, Snapshot
from porterlb.core.scope import scope_of, scoped


def number_of(peer: Peer, snapshot: Snapshot, node: str) -> int | None:
    """Index of the entry that counts on a node; None: none. An entry without a selector applies to all nodes."""
    for number, override in enumerate(peer.overrides):
        selector, found = override.node_selector, snapshot.nodes.get(node)
        if selector is None or (found is not None and selector.matches(found.labels)):
            return number
    return None


def override_of(peer: Peer, snapshot: Snapshot, node: str) -> PeerOverride | None:
    """The entry that counts on a node."""
    number = number_of(peer, snapshot, node)
    return None if number is None else peer.overrides[number]


def on_node(peer: Peer, snapshot: Snapshot, node: str) -> Peer:
    """The peer with the values of this node. Its address is None if the node has no router.

    A link-local address has the interface as its scope; ``interface`` is then only left in a peer without an address.
    """
    merged = _merged(peer, snapshot, node)
    interface, address = merged.interface, merged.address
    if not interface:
        return merged
    if address is None:
        address = next(iter(heard_on(snapshot, node, interface)), None)
        return merged if address is None else replace(merged, address=address, interface="")
    return replace(merged, address=scoped(address, interface), interface="") if address.is_link_local else merged


def _merged(peer: Peer, snapshot: Snapshot, node: str) -> Peer:
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
        interface="" if scope_of(address) else override.interface if own_source else peer.interface,
        overrides=(),
    )


def gateway_of(snapshot: Snapshot, node: str, version: int) -> Address | None:
    """The default gateway of a node, as its replica reports it: one with a link-local address only if there is no
    other, and if the replica reports its interface."""
    found = gateways(snapshot, node, version)
    usable = [address for address in found if scope_of(address) or not address.is_link_local]
    return min(usable, key=lambda address: address.is_link_local, default=None)


def gateways(snapshot: Snapshot, node: str, version: int) -> tuple[Address, ...]:
    """All default gateways of a node for an IP version."""
    member = snapshot.members.get(node)
    return tuple(address for address in member.gateways if address.version == version) if member else ()


def heard_on(snapshot: Snapshot, node: str, interface: str) -> tuple[Address, ...]:
    """The routers that a node hears on an interface (RFC 4861), the one to use first."""
    member = snapshot.members.get(node)
    return tuple(address for address in member.routers if scope_of(address) == interface) if member else ()


def routers(peer: Peer, snapshot: Snapshot) -> Mapping[str, Address | None]:
    """The router of each replica if that is not the address of the BgpPeer; else empty."""
    if not peer.overrides and not peer.interface:
        return {}
    return {name: on_node(peer, snapshot, name).address for name in sorted(snapshot.members)}


def searched(peer: Peer, snapshot: Snapshot, node: str) -> str:
    """The interface on which a node must find the router by router advertisements; empty: it has an address."""
    override = override_of(peer, snapshot, node)
    if override is not None and override.gateway:
        return ""
    merged = _merged(peer, snapshot, node)
    return merged.interface if merged.address is None else ""


def peer_interfaces(peers: Iterable[Peer], found: Iterable[Address]) -> Iterator[str]:
    """Every interface that BgpPeers name, and those of default gateways that they use. ``found``: the gateways of the
    node."""
    for peer in peers:
        yield from (name for name in (peer.interface, *(override.interface for override in peer.overrides)) if name)
        if any(override.gateway == 6 for override in peer.overrides):
            yield from (scope for address in found if (scope := scope_of(address)))


def addresses(peer: Peer) -> tuple[Address, ...]:
    """Every router address in the BgpPeer, without duplicates."""
    found = (peer.address, *(override.address for override in peer.overrides))
    return tuple(dict.fromkeys(address for address in found if address is not None))
