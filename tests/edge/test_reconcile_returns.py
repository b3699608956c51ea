"""The reconciler and returning nodes: an answer of a kube-proxy counts for one wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from porterlb.core.model import ServiceKey
from porterlb.core.observed import WireReport
from porterlb.core.proxy_wait import NewHop
from porterlb.reconcile import Reconciler
from porterlb.settings import Settings

C = frozenset({"c"})


def reconciler(asked: list[frozenset[str]]) -> Reconciler:
    nothing: Any = None
    return Reconciler(
        Settings(node="a"),
        nothing,
        nothing,
        nothing,
        lambda known, seconds: None,
        lambda known, news: None,
        lambda: None,
        lambda hops: None,
        lambda nodes: asked.append(frozenset(nodes)),
    )


def test_a_kube_proxy_is_asked_anew_at_each_return() -> None:
    asked: list[frozenset[str]] = []
    made = reconciler(asked)

    def seen(now: float, dead: frozenset[str] = frozenset()) -> frozenset[str]:
        made.inputs.wire_report = replace(WireReport(), dead=dead)
        return made.begin_plan(now).snapshot.view.settling

    made.on_proxies(frozenset())  # our own kube-proxy can be asked
    for begun in (100.0, 200.0):
        assert not seen(begun, C)
        assert seen(begun + 10.0) == C and asked[-1] == C
        assert seen(begun + 15.0) == C, "its kube-proxy has not answered"
        made.on_proxies(C)
        assert seen(begun + 16.0) == C
        assert not seen(begun + 16.0 + made.inputs.proxy_policy.delay)
        assert not asked[-1]


def test_a_health_check_that_nobody_waits_for_any_more_is_forgotten() -> None:
    made = reconciler([])
    made.on_delivering(frozenset({NewHop(ServiceKey("default", "web"), "c", 30000)}))
    made.begin_plan(1.0)
    assert not made.inputs.delivering
