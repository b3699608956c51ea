"""BgpPeer.spec.overrides: values for some nodes; how they are read, applied, sent to ExaBGP and shown to the user."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Any

import pytest

from porterlb.core.allocation.reserved import reserved_addresses
from porterlb.core.bfd import text as bfd_text
from porterlb.core.bfd.values import BfdSettings
from porterlb.core.bgp import words
from porterlb.core.bgp.config import Local, arrange
from porterlb.core.bgp.peers import own_bfd, own_sessions, peer_problems
from porterlb.core.desired import DesiredBgp, SessionConfig
from porterlb.core.exabgp_text import configuration
from porterlb.core.model import (
    BgpConf,
    DynamicAs,
    Member,
    Node,
    Peer,
    PeerOverride,
    Requirement,
    Selector,
    Snapshot,
    View,
)
from porterlb.core.parse import parse_peer
from porterlb.core.plan import plan
from porterlb.core.problems import Problem, Reason
from porterlb.core.status.peer import own_entry, peer_conditions
from tests.core.stage import POLICY, situation
from tests.core.stage import snapshot as stage

NODES = {"node-a": "10.1.0.11", "node-b": "10.2.0.12", "node-c": "10.2.0.13"}
RACKS = {"node-a": "one", "node-b": "two", "node-c": "two"}


def rack(name: str) -> Selector:
    return Selector((Requirement("rack", "In", frozenset({name})),))


def member(name: str, *gateways: str) -> Member:
    subnet = ip_interface(f"{NODES[name]}/24")
    return Member(name, NODES[name], 1, 1, (subnet,), tuple(ip_address(gateway) for gateway in gateways))


def snapshot(*peers: Peer, node: str = "node-a") -> Snapshot:
    """Two racks, each with its own subnet and gateway."""
    return Snapshot(
        View(node, fresh=frozenset(NODES)),
        nodes={name: Node(name, (ip_address(NODES[name]),), {"rack": RACKS[name]}) for name in NODES},
        members={name: member(name, NODES[name].rsplit(".", 1)[0] + ".1") for name in NODES},
        peers={peer.name: peer for peer in peers},
        conf=BgpConf(local_as=64512),
    )


def tor(*overrides: PeerOverride, **more: Any) -> Peer:
    base: dict[str, Any] = {"address": ip_address("192.0.2.1"), "peer_as": 64500, **more}
    return Peer("tor", base.pop("address"), base.pop("peer_as"), overrides=overrides, **base)


def session(of: Snapshot) -> SessionConfig:
    return own_sessions(of)["tor"]


def problems(of: Snapshot) -> tuple[Problem, ...]:
    return peer_problems(of).get("tor", ())


# --- parsing


def parsed(*overrides: object, conf: dict[str, Any] | None = None, **spec: Any) -> tuple[Peer | None, list[str]]:
    told = {"neighborAddress": "192.0.2.1", "peerAs": 64500} if conf is None else conf
    found = parse_peer({"metadata": {"name": "tor"}, "spec": {"conf": told, "overrides": list(overrides), **spec}})
    return found.value, [str(problem) for problem in found.problems]


ONE = {"matchLabels": {"rack": "one"}}


def test_every_field_is_read() -> None:
    peer, said = parsed(
        {
            "nodeSelector": ONE, "neighborAddress": "10.1.0.1", "peerAs": "external", "localAs": 65001,
            "routerId": "10.1.0.9", "interface": "eth1",
        },
        {"defaultGateway": "ipv6", "peerAs": 65002, "localAddress": "fd00::9"},
    )  # fmt: skip
    assert not said and peer is not None
    assert peer.overrides == (
        PeerOverride(
            rack("one"), ip_address("10.1.0.1"), 0, 0, DynamicAs.EXTERNAL, 65001, IPv4Address("10.1.0.9"), None, "eth1"
        ),
        PeerOverride(None, None, 6, 65002, local_address=ip_address("fd00::9")),
    )


def test_address_and_as_may_be_given_by_overrides_alone() -> None:
    peer, said = parsed({"nodeSelector": ONE, "defaultGateway": "ipv4", "peerAs": 65001}, conf={"localAs": 65000})
    assert not said and peer is not None and (peer.address, peer.peer_as) == (None, 0)
    nowhere = parsed({"localAs": 65001}, conf={"peerAs": 64500})
    assert nowhere == (
        None,
        ["spec.conf.neighborAddress: is missing: the IP address of the router, or set spec.interface."],
    )
    unknown = parsed({"defaultGateway": "ipv4"}, conf={})
    assert unknown[1] == ["spec.conf.peerAs: is missing: the AS number of the router, or external or internal."]


NO_SESSION = " The nodes of this entry have no session."


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"neighborAddress": "10.1"}, '.neighborAddress: "10.1" is not the IP address of a host.'),
        (
            {"neighborAddress": "fe80::1%e", "interface": "eth0"},
            ".interface: is eth0, but neighborAddress has %e. Leave one of them out.",
        ),
        ({"defaultGateway": "yes"}, '.defaultGateway: "yes" is neither ipv4 nor ipv6.'),
        (
            {"neighborAddress": "10.1.0.1", "defaultGateway": "ipv4"},
            ".defaultGateway: and neighborAddress are both given. Leave one out.",
        ),
        ({"peerAs": "other"}, '.peerAs: "other" is neither an AS number nor external or internal.'),
        ({"peerAs": 23456}, ".peerAs: 23456 is AS_TRANS (RFC 6793), which no router has as its own."),
        ({"localAs": -1}, ".localAs: -1 is out of range: it must be 0 to 4294967295."),
        ({"routerId": "0.0.0.0"}, '.routerId: "0.0.0.0" is not an IPv4 address other than 0.0.0.0.'),
        ({"interface": "eth0,eth1"}, '.interface: "eth0,eth1" is not the name of one network interface.'),
        (
            {"interface": "eth0", "localAddress": "10.1.0.9"},
            ".interface: and localAddress are both given. Leave one out.",
        ),
        (
            {"neighborAddress": "fd00::1", "localAddress": "10.1.0.9"},
            ".localAddress: The local address 10.1.0.9 is IPv4, but the router has IPv6.",
        ),
    ],
)  # fmt: skip
def test_an_error_refuses_its_entry_alone(entry: dict[str, Any], sentence: str) -> None:
    fine = {"nodeSelector": {"matchLabels": {"rack": "two"}}, "localAs": 65002}
    peer, said = parsed({"nodeSelector": ONE, **entry}, fine)
    assert said == [f"spec.overrides[0]{sentence}{NO_SESSION}"]
    assert peer is not None
    assert not own_sessions(snapshot(peer)), "its nodes have no session"
    assert session(snapshot(peer, node="node-b")).local_as == 65002
    assert not problems(snapshot(peer)), "it is told once"


def test_the_source_of_the_peer_must_fit_the_router_of_the_entry() -> None:
    peer, said = parsed({"neighborAddress": "fd00::1"}, transport={"localAddress": "10.1.0.9"})
    assert peer is not None and peer.overrides[0].refused
    assert said == [
        f"spec.overrides[0].neighborAddress: The local address 10.1.0.9 is IPv4, but the router has IPv6.{NO_SESSION}"
    ]
    _, said = parsed({"neighborAddress": "fd00::1", "interface": "lo"}, transport={"localAddress": "10.1.0.9"})
    assert not said


def test_an_entry_whose_nodes_are_unknown_is_not_used() -> None:
    for entry in (7, {"nodeSelector": {"rack": "one"}, "localAs": 65009}):
        peer, said = parsed(entry, {"localAs": 65001})
        assert len(said) == 1 and said[0].startswith("spec.overrides[0]")
        assert said[0].endswith(" The entry is not used.")
        assert peer is not None and session(snapshot(peer)).local_as == 65001


def test_an_empty_entry_is_told() -> None:
    peer, said = parsed({"nodeSelector": ONE})
    assert peer is not None and not peer.overrides[0].refused
    assert said[0].startswith("spec.overrides[0]: has no value. Give one of neighborAddress, ")


# --- sessions


def test_the_first_entry_that_selects_the_node_counts() -> None:
    every: dict[str, Any] = {"router_id": IPv4Address("10.9.9.9"), "local_address": ip_address("10.1.0.11")}
    first = PeerOverride(rack("one"), ip_address("10.1.0.1"), 0, 65101, None, 65001, **every)
    rest = PeerOverride(local_as=65009)
    peer = tor(first, rest)
    here, there = session(snapshot(peer)), session(snapshot(peer, node="node-b"))
    assert (here.address, here.peer_as, here.local_as) == (ip_address("10.1.0.1"), 65101, 65001)
    assert (here.router_id, here.local_address) == (IPv4Address("10.9.9.9"), ip_address("10.1.0.11"))
    assert (there.address, there.peer_as, there.local_as) == (ip_address("192.0.2.1"), 64500, 65009)
    assert (there.router_id, there.local_address) == (IPv4Address("10.2.0.12"), None)
    assert session(snapshot(tor(first), node="node-b")).local_as == 64512, "without an entry: the BgpPeer itself"
    assert session(snapshot(tor(rest, first))).local_as == 65009


def test_the_as_of_the_router_and_the_source_are_overridden_as_a_whole() -> None:
    external = tor(PeerOverride(dynamic=DynamicAs.EXTERNAL))
    assert session(snapshot(external)).peer_as == 0
    number = tor(PeerOverride(peer_as=65101), peer_as=0, dynamic=DynamicAs.INTERNAL)
    assert session(snapshot(number)).peer_as == 65101
    source = tor(PeerOverride(interface="lo"), local_address=ip_address("10.1.0.11"))
    assert (session(snapshot(source)).local_address, session(snapshot(source)).interface) == (None, "lo")


def test_the_default_gateway_of_each_node_is_its_router() -> None:
    peer = tor(PeerOverride(gateway=4), address=None)
    assert session(snapshot(peer)).address == ip_address("10.1.0.1")
    assert session(snapshot(peer, node="node-b")).address == ip_address("10.2.0.1")
    assert not problems(snapshot(peer))


def test_a_node_without_a_gateway_is_told() -> None:
    peer = tor(PeerOverride(gateway=4), address=None)
    of = snapshot(peer, node="node-b")
    without = replace(of, members={**of.members, "node-b": member("node-b", "fe80::1", "fd00::1")})
    assert not own_sessions(without)
    (problem,) = problems(without)
    assert (problem.field, problem.fatal) == ("spec.overrides[0].defaultGateway", False)
    assert problem.message == (
        "The node has no IPv4 default route: add one, or set neighborAddress here. There is no session on node-b."
    )
    v6 = replace(without, peers={"tor": tor(PeerOverride(gateway=6), address=None)})
    assert session(v6).address == ip_address("fd00::1"), "a link-local one is passed over"
    linked = replace(v6, members={**of.members, "node-b": member("node-b", "fe80::1")})
    assert any(
        "interface of the default gateway fe80::1 is not known" in problem.message for problem in problems(linked)
    )
    with_link = replace(v6, members={**of.members, "node-b": member("node-b", "fe80::1%eth0")})
    assert session(with_link).address == ip_address("fe80::1%eth0")
    unheard = replace(of, members={})
    assert not own_sessions(unheard) and not problems(unheard), "no replica has told of its node yet"


def test_a_node_without_an_address_or_an_as_of_the_router_is_told() -> None:
    peer = tor(PeerOverride(rack("one"), ip_address("10.1.0.1"), peer_as=65101), address=None, peer_as=0)
    of = snapshot(peer, node="node-b")
    assert not own_sessions(of)
    (problem,) = problems(of)
    assert (problem.field, problem.reason) == ("spec.conf.peerAs", Reason.MISSING_FIELD)
    assert problem.message.endswith("There is no session on node-b, node-c.")
    (problem,) = problems(snapshot(replace(peer, peer_as=64500)))
    assert (problem.field, problem.fatal) == ("spec.conf.neighborAddress", False)


def test_one_address_is_two_routers_in_two_racks_and_one_in_one() -> None:
    at = ip_address("10.0.0.1")
    spine = Peer("spine", ip_address("192.0.2.9"), 64500, overrides=(PeerOverride(rack("one"), at),), created="1")
    leaf = Peer("tor", at, 64500, created="2")
    assert own_sessions(snapshot(spine, leaf)).keys() == {"spine"}
    assert own_sessions(snapshot(spine, leaf, node="node-b")).keys() == {"spine", "tor"}
    (problem,) = problems(snapshot(spine, leaf))
    assert problem.message == "The older BgpPeer spine has the same address 10.0.0.1 and is used instead on node-a."


def test_bfd_goes_with_the_session() -> None:
    override = PeerOverride(rack("one"), ip_address("10.1.0.1"), interface="dummy0")
    of = snapshot(tor(override, bfd=BfdSettings()))
    (target,) = own_bfd(of, own_sessions(of)).values()
    assert (target.address, target.interface) == (ip_address("10.1.0.1"), "dummy0")
    assert bfd_text.read_want(json.loads(bfd_text.want_line([target]))) == (target,)


# --- ExaBGP


def test_the_address_of_the_interface_is_the_source() -> None:
    wanted = session(snapshot(tor(PeerOverride(interface="dummy0", local_as=65001))))
    at = {("dummy0", 4): ip_address("10.9.0.11")}
    found = arrange(DesiredBgp({"tor": wanted}), Local(interfaces=at))
    text = configuration(found.config.sessions.values(), ["/api"], found.config.listen)
    assert "local-address 10.9.0.11;" in text and "local-as 65001;" in text
    listening = arrange(DesiredBgp({"tor": wanted}, listen_port=1179), Local(interfaces=at))
    assert listening.config.listeners == {(ip_address("10.9.0.11"), 1179)}
    absent = arrange(DesiredBgp({"tor": wanted}), Local(interfaces={("dummy0", 4): None}))
    assert not absent.config.sessions
    assert words.refusal(absent.refused["tor"]) == (
        "The node has no interface dummy0 with an IPv4 address: add it, or correct the interface of the BgpPeer."
    )


# --- routes and status


def racks(**more: Any) -> Snapshot:
    """The stage, with node-c in its own rack and subnet."""
    of = stage(**more)
    peer = replace(of.peers["tor"], overrides=(PeerOverride(rack("two"), ip_address("10.2.0.1")),))
    lonely = Node("node-c", (ip_address("10.2.0.13"),), {"rack": "two"})
    members = {**of.members, "node-c": member("node-c")}
    return replace(of, nodes={**of.nodes, "node-c": lonely}, members=members, peers={"tor": peer})


def test_a_replica_announces_what_the_router_of_its_own_rack_can_reach() -> None:
    of = racks()
    members = {**of.members}
    for name in ("node-a", "node-b"):
        at = of.nodes[name].addresses[0]
        members[name] = Member(name, str(at), 1, 1, (ip_interface(f"{at}/24"),))
    made = plan(replace(of, members=members), None, 0.0, POLICY)
    announced = [vip.announced["tor"] for vip in made.vips.values() if "tor" in vip.announced]
    assert announced
    for by in announced:
        assert {hop for replica in ("node-a", "node-b") for hop in by.get(replica, ())} == {"node-a", "node-b"}
        assert by.get("node-c") == ("node-c",)


def test_a_label_that_moves_a_node_to_another_rack_moves_its_routes() -> None:
    of = racks()
    before = plan(of, None, 0.0, POLICY)
    moved = {name: replace(node, labels={**node.labels, "rack": "two"}) for name, node in of.nodes.items()}
    after = plan(replace(of, nodes=moved), before, 1.0, POLICY)
    again = plan(replace(of, nodes=moved), None, 1.0, POLICY)
    assert after.routes == again.routes != before.routes
    assert after.bgp.sessions["tor"].address == ip_address("10.2.0.1")


def test_every_router_is_reserved() -> None:
    peer = tor(PeerOverride(rack("one"), ip_address("10.1.0.77")))
    found = reserved_addresses({}, {}, {"tor": peer})
    assert found == dict.fromkeys(map(ip_address, ("192.0.2.1", "10.1.0.77")), "is the address of BgpPeer tor")


def test_the_status_shows_what_the_node_uses() -> None:
    of = racks()
    here = replace(of, nodes={**of.nodes, "node-a": replace(of.nodes["node-a"], labels={"rack": "two"})})
    entry = own_entry(situation(here), "tor", None)["nodesPeerStatus"]["node-a"]
    assert entry["override"] == "spec.overrides[0]"
    assert entry["peerState"]["neighborAddress"] == "10.2.0.1"
    assert "override" not in own_entry(situation(of), "tor", None)["nodesPeerStatus"]["node-a"]


def ready(of: Snapshot) -> dict[str, str]:
    found: dict[str, str] = peer_conditions(situation(of), "tor", None)["conditions"][0]
    return found


def test_a_node_without_a_replica_in_a_rack_of_its_own_is_told() -> None:
    up = ("node-a", "node-b")
    alone = racks(up=up, fresh=frozenset(up))
    told = ready(replace(alone, members={name: alone.members[name] for name in up if name in alone.members}))
    assert (told["status"], told["reason"]) == ("True", "NoReplica")
    assert told["message"].endswith(
        "No replica runs on node-c, and no other replica can announce them to this router: they get no traffic from "
        "it. Run PorterLB there."
    )
    assert ready(racks())["reason"] == "Established", "its own replica announces it"
    together = stage(up=up, fresh=frozenset(up))
    assert ready(together)["reason"] == "Established", "on one subnet the others announce it"
    far = {"tor": replace(alone.peers["tor"], multihop_ttl=5)}
    assert ready(replace(alone, peers=far))["reason"] == "Established", "a distant router can reach every node"
    other = {"tor": replace(alone.peers["tor"], node_selector=rack("one"))}
    assert ready(replace(alone, peers=other))["reason"] == "NoNode", "a node that is not selected is no concern of it"
