"""The sessions of a replica: which BgpPeers select its node, which of two conflicting ones counts, their settings."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address

from porterlb.core.bfd.values import BfdTarget
from porterlb.core.bgp import rules
from porterlb.core.bgp.advertise import matches_eip, reaches_beyond
from porterlb.core.bgp.overrides import gateways, heard_on, number_of, on_node, override_of, searched
from porterlb.core.desired import SessionConfig
from porterlb.core.model import RACK_LABELS, Address, BgpConf, DynamicAs, Node, Peer, Snapshot
from porterlb.core.problems import Problem, Reason
from porterlb.core.scope import scope_of, unscoped
from porterlb.core.sentences import listed, without_interface


def selects(peer: Peer, snapshot: Snapshot, node: str) -> bool:
    """Whether the peer applies to the replica on this node. An override with an error excludes its nodes."""
    if peer.node_selector is not None and not (
        node in snapshot.nodes and peer.node_selector.matches(snapshot.nodes[node].labels)
    ):
        return False
    override = override_of(peer, snapshot, node)
    return override is None or not override.refused


def shadowed(snapshot: Snapshot, node: str) -> dict[str, str]:
    """Peers that get no session on this node because an older peer has the same address there: the older one by name.

    Decided per node: gateways of different racks may share an address. A disabled peer does not block others.
    """
    found: dict[str, str] = {}
    holder: dict[Address, str] = {}
    peers = list(snapshot.peers.values())
    all_alike = not any(peer.overrides or peer.interface for peer in peers)
    if all_alike and len({peer.address for peer in peers}) == len(peers):
        return found
    for peer in sorted(peers, key=lambda peer: (peer.created, peer.name)):
        if peer.admin_down or not selects(peer, snapshot, node):
            continue
        address = _router(on_node(peer, snapshot, node), snapshot, node)
        if address is None:
            continue
        # ExaBGP knows the router by its address alone, also if that is link-local.
        if (bare := unscoped(address)) in holder:
            found[peer.name] = holder[bare]
        else:
            holder[bare] = peer.name
    return found


def _router(peer: Peer, snapshot: Snapshot, node: str) -> Address | None:
    """The router of the node; None if it has no session with the peer. ``peer``: with the node's overrides applied."""
    return peer.address if _refusal(peer, snapshot, node) is None else None


def own_sessions(snapshot: Snapshot) -> dict[str, SessionConfig]:
    """The wanted sessions of this replica, by peer name."""
    node, conf = snapshot.view.node, snapshot.conf
    ours = snapshot.nodes.get(node)
    hidden = shadowed(snapshot, node)
    found = {}
    for name, configured in sorted(snapshot.peers.items()):
        if name in hidden or not selects(configured, snapshot, node):
            continue
        peer = on_node(configured, snapshot, node)
        address = _router(peer, snapshot, node)
        if address is None:
            continue
        found[name] = SessionConfig(
            peer=name,
            address=address,
            peer_as=peer_as(peer, conf, ours),
            local_as=local_as(peer, conf, ours),
            router_id=peer.router_id or router_id(snapshot),
            local_address=peer.local_address,
            interface=peer.interface,
            password=peer.password,
            multihop_ttl=peer.multihop_ttl,
            minimum_ttl=peer.minimum_ttl,
            hold_time=peer.hold_time,
            keepalive=peer.keepalive,
            connect_retry=peer.connect_retry,
            passive=peer.passive,
            remote_port=peer.remote_port,
            graceful_restart=conf.graceful_restart if peer.graceful_restart is None else peer.graceful_restart,
            families=peer.families,
            add_path=peer.add_path > 1,
            max_prefixes=peer.max_prefixes,
            admin_down=peer.admin_down,
        )
    return found


def own_bfd(snapshot: Snapshot, sessions: Mapping[str, SessionConfig]) -> dict[str, BfdTarget]:
    """The BFD sessions for these BGP sessions, by peer name.

    Routers such as FRR and BIRD use multihop BFD (RFC 5883) for multihop and for internal sessions. A router with a
    link-local address is on the link in any case.
    """
    found = {}
    for name, session in sessions.items():
        settings = snapshot.peers[name].bfd
        if settings is not None and not session.admin_down:
            internal = session.local_as == session.peer_as
            multihop = bool(session.multihop_ttl) or (internal and not scope_of(session.address))
            local, interface = session.local_address, session.interface
            found[name] = BfdTarget(name, session.address, local, multihop, settings, interface)
    return found


def listened(snapshot: Snapshot) -> tuple[str, ...]:
    """The interfaces of our own node with a router that has a link-local address, found or configured."""
    node = snapshot.view.node
    peers = [peer for peer in snapshot.peers.values() if not peer.admin_down and selects(peer, snapshot, node)]
    found = {searched(peer, snapshot, node) or scope_of(on_node(peer, snapshot, node).address) for peer in peers}
    return tuple(sorted(found - {""}))


def peer_problems(snapshot: Snapshot) -> dict[str, tuple[Problem, ...]]:
    """Problems of each peer that depend on other objects too: replicas that see the same objects find the same."""
    found: dict[str, list[Problem]] = {}
    hidden = {node: shadowed(snapshot, node) for node in sorted({*snapshot.nodes, snapshot.view.node})}
    for name, peer in sorted(snapshot.peers.items()):
        nodes = [node for node in hidden if selects(peer, snapshot, node)]
        own = list(_refusals(peer, snapshot, nodes or [snapshot.view.node]))
        own += _shadows(peer, snapshot, nodes, {node: by[name] for node, by in hidden.items() if name in by})
        own += _several_routers(peer, snapshot, nodes)
        own += _other_link(peer, snapshot, nodes)
        if not nodes and snapshot.nodes and not any(override.refused for override in peer.overrides):
            own.append(Problem(Reason.NO_NODE, "matches no node: there is no session.", "spec.nodeSelector", False))
        own += _without_effect(peer, snapshot, nodes)
        if own:
            found[name] = own
    return {name: tuple(own) for name, own in found.items()}


def secret_missing(peer: Peer, namespace: str) -> Problem:
    """Why a peer has no session: the Secret or the key that it names does not exist."""
    secret, key = peer.password_secret or ("", "")
    sentence = f"There is no key {key!r} in the Secret {namespace}/{secret}: no session."
    return Problem(Reason.SECRET_MISSING, sentence, "spec.conf.authPasswordSecret")


def own_as(conf: BgpConf, node: Node | None) -> int:
    """The AS of a node: the AS of its rack, else the AS of all nodes; 0: unknown."""
    labels = node.labels if node else {}
    rack = next((labels[name] for name in RACK_LABELS if name in labels), None)
    return conf.as_per_rack.get(rack or "", conf.local_as)


def local_as(peer: Peer, conf: BgpConf, node: Node | None) -> int:
    """The AS of a node towards this peer; 0: unknown."""
    return peer.local_as or own_as(conf, node)


def peer_as(peer: Peer, conf: BgpConf, node: Node | None) -> int:
    """The AS that the router must have; 0: any except the AS of the node."""
    return local_as(peer, conf, node) if peer.dynamic is DynamicAs.INTERNAL else peer.peer_as


def _refusals(peer: Peer, snapshot: Snapshot, nodes: Sequence[str]) -> Iterator[Problem]:
    """Why this peer has no session on all or on some of these nodes."""
    as_there = {node: on_node(peer, snapshot, node) for node in nodes}
    found = {node: why for node, there in as_there.items() if (why := _refusal(there, snapshot, node)) is not None}
    nowhere = [node for node in nodes if node not in found and as_there[node].address is None]
    found |= {node: why for node in nowhere if (why := _no_router(peer, snapshot, node)) is not None}
    for refusal in dict.fromkeys(found.values()):
        where = [node for node in found if found[node] == refusal]
        if len(where) == len(nodes):
            yield refusal
        else:
            yield replace(refusal, message=f"{refusal.message} There is no session on {', '.join(where)}.", fatal=False)


def _refusal(peer: Peer, snapshot: Snapshot, node: str) -> Problem | None:
    """Why this peer has no session on a node. ``peer``: with the node's overrides applied."""
    conf = snapshot.conf
    if not local_as(peer, conf, snapshot.nodes.get(node)):
        racks = ", or a rack of asPerRack as a label of the node" if conf.as_per_rack else ""
        message = f"No AS of our own is known: set spec.as of the BgpConf default, or spec.conf.localAs here{racks}."
        return Problem(Reason.NO_LOCAL_AS, message, "spec.conf.localAs")
    if peer.passive and not conf.listen_port:
        message = "needs a port to listen on: set spec.listenPort of the BgpConf default."
        return Problem(Reason.INVALID_FIELD, message, "spec.transport.passiveMode")
    if peer.password and not rules.password_allowed(peer.password):  # one from a Secret
        message = f"The password must be at most {rules.MAX_PASSWORD} bytes of printable characters."
        return Problem(Reason.INVALID_FIELD, message, "spec.conf.authPasswordSecret")
    if problem := _link_local_problem(peer):
        return problem
    if not (peer.peer_as or peer.dynamic):
        message = "is missing, and no entry of spec.overrides has an AS of the router for the node."
        return Problem(Reason.MISSING_FIELD, message, "spec.conf.peerAs")
    return None


def _link_local_problem(peer: Peer) -> Problem | None:
    """Why a router cannot be reached by a link-local address. ``peer``: as on one node."""
    address = peer.address
    if address is None and not peer.interface:
        return None
    if address is not None and not address.is_link_local:
        return None
    if address is not None and not scope_of(address):
        return Problem(Reason.INVALID_ADDRESS, without_interface(address), "spec.conf.neighborAddress")
    if peer.passive:
        message = (
            "is not possible with a router that has a link-local address: ExaBGP cannot listen on such an address. "
            "Leave it out: the nodes open the sessions."
        )
        return Problem(Reason.INVALID_FIELD, message, "spec.transport.passiveMode")
    if peer.multihop_ttl:
        message = "is not possible with a router that has a link-local address: it is on the link. Leave it out."
        return Problem(Reason.INVALID_FIELD, message, "spec.ebgpMultihop")
    return None


def _no_router(peer: Peer, snapshot: Snapshot, node: str) -> Problem | None:
    """Why a node has no address of the router. None: its replica has not yet reported the gateways of the node."""
    if interface := searched(peer, snapshot, node):
        return _not_heard(snapshot, node, interface)
    number = number_of(peer, snapshot, node)
    version = 0 if number is None else peer.overrides[number].gateway
    if not version:
        message = "is missing, and no entry of spec.overrides has an address for the node."
        return Problem(Reason.MISSING_FIELD, message, "spec.conf.neighborAddress")
    if node not in snapshot.members:
        return None
    found = gateways(snapshot, node, version)
    message = f"The node has no IPv{version} default route: add one, or set neighborAddress here."
    if found:  # a replica of an earlier release does not report the interface
        message = f"The interface of the default gateway {found[0]} is not known: update the replica on this node."
    return Problem(Reason.INVALID_ADDRESS, message, f"spec.overrides[{number}].defaultGateway")


def _not_heard(snapshot: Snapshot, node: str, interface: str) -> Problem | None:
    """Why no router was found on an interface. None: the replica has not yet reported that interface."""
    member = snapshot.members.get(node)
    if member is None:
        return None
    if interface in member.lacks:
        message = f"The node has no interface {interface}, or it is down."
        return Problem(Reason.NO_INTERFACE, message, "spec.interface")
    if interface not in (name for name, _ in member.listed):
        return None
    message = (
        f"No router advertisement (RFC 4861) was heard on {interface}. Check that the router sends them on this link, "
        "or set neighborAddress to its link-local address."
    )
    return Problem(Reason.NO_ROUTER, message, "spec.interface")


def _several_routers(peer: Peer, snapshot: Snapshot, nodes: Iterable[str]) -> Iterator[Problem]:
    """Links with more than one router, of which one is used."""
    for node in nodes:
        interface = searched(peer, snapshot, node)
        heard = heard_on(snapshot, node, interface) if interface else ()
        if len(heard) > 1:
            first, *others = map(str, heard)
            message = (
                f"{node} hears several routers: {first} is used, {listed(others)} is not. To have sessions with each, "
                "make a BgpPeer for each, with neighborAddress."
            )
            yield Problem(Reason.SEVERAL_ROUTERS, message, "spec.interface", fatal=False)


def _other_link(peer: Peer, snapshot: Snapshot, nodes: Iterable[str]) -> Iterator[Problem]:
    """Interfaces on another link than the router. One without a subnet (dummy0) only has the source address."""
    for node in nodes:
        there, member = on_node(peer, snapshot, node), snapshot.members.get(node)
        router = there.address
        if not there.interface or router is None or member is None or there.multihop_ttl:
            continue
        mine = [at.network for at in member.on(there.interface) if at.version == router.version]
        mine = [subnet for subnet in mine if subnet.prefixlen < subnet.max_prefixlen and not subnet.is_link_local]
        if mine and not any(router in n for n in mine) and any(router in at.network for at in member.subnets):
            message = (
                f"{router} is not on the link of {there.interface} of {node}, but on that of another interface. "
                "Correct interface, or leave it out."
            )
            yield Problem(Reason.INVALID_FIELD, message, "spec.interface", fatal=False)


def _shadows(peer: Peer, snapshot: Snapshot, nodes: Iterable[str], by: Mapping[str, str]) -> Iterator[Problem]:
    for other in sorted(set(by.values())):
        there = [node for node, name in by.items() if name == other]
        everywhere = len(by) == len(list(nodes))
        where = "" if everywhere else f" on {', '.join(there)}"
        shared = " and ".join(sorted({str(on_node(peer, snapshot, node).address) for node in there}))
        message = f"The older BgpPeer {other} has the same address {shared} and is used instead{where}."
        if any(_router_on(snapshot, other, node) != on_node(peer, snapshot, node).address for node in there):
            message = (
                f"The older BgpPeer {other} has the same link-local address on another interface. ExaBGP cannot tell "
                f"the two routers apart, and only that one is used{where}: give one of them another link-local address."
            )
        yield Problem(Reason.INVALID_FIELD, message, "spec.conf.neighborAddress", fatal=everywhere)


def _router_on(snapshot: Snapshot, peer: str, node: str) -> Address | None:
    return on_node(snapshot.peers[peer], snapshot, node).address


def _without_effect(peer: Peer, snapshot: Snapshot, nodes: Iterable[str]) -> Iterator[Problem]:
    conf = snapshot.conf
    sides = [_sides(peer, snapshot, node) for node in nodes] or [(local_as(peer, conf, None), peer.peer_as)]
    mine = any(own for own, _ in sides)
    internal = {own == other for own, other in sides if own or not mine}
    for at, rule in enumerate(peer.advertise):
        path = f"spec.advertise[{at}]"
        for unknown in sorted(rule.eips - snapshot.eips.keys()):
            yield Problem(Reason.EIP_UNKNOWN, f"There is no Eip {unknown} that can be used.", f"{path}.eips", False)
        for name in sorted(set(rule.community_names) - snapshot.conf.communities.keys()):
            message = (
                f"{name!r} is neither a well-known community nor one of spec.communities of the BgpConf default. "
                "Nothing is announced by this rule."
            )
            yield Problem(Reason.COMMUNITY_UNKNOWN, message, f"{path}.communities")
        labels = [node.labels for node in snapshot.nodes.values()]
        if rule.node_selector is not None and labels and not any(map(rule.node_selector.matches, labels)):
            message = "matches no node: nothing is announced by this rule."
            yield Problem(Reason.NO_NODE, message, f"{path}.nodeSelector", False)
        for name, eip in sorted(snapshot.eips.items()):
            if matches_eip(rule, eip) and (length := reaches_beyond(rule, eip)):
                message = f"/{length} reaches beyond Eip {name}: where it does, host routes are announced."
                yield Problem(Reason.INVALID_FIELD, message, f"{path}.aggregationLength", False)
        if not mine:
            continue
        if rule.attributes.local_pref is not None and internal == {False}:
            message = "has no effect: local preference is not sent to an external peer."
            yield Problem(Reason.INVALID_FIELD, message, f"{path}.localPref", False)
        if rule.attributes.prepend and internal == {True}:
            message = "has no effect: the AS path is not prepended for an internal peer."
            yield Problem(Reason.INVALID_FIELD, message, f"{path}.asPathPrepend", False)


def _sides(peer: Peer, snapshot: Snapshot, node: str) -> tuple[int, int]:
    """Our AS and the router's in the session of a node."""
    there, ours = on_node(peer, snapshot, node), snapshot.nodes.get(node)
    return local_as(there, snapshot.conf, ours), peer_as(there, snapshot.conf, ours)


def router_id(snapshot: Snapshot) -> IPv4Address:
    """The BGP identifier of this replica (RFC 6286: unique within the AS, so nodes cannot share one).

    The node's first IPv4 address, else the one of the BgpConf, else one derived from the node's name.
    """
    node = snapshot.nodes.get(snapshot.view.node)
    address = node.address(4) if node else None
    if isinstance(address, IPv4Address):
        return address
    return snapshot.conf.router_id or IPv4Address(zlib.crc32(snapshot.view.node.encode()) or 1)
