"""Statuses that are not listed as outdated are unchanged; objects known to be unchanged at no cost are skipped."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.known import Known
from porterlb.core.node_failure import Marking
from porterlb.core.observed import FreshReplica
from porterlb.core.plan import Plan, plan
from porterlb.core.status import outdated
from porterlb.core.status.build import eip_status, service_status
from porterlb.core.status.serving import Acknowledged, WireView
from tests.core.stage import NOW, POLICY, SHOP, WEB, seen, snapshot
from tests.core.test_plan import NAMES

SOME = st.frozensets(st.sampled_from(NAMES))
STEP = st.fixed_dictionaries(
    {
        "up": SOME,
        "live": SOME,
        "acked": SOME,
        "there": st.frozensets(st.sampled_from([SHOP, WEB])),
        "answerer": st.sampled_from([None, "", *NAMES]),
        "dead": st.sampled_from([(), ("node-b",)]),
        "marking": st.sampled_from([Marking.ON, Marking.OFF]),
        "rewriter": st.sampled_from(["", "other"]),
        "endpoints": st.integers(0, 3),
    }
)


def knowns(steps: list[dict[str, Any]]) -> list[Known]:
    """The knowledge after each step."""
    view, acknowledged, made, found = WireView(), Acknowledged(), Plan(), []
    for now, step in enumerate(steps):
        up, live, acked, there = (frozenset(step[name]) for name in ("up", "live", "acked", "there"))
        live -= set(step["dead"])
        of = snapshot(up=up & (live | {"node-a"}), fresh=live | {"node-a"}, dead=frozenset(step["dead"]))
        ends = {**of.endpoints, SHOP: of.endpoints[SHOP][: step["endpoints"]]}
        of = replace(of, services={key: value for key, value in of.services.items() if key in there}, endpoints=ends)
        made = plan(of, made if now else None, float(now), POLICY)
        saw = seen(made, of, answerer=step["answerer"])
        others = {
            name: FreshReplica(name, 1, said.sessions, applied=made.digest if name in acked else 12345)
            for name, said in saw.wire.fresh.items()
        }
        rewriters = {WEB: str(step["rewriter"])} if step["rewriter"] else {}
        saw = replace(saw, wire=replace(saw.wire, fresh=others), marking=step["marking"], rewriters=rewriters, now=NOW)
        acknowledged = acknowledged.updated(saw)
        for address in view.outdated(saw):
            view.look(address, saw, acknowledged)
        found.append(replace(saw, on_wire=view.done()))
    return found


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, min_size=2, max_size=6))
def test_what_is_left_out_says_what_it_said(steps: list[dict[str, object]]) -> None:
    story = knowns(steps)
    for before, after in pairwise(story):
        keys, names = outdated.services(before, after), outdated.eips(before, after)
        for key in set(after.snapshot.services) - (set(after.snapshot.services) if keys is None else keys):
            assert service_status(before, key, None) == service_status(after, key, None)
        for name in set(after.snapshot.eips) - (set(after.snapshot.eips) if names is None else names):
            assert eip_status(before, name, None) == eip_status(after, name, None)


def test_one_service_is_looked_at_where_one_has_changed() -> None:
    of = snapshot()
    made = plan(of, None, 0.0, POLICY)
    before = seen(made, of)
    assert outdated.services(None, before) is outdated.eips(None, before) is None
    same = plan(of, made, 1.0, POLICY)
    assert outdated.services(before, seen(same, of)) == set() == outdated.eips(before, seen(same, of))
    moved = replace(of, endpoints={**of.endpoints, SHOP: of.endpoints[SHOP][:1]})
    after = seen(plan(moved, made, 1.0, POLICY), moved)
    assert outdated.services(before, after) == {SHOP}
    assert outdated.services(before, replace(before, losses={"tor": {"node-a": "x"}})) is None
    assert outdated.services(before, replace(before, rewriters={WEB: "x"})) == {WEB}
