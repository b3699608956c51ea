"""Which sessions a replica wants, and faults that show only in the set of all objects."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_interface

import pytest

from porterlb.core.announce import Reach, arrange
from porterlb.core.bgp.peers import own_sessions, peer_problems, router_id
from porterlb.core.model import (
    AdvertiseRule,
    BgpConf,
    DynamicAs,
    Member,
    Node,
    Peer,
    Requirement,
    RouteAttributes,
    Selector,
    Snapshot,
    View,
)
from porterlb.core.plan import plan
from porterlb.core.problems import Reason
from tests.core.stage import POLICY
from tests.core.test_plan import ADDRESS, NAMES, cluster

GATEWAY = ip_address("10.77.0.1")


def rack(name: str) -> Selector:
    return Selector((Requirement("rack", "In", frozenset({name})),))


def snapshot(*peers: Peer, node: str = "node-a", conf: BgpConf | None = None) -> Snapshot:
    return Snapshot(
        View(node),
        nodes={
            "node-a": Node("node-a", (ip_address("10.77.0.11"),), {"rack": "a"}),
            "node-b": Node("node-b", (ip_address("10.77.0.12"),), {"rack": "b"}),
        },
        peers={peer.name: peer for peer in peers},
        conf=conf or BgpConf(local_as=64512),
    )


def held(of: Snapshot) -> set[str]:
    return {name for name, session in own_sessions(of).items() if not session.admin_down}


def test_one_address_per_rack_is_two_routers() -> None:
    racks = [Peer(f"leaf-{name}", GATEWAY, 64500, node_selector=rack(name)) for name in "ab"]
    assert held(snapshot(*racks)) == {"leaf-a"}
    assert held(snapshot(*racks, node="node-b")) == {"leaf-b"}
    assert not peer_problems(snapshot(*racks))


def test_the_older_peer_wins_whatever_its_name() -> None:
    old = Peer("router1", GATEWAY, 64500, created="2026-01-01T00:00:00Z")
    typo = Peer("aaa-typo", GATEWAY, 64999, created="2026-02-01T00:00:00Z")
    assert held(snapshot(old, typo)) == {"router1"}
    (problem,) = peer_problems(snapshot(old, typo))["aaa-typo"]
    assert problem.fatal and "The older BgpPeer router1 has the same address" in problem.message
    assert "router1" not in peer_problems(snapshot(old, typo))
    here = replace(old, node_selector=rack("a"))
    assert held(snapshot(here, typo, node="node-b")) == {"aaa-typo"}
    (problem,) = peer_problems(snapshot(here, typo))["aaa-typo"]
    assert not problem.fatal and problem.message.endswith("on node-a.")
    assert held(snapshot(replace(old, created=""), replace(typo, created=""))) == {"aaa-typo"}  # then by name


def test_a_peer_without_a_session_takes_no_address_from_others() -> None:
    younger = Peer("b", GATEWAY, 64500, created="2")
    for older in (
        Peer("a", GATEWAY, 64500, created="1", admin_down=True),
        Peer("a", GATEWAY, 64500, created="1", passive=True),
        Peer("a", GATEWAY, 64500, created="1", password="x" * 81),
    ):
        assert held(snapshot(older, younger)) == {"b"}


def test_what_only_all_objects_show_is_told() -> None:
    conf = BgpConf()
    assert peer_problems(snapshot(Peer("a", GATEWAY, 64500), conf=conf))["a"][0].reason is Reason.NO_LOCAL_AS
    passive = peer_problems(snapshot(Peer("a", GATEWAY, 64500, passive=True)))["a"][0]
    assert passive.fatal and "listenPort" in passive.message
    nowhere = peer_problems(snapshot(Peer("a", GATEWAY, 64500, node_selector=rack("z"))))["a"][0]
    assert nowhere.reason is Reason.NO_NODE and not nowhere.fatal
    rule = AdvertiseRule(frozenset({"gone"}), attributes=RouteAttributes(local_pref=200, prepend=2))
    eip, local_pref = peer_problems(snapshot(Peer("a", GATEWAY, 64500, advertise=(rule,))))["a"]
    assert (eip.field, eip.reason) == ("spec.advertise[0].eips", Reason.EIP_UNKNOWN)
    assert (local_pref.field, local_pref.fatal) == ("spec.advertise[0].localPref", False)
    _, prepend = peer_problems(snapshot(Peer("a", GATEWAY, 64512, advertise=(rule,))))["a"]
    assert prepend.field == "spec.advertise[0].asPathPrepend"


def test_the_as_of_a_rack() -> None:
    tor = Peer("tor", GATEWAY, 64500)
    conf = BgpConf(local_as=64512, as_per_rack={"leaf-1": 65001})
    racks = {"node-a": {"porter.kubesphere.io/rack": "leaf-1"}, "node-b": {"openelb.kubesphere.io/rack": "leaf-9"}}

    def told(*peers: Peer, conf: BgpConf = conf, node: str = "node-a") -> Snapshot:
        of = snapshot(*peers, conf=conf, node=node)
        nodes = {name: replace(found, labels={**found.labels, **racks[name]}) for name, found in of.nodes.items()}
        return replace(of, nodes=nodes)

    assert own_sessions(told(tor))["tor"].local_as == 65001
    assert own_sessions(told(tor, node="node-b"))["tor"].local_as == 64512
    assert own_sessions(told(replace(tor, local_as=65009)))["tor"].local_as == 65009
    inside = own_sessions(told(replace(tor, peer_as=0, dynamic=DynamicAs.INTERNAL)))["tor"]
    assert (inside.local_as, inside.peer_as) == (65001, 65001)
    outside = own_sessions(told(replace(tor, peer_as=0, dynamic=DynamicAs.EXTERNAL)))["tor"]
    assert outside.peer_as == 0

    only_racks = replace(conf, local_as=0)
    assert own_sessions(told(tor, conf=only_racks)).keys() == {"tor"}
    assert not own_sessions(told(tor, conf=only_racks, node="node-b"))
    (problem,) = peer_problems(told(tor, conf=only_racks))["tor"]
    assert (problem.reason, problem.fatal) == (Reason.NO_LOCAL_AS, False)
    assert "or a rack of asPerRack as a label of the node. There is no session on node-b." in problem.message


def test_an_attribute_has_an_effect_where_one_rack_is_internal() -> None:
    rule = AdvertiseRule(attributes=RouteAttributes(local_pref=200, prepend=2))
    tor = Peer("tor", GATEWAY, 65001, advertise=(rule,))
    of = snapshot(tor, conf=BgpConf(64512, {"leaf-1": 65001}))
    labels = {"porter.kubesphere.io/rack": "leaf-1"}
    inside = {name: replace(node, labels=labels) for name, node in of.nodes.items()}
    mixed = {**of.nodes, "node-a": inside["node-a"]}
    assert [p.field for p in peer_problems(of)["tor"]] == ["spec.advertise[0].localPref"]
    assert [p.field for p in peer_problems(replace(of, nodes=inside))["tor"]] == ["spec.advertise[0].asPathPrepend"]
    assert "tor" not in peer_problems(replace(of, nodes=mixed))


@pytest.mark.parametrize(("node", "expected"), [("node-a", "120.153.77.171"), ("node-tjohud", "0.0.0.1")])
def test_a_node_without_an_ipv4_address_has_a_router_id_made_of_its_name(node: str, expected: str) -> None:
    """Never 0.0.0.0, which no router accepts (RFC 6286, 2.1): the hash of the second name is 0."""
    of = snapshot(node=node)
    without = replace(of, nodes={})
    assert str(router_id(without)) == expected
    assert str(router_id(replace(without, conf=replace(of.conf, router_id=IPv4Address("192.0.2.7"))))) == "192.0.2.7"


def members() -> dict[str, Member]:
    return {name: Member(name, "", 1, 1, (ip_interface(f"{ADDRESS[name]}/24"),)) for name in NAMES}


def test_a_router_of_each_node_gets_that_node_only() -> None:
    addresses = {name: (ADDRESS[name],) for name in NAMES}
    capacity = dict.fromkeys(NAMES, 1)
    for peer in (
        Peer("daemon", ip_address("127.0.0.1"), 64500),
        Peer("rack", GATEWAY, 64500, router_per_node=True),
    ):
        reach = Reach(peer, 4, addresses, members())
        assert arrange(NAMES, NAMES, reach, capacity) == {name: (name,) for name in NAMES}
        assert arrange(["node-a"], NAMES, reach, capacity) == {"node-a": ("node-a",)}
    # A BGP daemon on node-a, reached at the node's own address; for other nodes it is an ordinary router.
    reach = Reach(Peer("own", ADDRESS["node-a"], 64500), 4, addresses, members())
    assert reach.address("node-a", "node-a") == ADDRESS["node-a"]
    assert reach.address("node-a", "node-b") is None
    assert reach.address("node-b", "node-a") == ADDRESS["node-a"]


def test_a_peer_that_is_hidden_here_gets_no_routes_from_here() -> None:
    of = cluster()
    tor = replace(of.peers["tor"], created="1")
    twin = replace(tor, name="twin", created="2")
    made = plan(replace(of, peers={"tor": tor, "twin": twin}), None, 0.0, POLICY)
    assert {path.peer for path in made.bgp.routes} == {"tor"}
    assert made.bgp.sessions.keys() == {"tor"}
    assert made.peers.keys() == {"twin"}
