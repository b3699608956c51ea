"""The values shared by all VIPs of a plan: each is rebuilt only if one of its inputs has changed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from porterlb.core.drain import Stages
from porterlb.core.model import AdvertiseRule, Node, PeerOverride, Ready, Requirement, Selector, Snapshot
from porterlb.core.plan import plan
from porterlb.core.shared import Shared, shared_by_all
from tests.core.stage import POLICY, snapshot
from tests.core.test_plan import NAMES

START = snapshot()
ODD = Selector((Requirement("odd", "In", frozenset({"yes"})),))


def first(of: Snapshot = START) -> Shared:
    return shared_by_all(of, {}, 0.0, POLICY, None)


def then(before: Shared, of: Snapshot, at: Stages | None = None) -> Shared:
    return shared_by_all(of, before.peering.sessions, 1.0, POLICY, before, at or before.topology.drain)


def kept(before: Shared, now: Shared) -> tuple[bool, bool, bool]:
    """Which of topology, peering and rules are identical objects."""
    return now.topology is before.topology, now.peering is before.peering, now.rules is before.rules


def edited(**view: object) -> Snapshot:
    return replace(START, view=replace(START.view, **view))  # type: ignore[arg-type]


def test_what_no_vip_depends_on_leaves_all_as_it_is() -> None:
    before = first()
    of = replace(edited(leader="node-b", outage=True, asked=frozenset({ip_address("10.77.0.1")})), services={})
    now = then(before, of)
    assert kept(before, now) == (True, True, True)
    assert now.snapshot is of and now.now == 1.0
    assert now.topology.lost(before.topology) == frozenset() == now.peering.handed_on(before.peering)


@pytest.mark.parametrize(
    "of",
    [
        edited(fresh=frozenset({"node-a", "node-b"})),
        edited(dead=frozenset({"node-c"})),
        edited(settling=frozenset({"node-c"})),
        edited(dead_on=frozenset({("node-c", next(iter(START.members["node-c"].subnets)).network)})),
        edited(doubt=True),
        replace(START, nodes={**START.nodes, "node-c": replace(START.nodes["node-c"], ready=Ready.FALSE)}),
        replace(START, members={name: START.members[name] for name in NAMES[:2]}),
    ],
)
def test_what_changes_a_node_makes_topology_and_peering_again(of: Snapshot) -> None:
    before = first()
    now = then(before, of)
    whole = first(of)
    assert kept(before, now)[:2] == (False, False) and now.rules.selected == whole.rules.selected
    assert now.topology == whole.topology
    assert now.peering.topology is now.topology


def test_a_drain_makes_the_topology_again() -> None:
    before = first()
    now = then(before, START, Stages(frozenset({"node-c"})))
    assert kept(before, now) == (False, False, True)
    assert now.topology.cordoned == {"node-c"} and now.topology.lost(before.topology) == {"node-c"}


def test_a_session_makes_only_the_peering_again() -> None:
    before = first()
    now = then(before, edited(sessions=START.view.sessions - {("node-c", "tor")}))
    assert kept(before, now) == (True, False, True)
    assert now.peering.up == {"tor": ("node-a", "node-b")}
    assert now.peering.sessions == {("node-a", "tor"): 0.0, ("node-b", "tor"): 0.0}, "they are as old as before"


def test_a_hold_down_of_another_replica_changes_only_what_is_seen_of_the_sessions() -> None:
    peers = frozenset({"tor"})
    before = first()
    assert before.peering.sessions_seen(peers).others is None
    told = plan(START, None, 0.0, POLICY).wire.hold_downs
    now = then(before, edited(hold_downs={"node-b": told}))
    assert kept(before, now) == (True, False, True)
    assert now.peering.sessions_seen(peers).others is not None
    assert now.peering.speakers is before.peering.speakers
    assert before.peering.sessions_seen(peers).others is None


def test_an_edit_of_an_eip_makes_only_the_rules_again_and_keeps_those_of_other_eips() -> None:
    before = first()
    names = sorted(START.eips)
    known = {name: before.rules.recipients(START.eips[name], 4, ()) for name in names}
    before.rules.recipient_sets()
    one = replace(START.eips[names[0]], labels={"a": "b"})
    now = then(before, replace(START, eips={**START.eips, names[0]: one}))
    assert kept(before, now) == (True, True, False) and now.same_rules(before)
    assert now.choices is not before.choices and then(now, now.snapshot).choices is now.choices
    assert now.rules.recipients(one, 4, ()) is not known[names[0]]
    assert all(now.rules.recipients(START.eips[name], 4, ()) is known[name] for name in names[1:])
    assert now.rules.recipient_sets() == before.rules.recipient_sets()


def test_an_edit_of_the_rules_forgets_their_results() -> None:
    before = first()
    name = sorted(START.eips)[0]
    known = before.rules.recipients(START.eips[name], 4, ())
    silent = replace(START.peers["tor"], advertise=(AdvertiseRule(eips=frozenset({"another"})),))
    now = then(before, replace(START, peers={"tor": silent}))
    assert kept(before, now) == (True, False, False) and not now.same_rules(before)
    assert known.names == {"tor"} and now.rules.recipients(START.eips[name], 4, ()).names == frozenset()


def test_labels_of_nodes_choose_again_whom_a_rule_and_an_override_select() -> None:
    """The router of a replica depends on its node's labels."""
    rack = ip_address("10.77.0.250")
    rules = (AdvertiseRule(node_selector=ODD),)
    peer = replace(START.peers["tor"], advertise=rules, overrides=(PeerOverride(node_selector=ODD, address=rack),))
    of = replace(START, peers={"tor": peer})
    before = first(of)
    labelled: dict[str, Node] = {**of.nodes, "node-b": replace(of.nodes["node-b"], labels={"odd": "yes"})}
    now = then(before, replace(of, nodes=labelled))
    assert not now.same_rules(before)
    assert now.rules.selected[ODD] == {"node-b"} and now.peering.routers["tor"]["node-b"] == rack
    assert then(now, now.snapshot).peering.routers is now.peering.routers


def test_a_peer_that_is_administratively_down_may_be_added() -> None:
    """Regression: the plan ended with a KeyError."""
    down = replace(START.peers["tor"], name="down", address=ip_address("10.77.0.9"), admin_down=True)
    of = replace(START, peers={**START.peers, "down": down})
    before = plan(START, None, 0.0, POLICY)
    after = plan(of, before, 1.0, POLICY)
    assert after.vips == before.vips and set(after.bgp.sessions) == {"tor", "down"}
    assert after == plan(of, replace(before, shared=None), 1.0, POLICY)
