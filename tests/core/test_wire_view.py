"""The incrementally updated view of the wire equals a newly computed one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.model import Mode
from porterlb.core.observed import FreshReplica
from porterlb.core.plan import Plan, plan
from porterlb.core.status.serving import Acknowledged, WireView
from tests.core.stage import AUTO_VIP, BGP_VIP, POLICY, SHOP, WEB, seen, snapshot, wire_view
from tests.core.test_plan import NAMES

SOME = st.frozensets(st.sampled_from(NAMES))

STEP = st.tuples(
    SOME,  # sessions
    SOME,  # live replicas
    SOME,  # replicas that have acknowledged the plan
    st.frozensets(st.sampled_from([SHOP, WEB])),  # existing Services
    st.sampled_from([None, "", *NAMES]),  # the answerer; None: the next hop itself
    st.integers(0, 1),  # boot number of the other replicas
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=8))
def test_it_is_the_same_as_anew(
    steps: list[tuple[frozenset[str], frozenset[str], frozenset[str], frozenset[object], str | None, int]],
) -> None:
    view, acknowledged, previous = WireView(), Acknowledged(), None
    made: Plan | None = None
    for now, (up, live, acked, there, answerer, boot) in enumerate(steps):
        of = snapshot(up=up & (live | {"node-a"}), fresh=live | {"node-a"})
        of = replace(of, services={key: value for key, value in of.services.items() if key in there})
        made = plan(of, previous, float(now), POLICY)
        saw = seen(made, of, answerer=answerer)
        others = {
            name: FreshReplica(name, boot, said.sessions, applied=made.digest if name in acked else 12345)
            for name, said in saw.wire.fresh.items()
        }
        saw = replace(saw, applied=made.digest if "node-a" in acked else 0, wire=replace(saw.wire, fresh=others))
        acknowledged = acknowledged.updated(saw)
        for address in view.outdated(saw):
            view.look(address, saw, acknowledged)
        assert view.done() == wire_view(saw, acknowledged)
        previous = made


def test_what_is_settled_is_not_looked_at_again() -> None:
    of = snapshot()
    made = plan(of, None, 0.0, POLICY)
    saw = seen(made, of)
    acknowledged = Acknowledged().updated(saw)
    view = WireView()
    for address in view.outdated(saw):
        assert view.look(address, saw, acknowledged)
    assert view.done()[BGP_VIP].mode is Mode.BGP
    assert view.outdated(saw) == []
    moved = replace(of, endpoints={**of.endpoints, SHOP: of.endpoints[SHOP][:1]})
    later = plan(moved, made, 1.0, POLICY)
    assert set(view.outdated(replace(saw, plan=later, applied=later.digest))) <= {AUTO_VIP}
