"""`layer2Spread: hosts` in plans, status and /state: which nodes share the hosts of a VIP, and how that is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from porterlb.core import wire_text
from porterlb.core.desired import Layer2Vip
from porterlb.core.model import Endpoint, Snapshot, TrafficPolicy
from porterlb.core.parse import parse_eip
from porterlb.core.placement.overview import overview
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import plan
from porterlb.core.status.build import eip_status, service_status
from porterlb.core.status.reading import askers_by_node
from porterlb.core.status.state import _vip
from porterlb.core.whatif import Missing, what_if
from tests.core.stage import AUTO_VIP, LAYER2_VIP, POLICY, situation, snapshot
from tests.core.test_parse_eip import good
from tests.core.test_plan import NAMES


def spread(of: Snapshot | None = None, name: str = "segment", **fields: Any) -> Snapshot:
    of = of or snapshot()
    eip = replace(of.eips[name], layer2_spread=True, **fields)
    return replace(of, eips={**of.eips, name: eip})


def wire_vip(of: Snapshot) -> Layer2Vip:
    return plan(of, None, 0.0, POLICY, AT_ONCE).wire.vips[LAYER2_VIP]


def owner(of: Snapshot) -> Any:
    return next(key for key, service in of.services.items() if service.has(LAYER2_VIP))


def with_endpoints(of: Snapshot, *nodes: str, policy: TrafficPolicy) -> Snapshot:
    key = owner(of)
    service = replace(of.services[key], traffic_policy=policy)
    return replace(
        of,
        services={**of.services, key: service},
        endpoints={**of.endpoints, key: tuple(Endpoint(node) for node in nodes)},
    )


def test_all_usable_nodes_share_the_hosts_with_policy_cluster_and_those_with_an_endpoint_with_local() -> None:
    of = spread()
    assert wire_vip(with_endpoints(of, "node-a", policy=TrafficPolicy.CLUSTER)).takers == NAMES
    local = wire_vip(with_endpoints(of, "node-a", "node-c", policy=TrafficPolicy.LOCAL))
    assert local.takers == ("node-a", "node-c") and set(local.candidates) == {"node-a", "node-c"}
    assert wire_vip(snapshot()).takers == ()


def test_a_cordoned_node_keeps_its_hosts_and_a_draining_one_does_not() -> None:
    of = with_endpoints(spread(), *NAMES, policy=TrafficPolicy.CLUSTER)
    cordoned = replace(of, nodes={**of.nodes, "node-b": replace(of.nodes["node-b"], cordoned=True)})
    vip = wire_vip(cordoned)
    assert vip.takers == ("node-a", "node-c") and set(vip.candidates) == set(NAMES)
    draining = replace(of, nodes={**of.nodes, "node-b": replace(of.nodes["node-b"], cordoned=True, draining=True)})
    vip = wire_vip(draining)
    assert vip.takers == ("node-a", "node-c") and set(vip.candidates) == {"node-a", "node-c"}
    everywhere = replace(
        of, nodes={name: replace(node, cordoned=True, draining=True) for name, node in of.nodes.items()}
    )
    assert wire_vip(everywhere).takers == NAMES


def test_it_is_no_unit_of_the_placement_and_the_digest_tells_it() -> None:
    one, two = (plan(of, None, 0.0, POLICY, AT_ONCE) for of in (snapshot(), spread()))
    assert one.digest != two.digest
    assert one.vips[LAYER2_VIP].place and not two.vips[LAYER2_VIP].place
    count = {
        name: sum(share.vips for share in overview(made).shares.values()) for name, made in (("one", one), ("two", two))
    }
    assert count["two"] == count["one"] - sum(vip.eip == "segment" for vip in two.vips.values())
    assert LAYER2_VIP not in two.unrecorded
    again = plan(snapshot(), two, 1.0, POLICY, AT_ONCE)
    assert again.digest == one.digest and again.vips[LAYER2_VIP].place


def test_bgp_alone_is_never_spread_and_auto_is_while_layer_2_answers() -> None:
    of = spread(name="auto")
    made = plan(of, None, 0.0, POLICY, AT_ONCE)
    assert made.vips[AUTO_VIP].takers == NAMES and made.wire.vips[AUTO_VIP].takers == NAMES


def test_the_condition_of_the_eip_counts_the_next_hops_in_use_and_the_service_names_them() -> None:
    of = with_endpoints(spread(), *NAMES, policy=TrafficPolicy.CLUSTER)
    known = situation(of)
    (possible,) = [c for c in eip_status(known, "segment", None)["conditions"] if c["type"] == "Layer2Possible"]
    assert "The hosts on the segment share 3 next hops for each address." in possible["message"]
    (serving,) = [c for c in service_status(known, owner(of), None)["conditions"] if c["type"] == "Serving"]
    assert serving["status"] == "True"
    assert "by Layer 2 with next hops node-a, node-b and node-c, one for each host on the segment" in serving["message"]
    dead = situation(of, wire={"dead": frozenset({"node-c"})})
    served = dead.on_wire[LAYER2_VIP]
    assert "node-c" not in served.next_hops
    old = {"layer2NextHops": {str(LAYER2_VIP): "node-b"}}
    assert str(LAYER2_VIP) not in eip_status(known, "segment", old).get("layer2NextHops", {})
    plain = eip_status(situation(snapshot()), "segment", None)["conditions"]
    assert "share" not in str(plain)


def test_state_and_plan_show_the_nodes_and_the_hosts() -> None:
    of = with_endpoints(spread(), *NAMES, policy=TrafficPolicy.CLUSTER)
    known = situation(of)
    shown = _vip(known.plan.vips[LAYER2_VIP], known.on_wire[LAYER2_VIP], None, {"node-a": 4}, 0.0)
    assert shown["hosts"] == list(NAMES) and shown["askers"] == {"node-a": 4} and shown["layer2"] == ""
    planned = next(
        vip for vip in what_if(of, Missing(nodes=frozenset({"node-b"})), POLICY).vips if vip.address == LAYER2_VIP
    )
    assert planned.before is not None and planned.before.next_hops == NAMES
    assert planned.after is not None and planned.after.next_hops == ("node-a", "node-c")
    assert askers_by_node([{"b": 1, "a": 2}, {"b": 3}]) == {"a": 2, "b": 4}


def test_the_wire_process_is_told_the_takers_and_reports_the_hosts() -> None:
    vip = Layer2Vip(LAYER2_VIP, ("b", "a"), takers=("a", "b"))
    assert b'"set":[["%s",["b","a"],"","",["a","b"]]]' % str(LAYER2_VIP).encode() in wire_text.vips_line([vip], [])
    line = wire_text.report_line({"askers": {LAYER2_VIP: {"a": 3}}})
    assert wire_text.read_report(json.loads(line)) == {"askers": {LAYER2_VIP: {"a": 3}}}


def test_another_word_than_hosts_is_refused_with_a_sentence() -> None:
    parsed = parse_eip({"metadata": {"name": "x"}, "spec": {"address": "10.0.0.1", "layer2Spread": "all"}})
    assert any("is not one of none, hosts" in problem.message for problem in parsed.problems)
    assert good({"address": "10.0.0.1", "layer2Spread": "hosts"}).layer2_spread
