"""Routers known by a link-local address or only by their interface, and IPv6 next hops for IPv4 routes (RFC 8950)."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Any

import pytest

from porterlb.core import exabgp_text as text
from porterlb.core.announce import Reach
from porterlb.core.bfd.values import BfdSettings
from porterlb.core.bgp.config import Local, arrange
from porterlb.core.bgp.difference import Batch, Difference
from porterlb.core.bgp.negotiated import Negotiated, from_text
from porterlb.core.bgp.overrides import peer_interfaces
from porterlb.core.bgp.peers import listened, own_bfd, own_sessions, peer_problems
from porterlb.core.bgp.sessions import Sessions
from porterlb.core.bgp.words import refusal
from porterlb.core.desired import DesiredBgp, DesiredWire, Path, SessionConfig
from porterlb.core.exabgp_text.words import Unspeakable
from porterlb.core.membership import described, member_here
from porterlb.core.membership import parse as parse_member
from porterlb.core.model import AddressRange as Range
from porterlb.core.model import (
    BgpConf,
    Eip,
    Endpoint,
    Member,
    Node,
    Peer,
    PeerOverride,
    Service,
    ServiceKey,
    Snapshot,
    View,
)
from porterlb.core.observed import Nic, SessionState
from porterlb.core.parse import parse_peer
from porterlb.core.plan import Plan, plan
from porterlb.core.problems import Reason
from porterlb.core.scope import scope_of, scoped, unscoped
from porterlb.core.status.peer import own_entry, peer_conditions
from porterlb.core.wire_text import read_report, read_state, report_line, state_line
from tests.core.stage import POLICY, situation

NODES = {"node-a": "fd77::11", "node-b": "fd77::12", "node-c": "fd77::13"}
LINK = {name: f"fe80::{address[-2:]}" for name, address in NODES.items()}
VIP, VIP6 = ip_address("172.16.0.1"), ip_address("fdaa::1")
ROUTER = ip_address("fe80::1%eth1")


def member(name: str, *routers: str, on_link: tuple[str, ...] = (), lacks: tuple[str, ...] = ()) -> Member:
    """A node with an address on eth0, and a link to its router on eth1. ``on_link``: further addresses on that link."""
    eth1 = [ip_interface(f"{LINK[name]}/64"), *map(ip_interface, on_link)]
    return Member(
        name,
        NODES[name],
        1,
        1,
        (ip_interface(f"{NODES[name]}/64"), *eth1),
        lacks=lacks,
        listed=() if lacks else (("eth1", tuple(eth1)),),
        routers=tuple(ip_address(router) for router in routers),
    )


def leaf(**more: Any) -> Peer:
    return Peer("leaf", more.pop("address", None), 64500, interface=more.pop("interface", "eth1"), **more)


def snapshot(*peers: Peer, node: str = "node-a", members: dict[str, Member] | None = None, **view: Any) -> Snapshot:
    found = members if members is not None else {name: member(name, f"fe80::1{i}%eth1") for i, name in enumerate(NODES)}
    return Snapshot(
        View(node, fresh=frozenset(found) | {node}, **view),
        nodes={name: Node(name, (ip_address(NODES[name]),)) for name in NODES},
        members=found,
        peers={peer.name: peer for peer in peers},
        conf=BgpConf(local_as=64512),
    )


def serving(*peers: Peer, agreed: Negotiated, up: tuple[str, ...] = tuple(NODES), **more: Any) -> Snapshot:
    """One Service with an address of each family, and sessions with every peer."""
    of = snapshot(
        *peers,
        sessions=frozenset((name, peer.name) for name in up for peer in peers),
        negotiated={(name, peer.name): agreed for name in up for peer in peers},
        **more,
    )
    key = ServiceKey("default", "web")
    web = Service(key, families=(4, 6), held=(VIP, VIP6), recorded=(VIP, VIP6))
    eips = [Eip("v4", (Range(VIP, VIP),)), Eip("v6", (Range(VIP6, VIP6),))]
    return replace(
        of,
        services={key: web},
        endpoints={key: tuple(Endpoint(name) for name in NODES)},
        eips={eip.name: eip for eip in eips},
    )


def routes(made: Plan) -> dict[str, set[str]]:
    """Next hops by prefix."""
    found: dict[str, set[str]] = {}
    for path, prefixes in made.bgp.routes.items():
        for prefix in prefixes:
            found.setdefault(prefix, set()).add(str(path.next_hop))
            assert path.extended == ("." in prefix and path.next_hop.version == 6)
    return found


def problems(of: Snapshot, peer: str = "leaf") -> list[tuple[Reason, str, bool]]:
    return [(one.reason, str(one), one.fatal) for one in peer_problems(of).get(peer, ())]


BOTH, EXTENDED = Negotiated((4, 6)), Negotiated((4, 6), extended_next_hop=True)


# --- parsing


def parsed(conf: dict[str, Any], **spec: Any) -> tuple[Peer | None, list[str]]:
    found = parse_peer({"metadata": {"name": "leaf"}, "spec": {"conf": {"peerAs": 64500, **conf}, **spec}})
    return found.value, [str(problem) for problem in found.problems]


@pytest.mark.parametrize(
    ("conf", "spec"),
    [
        ({"neighborAddress": "fe80::1"}, {"interface": "eth1"}),
        ({"neighborAddress": "fe80::1%eth1"}, {}),
        ({"neighborAddress": "fe80::1%eth1"}, {"interface": "eth1"}),
        ({"neighborAddress": "fe80::1", "neighborInterface": "eth1"}, {}),
    ],
)
def test_a_link_local_address_needs_an_interface(conf: dict[str, Any], spec: dict[str, Any]) -> None:
    peer, said = parsed(conf, **spec)
    assert not said and peer is not None
    assert (peer.address, peer.interface) == (ip_address("fe80::1"), "eth1")
    (session,) = own_sessions(snapshot(peer)).values()
    assert (session.address, session.interface) == (ROUTER, "")


def test_an_interface_alone_is_enough() -> None:
    peer, said = parsed({}, interface="eth1")
    assert not said and peer is not None and (peer.address, peer.interface) == (None, "eth1")
    peer, said = parsed({}, overrides=[{"interface": "eth1"}])
    assert not said and peer is not None and peer.overrides[0].interface == "eth1"


@pytest.mark.parametrize(
    ("conf", "spec", "sentence"),
    [
        (
            {"neighborAddress": "fe80::1"},
            {},
            "spec.conf.neighborAddress: fe80::1 is a link-local address: set spec.interface to the interface of the "
            "node towards the router.",
        ),
        (
            {"neighborAddress": "fe80::1%eth0"},
            {"interface": "eth1"},
            "spec.interface: is eth1, but neighborAddress has %eth0. Leave one of them out.",
        ),
        (
            {"neighborAddress": "2001:db8::1%eth0"},
            {},
            "spec.conf.neighborAddress: 2001:db8::1 is not a link-local address: write it without %.",
        ),
        (
            {"neighborAddress": "169.254.0.1"},
            {"interface": "eth0"},
            "spec.conf.neighborAddress: 169.254.0.1 is a link-local IPv4 address, which is not supported.",
        ),
        ({}, {"interface": "eth0:1"}, 'spec.interface: "eth0:1" is not the name of one network interface.'),
        ({}, {"interface": "a-name-that-is-too-long"}, "is not the name of one network interface."),
        (
            {"neighborInterface": "eth0"},
            {"interface": "eth1"},
            "spec.conf.neighborInterface: is eth0, but the interface is also given as eth1. Leave one out.",
        ),
        (
            {},
            {"interface": "eth1", "transport": {"localAddress": "fd00::1"}},
            "spec.transport.localAddress: and spec.interface are both given. Leave one out.",
        ),
        (
            {"neighborAddress": "fd00::1"},
            {"transport": {"localAddress": "fe80::2"}},
            "spec.transport.localAddress: fe80::2 is a link-local address. Leave it out, and set spec.interface if the "
            "router has one, too.",
        ),
    ],
)
def test_a_wrong_address_or_interface_gets_one_sentence(
    conf: dict[str, Any], spec: dict[str, Any], sentence: str
) -> None:
    peer, said = parsed(conf, **spec)
    assert peer is None
    assert len(said) == 1 and said[0].endswith(sentence)


def test_the_scope_of_an_address() -> None:
    assert scoped(ip_address("fe80::1"), "eth1") == ROUTER
    assert scoped(ip_address("fd00::1"), "eth1") == ip_address("fd00::1")
    assert scoped(ip_address("10.0.0.1"), "eth1") == ip_address("10.0.0.1")
    assert unscoped(ROUTER) == ip_address("fe80::1") != ROUTER
    assert (scope_of(ROUTER), scope_of(ip_address("fe80::1")), scope_of(None)) == ("eth1", "", "")


# --- selection of the router


def test_the_router_is_found_on_the_interface_of_each_node() -> None:
    assert own_sessions(snapshot(leaf()))["leaf"].address == ip_address("fe80::10%eth1")
    assert own_sessions(snapshot(leaf(), node="node-b"))["leaf"].address == ip_address("fe80::11%eth1")
    assert listened(snapshot(leaf())) == ("eth1",)
    assert not problems(snapshot(leaf()))


def test_an_override_may_name_another_interface() -> None:
    of = snapshot(
        leaf(address=ip_address("fe80::1"), overrides=(PeerOverride(interface="bond0"),)),
    )
    assert own_sessions(of)["leaf"].address == ip_address("fe80::1%bond0")
    of = snapshot(leaf(overrides=(PeerOverride(interface="bond0"),)))
    assert listened(of) == ("bond0",) and not own_sessions(of)
    assert not listened(snapshot(leaf(admin_down=True)))
    assert not listened(snapshot(leaf(address=ip_address("fd77::1")))), "it is not link-local"
    assert listened(snapshot(leaf(address=ip_address("fe80::1")))) == ("eth1",), "it may have to hear of the node"


def test_a_node_that_hears_no_router_is_told() -> None:
    quiet = {**snapshot().members, "node-b": member("node-b")}
    of = snapshot(leaf(), node="node-b", members=quiet)
    assert not own_sessions(of)
    ((reason, sentence, fatal),) = problems(of)
    assert (reason, fatal) == (Reason.NO_ROUTER, False)
    assert sentence == (
        "spec.interface: No router advertisement (RFC 4861) was heard on eth1. Check that the router sends them on "
        "this link, or set neighborAddress to its link-local address. There is no session on node-b."
    )
    lacking = {name: member(name, lacks=("eth1",)) for name in NODES}
    ((reason, sentence, fatal),) = problems(snapshot(leaf(), members=lacking))
    assert (reason, fatal) == (Reason.NO_INTERFACE, True)
    assert sentence == "spec.interface: The node has no interface eth1, or it is down."
    unknown = {name: replace(member(name), listed=()) for name in NODES}
    assert not problems(snapshot(leaf(), members=unknown)), "the replicas have not yet told of the interface"
    assert not problems(snapshot(leaf(), members={}))


def test_of_several_routers_the_first_is_used_and_the_user_is_told() -> None:
    two = {name: member(name, "fe80::2%eth1", "fe80::1%eth1", "fe80::9%eth0") for name in ("node-a",)}
    of = snapshot(leaf(), members=two)
    assert own_sessions(of)["leaf"].address == ip_address("fe80::2%eth1")
    ((reason, sentence, fatal), *_) = problems(of)
    assert (reason, fatal) == (Reason.SEVERAL_ROUTERS, False)
    assert "node-a hears several routers: fe80::2%eth1 is used, fe80::1%eth1 is not." in sentence


def test_settings_that_need_a_routed_router_are_refused() -> None:
    conf = BgpConf(local_as=64512, listen_port=179)
    for peer, field in (
        (leaf(passive=True), "spec.transport.passiveMode"),
        (leaf(multihop_ttl=5), "spec.ebgpMultihop"),
        (leaf(address=ip_address("fe80::1"), interface=""), "spec.conf.neighborAddress"),
    ):
        of = replace(snapshot(peer), conf=conf)
        assert not own_sessions(of)
        assert [one.field for one in peer_problems(of)["leaf"]] == [field]


def test_one_link_local_address_on_two_interfaces_is_one_neighbor_for_exabgp() -> None:
    first = Peer("one", ip_address("fe80::1"), 64500, interface="eth1", created="1")
    second = replace(first, name="two", interface="eth2", created="2")
    of = snapshot(first, second)
    assert [session.address for session in own_sessions(of).values()] == [ROUTER]
    ((_, sentence, fatal),) = problems(of, "two")
    assert fatal and "BgpPeer one has the same link-local address on another interface" in sentence
    both = {peer.name: session("fe80::1%" + peer.interface, peer.name) for peer in (first, second)}
    links = {"eth1": ip_address("fe80::11"), "eth2": ip_address("fe80::12")}
    arranged = arrange(DesiredBgp(both), Local(link_local=links))
    assert list(arranged.config.sessions) == ["one"] and list(arranged.refused) == ["two"]


def test_an_interface_on_another_link_than_the_router_gets_a_sentence() -> None:
    found = {name: member(name, on_link=(f"fd88::{at[-2:]}/64",)) for name, at in NODES.items()}
    of = snapshot(leaf(address=ip_address("fd77::1")), members=found)
    (first, *_) = problems(of)
    assert first == (
        Reason.INVALID_FIELD,
        "spec.interface: fd77::1 is not on the link of eth1 of node-a, but on that of another interface. Correct "
        "interface, or leave it out.",
        False,
    )
    assert own_sessions(of)["leaf"].interface == "eth1"
    assert not problems(snapshot(leaf(address=ip_address("fd88::1")), members=found))
    assert not problems(snapshot(leaf(address=ip_address("fd77::1")))), "eth1 has no subnet, as dummy0 has none"


def test_bfd_with_a_link_local_router_is_single_hop() -> None:
    peer = leaf(bfd=BfdSettings(), local_as=64500)
    of = snapshot(peer)
    target = own_bfd(of, own_sessions(of))["leaf"]
    assert (target.address, target.multihop) == (ip_address("fe80::10%eth1"), False)


# --- next hops


def test_on_an_unnumbered_link_each_node_announces_itself() -> None:
    made = plan(serving(leaf(), agreed=EXTENDED), None, 0.0, POLICY)
    own = "fe80::11%eth1"
    assert routes(made) == {"172.16.0.1/32": {own}, "fdaa::1/128": {own}}
    assert made.vips[VIP].announced["leaf"] == {name: (name,) for name in NODES}
    other = plan(serving(leaf(), agreed=EXTENDED, node="node-b"), None, 0.0, POLICY)
    assert routes(other)["172.16.0.1/32"] == {"fe80::12%eth1"}


def test_without_rfc_8950_no_ipv6_next_hop_is_announced_for_ipv4_routes() -> None:
    of = serving(leaf(), agreed=BOTH)
    known = situation(of)
    assert routes(known.plan) == {"fdaa::1/128": {"fe80::11%eth1"}}
    sentence = (
        "The router did not negotiate IPv6 next hops for IPv4 routes (RFC 8950), and the nodes have no IPv4 address on "
        "the link."
    )
    up = replace(known, bgp=replace(known.bgp, sessions={"leaf": SessionState("leaf", "established", 0.0)}))
    entry = own_entry(up, "leaf", None)["nodesPeerStatus"]["node-a"]
    assert entry["reason"].startswith(sentence)
    assert entry["peerState"]["neighborAddress"] == "fe80::10%eth1"
    (ready,) = peer_conditions(up, "leaf", None)["conditions"]
    assert sentence in ready["message"]
    (problem,) = [one for one in known.plan.vips[VIP].problems if one.reason is Reason.NOT_NEGOTIATED]
    assert problem.message.startswith("leaf did not negotiate IPv6 next hops for IPv4 routes (RFC 8950)")
    fine = situation(serving(leaf(), agreed=EXTENDED))
    assert not fine.plan.vips[VIP].problems


def test_what_one_session_negotiated_does_not_count_for_another() -> None:
    of = serving(leaf(), agreed=EXTENDED)
    lacking = {**of.view.negotiated, ("node-b", "leaf"): BOTH}
    made = plan(replace(of, view=replace(of.view, negotiated=lacking)), None, 0.0, POLICY)
    assert made.vips[VIP].announced["leaf"] == {"node-a": ("node-a",), "node-c": ("node-c",)}
    assert made.vips[VIP6].announced["leaf"].keys() == NODES.keys()


def test_a_session_that_negotiates_it_later_gets_the_routes() -> None:
    before = plan(serving(leaf(), agreed=BOTH), None, 0.0, POLICY)
    after = plan(serving(leaf(), agreed=EXTENDED), before, 100.0, POLICY)
    assert "172.16.0.1/32" not in routes(before) and "172.16.0.1/32" in routes(after)
    again = plan(serving(leaf(), agreed=BOTH), after, 101.0, POLICY)
    assert "172.16.0.1/32" not in routes(again)


def test_in_an_ipv6_subnet_other_replicas_announce_a_node() -> None:
    """The session has a global IPv6 address, and the nodes have no IPv4 address. As with IPv4 next hops, the replicas
    of other nodes announce a node, so that detection of its death does not depend on the hold time alone."""
    tor = Peer("tor", ip_address("fd77::1"), 64500)
    made = plan(serving(tor, agreed=EXTENDED), None, 0.0, POLICY)
    hops = routes(made)
    assert hops["172.16.0.1/32"] == hops["fdaa::1/128"] and hops["172.16.0.1/32"] <= {"fd77::12", "fd77::13"}
    covered = {hop for held in made.vips[VIP].announced["tor"].values() for hop in held}
    assert covered == NODES.keys()


def test_a_link_with_a_subnet_is_like_any_subnet() -> None:
    """The router is known by its link-local address; the nodes have addresses in a subnet on the same link."""
    shared = {name: member(name, on_link=(f"fd88::{at[-2:]}/64",)) for name, at in NODES.items()}
    of = serving(leaf(address=ip_address("fe80::1")), agreed=EXTENDED, members=shared)
    assert routes(plan(of, None, 0.0, POLICY))["172.16.0.1/32"] <= {"fd88::12", "fd88::13"}
    with_v4 = {name: member(name, on_link=(f"10.8.0.{at[-2:]}/24",)) for name, at in NODES.items()}
    of = serving(leaf(address=ip_address("fe80::1")), agreed=EXTENDED, members=with_v4)
    made = routes(plan(of, None, 0.0, POLICY))
    assert made["172.16.0.1/32"] <= {"10.8.0.12", "10.8.0.13"}, "an IPv4 next hop, which every router knows"
    assert made["fdaa::1/128"] == {"fe80::11%eth1"}


def test_addresses_of_another_interface_are_no_next_hops() -> None:
    """eth0 has IPv4, but the router is on eth1."""
    found = {name: member(name, "fe80::1%eth1") for name in NODES}
    for name, at in found.items():
        found[name] = replace(at, subnets=(*at.subnets, ip_interface(f"10.9.0.{NODES[name][-2:]}/24")))
    of = serving(leaf(), agreed=BOTH, members=found)
    assert "172.16.0.1/32" not in routes(plan(of, None, 0.0, POLICY))


def test_a_replica_that_has_not_told_of_its_link_announces_nothing() -> None:
    silent = {name: replace(member(name, "fe80::1%eth1"), listed=()) for name in NODES}
    of = serving(leaf(), agreed=EXTENDED, members=silent)
    assert not routes(plan(of, None, 0.0, POLICY))
    reach = Reach(leaf(), 4, {"node-a": (ip_address("10.0.0.1"),)}, {})
    assert reach.address("node-a", "node-a") is None


def test_what_was_negotiated_travels_in_hellos() -> None:
    for agreed in (EXTENDED, BOTH, Negotiated((4, 6), (4,), extended_next_hop=True), Negotiated((4,))):
        assert from_text(agreed.text) == agreed
    assert EXTENDED.text == "46x" and from_text("46y") is None and from_text("x46") is None


# --- ExaBGP


def session(address: str = "fe80::1%eth1", peer: str = "leaf", **more: Any) -> SessionConfig:
    return SessionConfig(peer, ip_address(address), 64500, 64512, IPv4Address("10.0.0.1"), **more)


def configured(wanted: SessionConfig, **more: Any) -> str:
    found = arrange(DesiredBgp({"leaf": wanted}, **more), Local(link_local={"eth1": ip_address("fe80::11")}))
    return text.configuration(found.config.sessions.values(), ["/api"], found.config.listen)


def test_the_configuration_of_a_link_local_neighbor() -> None:
    said = configured(session())
    assert "neighbor fe80::1 {" in said and "source-interface eth1;" in said and "local-address fe80::11;" in said
    assert "nexthop enable;" in said and "nexthop { ipv4 unicast ipv6; }" in said
    assert "listen" not in configured(session(), listen_port=1179), "ExaBGP cannot listen on a link-local address"


def test_next_hops_of_rfc_8950_are_offered_to_ipv6_neighbors_with_ipv4_routes() -> None:
    assert "nexthop enable;" in configured(session("fd00::1", families=(4,)))
    for other in (session("fd00::1", families=(6,)), session("10.0.0.1")):
        assert "nexthop" not in configured(other)


def test_an_interface_without_a_link_local_address_is_refused_with_a_sentence() -> None:
    found = arrange(DesiredBgp({"leaf": session()}), Local(link_local={"eth1": None}))
    assert not found.config.sessions
    assert refusal(found.refused["leaf"]) == (
        "The node has no interface eth1 with an IPv6 link-local address: add it, switch on IPv6 there, or correct the "
        "interface of the BgpPeer."
    )


def test_commands_have_addresses_without_the_interface() -> None:
    path = Path("leaf", ip_address("fe80::11%eth1"), extended=True)
    line = text.announce(session(), path, ["172.16.0.1/32"])
    assert line == "neighbor fe80::1 announce attributes next-hop fe80::11 nlri 172.16.0.1/32"
    assert text.clear(session()).startswith("neighbor fe80::1 ")
    assert text.teardown(session(), 10).startswith("neighbor fe80::1 ")
    assert text.end_of_rib(session(), 4).startswith("neighbor fe80::1 ")
    for wrong, prefix in ((path, "fdaa::1/128"), (replace(path, extended=False), "172.16.0.1/32")):
        with pytest.raises(Unspeakable, match="another IP version"):
            text.announce(session(), wrong, [prefix])


def test_events_of_a_link_local_neighbor_are_those_of_its_session() -> None:
    sessions = Sessions()
    wanted = {"leaf": session()}
    sessions.configure(wanted, arrange(DesiredBgp(wanted), Local(link_local={"eth1": ip_address("fe80::11")})), 0.0)
    bare = ip_address("fe80::1")
    sessions.hear(text.Opened(bare, EXTENDED), 1.0)
    assert sessions.hear(text.Up(bare), 1.0) == ["leaf"] and sessions.states["leaf"].negotiated == EXTENDED


def test_a_route_with_an_ipv6_next_hop_is_withheld_where_it_was_not_negotiated() -> None:
    sessions = Sessions()
    wanted = {"leaf": session()}
    arranged = arrange(DesiredBgp(wanted), Local(link_local={"eth1": ip_address("fe80::11")}))
    sessions.configure(wanted, arranged, 0.0)
    path = Path("leaf", ip_address("fe80::11%eth1"), extended=True)
    assert not sessions.fits(path), "nothing was negotiated yet"
    difference = Difference()
    difference.set_peers(frozenset({"leaf"}))
    difference.want({path: {"172.16.0.1/32"}})
    difference.done(Batch(path, ("172.16.0.1/32",), withdraw=False))
    for agreed, fits in ((EXTENDED, True), (BOTH, False)):
        sessions.hear(text.Opened(ip_address("fe80::1"), agreed), 1.0)
        sessions.hear(text.Up(ip_address("fe80::1")), 1.0)
        assert sessions.fits(path) is fits and sessions.unfit("leaf", difference) is not fits
    assert sessions.fits(replace(path, extended=False))


def test_the_negotiated_next_hops_are_read_from_both_answers_of_exabgp() -> None:
    said = {
        "families": ["ipv4 unicast", "ipv6 unicast"], "add_path": {"send": []}, "hold_time": 9, "asn4": True,
        "nexthop": ["ipv4 unicast ipv6"],
    }  # fmt: skip
    assert text.events._negotiated(said).extended_next_hop
    assert not text.events._negotiated({**said, "nexthop": ["ipv4 mpls-vpn ipv6"]}).extended_next_hop
    local = {"capabilities": {"nexthop": True}, "add-path": {}, "hold": 9}
    peer = {"capabilities": {"nexthop": True}, "hold": 9, "id": "10.0.0.2", "as": 64500}
    assert text.events._shown_negotiated(local, peer, ["ipv4 unicast"]).extended_next_hop
    lacking = {**peer, "capabilities": {}}
    assert not text.events._shown_negotiated(local, lacking, ["ipv4 unicast"]).extended_next_hop


# --- between the processes and between the replicas


def test_the_interfaces_and_routers_of_a_node_reach_the_other_replicas() -> None:
    peers = [leaf(), Peer("gw", None, 64500, overrides=(PeerOverride(gateway=6), PeerOverride(interface="bond0")))]
    gateways = (ip_address("fe80::1%eth7"),)
    names = set(peer_interfaces(peers, gateways))
    assert names == {"eth1", "bond0", "eth7"}
    nic = Nic("eth1", 3, b"\2" * 6, True, (ip_interface("fe80::11/64"),))
    me = member_here("node-a", "fd77::11", 7473, [nic], gateways, (), names, (ROUTER,))
    assert me.routers == (ROUTER,) and me.on("eth1") == (ip_interface("fe80::11/64"),) and me.on("eth9") == ()
    assert me.lacks == ("bond0", "eth7")
    assert parse_member("porterlb-node-a", described(replace(me, boot=1))).value == replace(me, boot=1)


def test_the_wire_process_is_told_the_interfaces_and_tells_the_routers() -> None:
    told = read_state(json.loads(state_line(DesiredWire(routers=("eth1",)))))
    assert told.routers == ("eth1",)
    assert b"routers" not in state_line(DesiredWire())
    assert read_report(json.loads(report_line({"routers": (ROUTER,)}))) == {"routers": (ROUTER,)}
