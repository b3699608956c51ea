"""When the loop plans: after a change that a plan depends on, and only then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

from porterlb.cluster import Changed, Event, Kind, Replaced
from porterlb.core.desired import DesiredBgp, DesiredWire
from porterlb.core.known import Known
from porterlb.core.observed import BgpReport, WireReport
from porterlb.reconcile import KINDS, Reconciler
from porterlb.settings import Settings

VIP = ip_address("192.0.2.10")
SERVICE: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "1", "resourceVersion": "1", "generation": 1},
    "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    "status": {"loadBalancer": {"ingress": [{"ip": str(VIP)}]}},
}
EIP = {"metadata": {"name": "pool", "uid": "2", "resourceVersion": "1"}, "spec": {"address": "192.0.2.0/24"}}


class Stage:
    """A reconciler between a cluster and speakers that only listen."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.wire: list[DesiredWire] = []
        self.bgp: list[tuple[DesiredBgp, int]] = []
        self.plans: list[Known] = []
        self.told: list[tuple[Known, bool]] = []
        self.loop = Reconciler(
            Settings(node="node-a"),
            SimpleNamespace(watch=self.watch),
            SimpleNamespace(want=lambda wanted, token: self.bgp.append((wanted, token))),
            SimpleNamespace(want=self.wire.append),
            lambda known, seconds: self.plans.append(known),
            lambda known, news: self.told.append((known, news)),
            lambda: None,
            lambda hops: None,
            lambda nodes: None,
        )

    async def watch(self, kinds: object) -> AsyncIterator[Event]:
        for kind in KINDS:
            found = {Kind.SERVICE: (SERVICE,), Kind.EIP: (EIP,)}.get(kind, ())
            yield Replaced(kind, found)
        while True:
            yield await self.events.get()

    async def quiet(self) -> tuple[int, int]:
        """The number of plans, and of messages without a plan, once nothing changes any more."""
        await asyncio.sleep(0.1)
        counts = len(self.plans), len(self.told)
        self.plans.clear()
        self.told, self.last = [], self.told
        return counts


def play(story: Callable[[Stage], Any]) -> None:
    async def main() -> None:
        stage = Stage()
        tasks = [asyncio.create_task(stage.loop.watch()), asyncio.create_task(stage.loop.run())]
        stage.loop.on_named()
        stage.loop.on_wire(WireReport())
        assert (await stage.quiet())[0] >= 1
        await story(stage)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_counters_are_no_reason_for_a_plan() -> None:
    async def story(stage: Stage) -> None:
        stage.loop.on_wire(WireReport(counters={"requests": 1}, asked=frozenset({VIP})))
        assert await stage.quiet() == (0, 1)
        known, news = stage.last[0]
        assert (known.wire.counters, news) == ({"requests": 1}, False)
        stage.loop.on_wire(WireReport(dead=frozenset({"node-b"})))
        assert (await stage.quiet())[0] == 1
        stage.loop.on_wire(WireReport(dead=frozenset({"node-b"}), trouble="no sockets"))
        assert await stage.quiet() == (0, 1)
        known, news = stage.last[0]
        assert (known.wire.trouble, news) == ("no sockets", True)

    play(story)


def test_our_own_status_that_comes_back_is_no_reason_for_a_plan() -> None:
    async def story(stage: Stage) -> None:
        metadata = {**SERVICE["metadata"], "resourceVersion": "2"}
        status = {**SERVICE["status"], "conditions": [{"type": "Serving", "status": "True"}]}
        stage.events.put_nowait(Changed(Kind.SERVICE, {**SERVICE, "metadata": metadata, "status": status}))
        assert await stage.quiet() == (0, 1)
        known, news = stage.last[0]
        service = known.snapshot.services[next(iter(known.snapshot.services))]
        assert news and service.resource_version == "1" and stage.loop.objects.version_of(service) == "2"
        assert stage.loop.objects.version_of(replace(service)) == "1"  # not the current value
        gone = {**SERVICE, "metadata": {**metadata, "resourceVersion": "3"}, "status": {}}
        stage.events.put_nowait(Changed(Kind.SERVICE, gone))
        assert (await stage.quiet())[0] == 1
        edited = {**gone, "metadata": {**metadata, "resourceVersion": "4", "generation": 2}}
        stage.events.put_nowait(Changed(Kind.SERVICE, edited))
        assert (await stage.quiet())[0] == 1

    play(story)


def test_a_list_that_is_as_before_is_no_reason_for_a_plan() -> None:
    async def story(stage: Stage) -> None:
        stage.events.put_nowait(Replaced(Kind.SERVICE, (SERVICE,)))
        assert await stage.quiet() == (0, 1)
        stage.events.put_nowait(Replaced(Kind.SERVICE, ()))
        assert (await stage.quiet())[0] == 1

    play(story)


def test_a_cut_off_replica_without_the_api_plans_by_what_it_knew() -> None:
    """Its plan thus differs from those of the others until it can read the API: see node_return.exempt_nodes."""

    async def story(stage: Stage) -> None:
        for outage, waits in (("no route", False), ("", True)):
            stage.loop.on_outage(outage)
            stage.loop.on_wire(WireReport(dead=frozenset({"node-a", "node-b"})))
            await stage.quiet()
            inputs = stage.loop.inputs
            inputs.returns = replace(inputs.returns, dead=dict.fromkeys(("node-a", "node-b"), -10.0))
            stage.loop.on_wire(WireReport())
            assert (await stage.quiet())[0] >= 1
            assert ("node-a" in inputs.returns.settling) is waits
            assert "node-b" in inputs.returns.settling

    play(story)


def test_what_exabgp_has_applied_is_told_without_a_plan() -> None:
    async def story(stage: Stage) -> None:
        digest, wanted = stage.loop.known.plan.digest, stage.loop.known.applied  # type: ignore[union-attr]
        assert wanted == 0
        stage.loop.on_bgp(BgpReport(applied=stage.loop.token))
        assert await stage.quiet() == (0, 1)
        known, news = stage.last[0]
        assert (known.applied, known.bgp.applied, news) == (digest, stage.loop.token, True)
        assert stage.wire[-1].applied == digest
        assert stage.wire[-1].vips == known.plan.wire.vips

    play(story)


def test_early_routes_of_a_plan_that_fails_are_replaced_by_the_next_plan() -> None:
    async def story(stage: Stage) -> None:
        loop, early = stage.loop, DesiredBgp(listen_port=1790)
        known, sent = loop.known, len(stage.bgp)
        assert known is not None
        planning = loop.begin_plan(1.0)
        cut = planning._replace(steps=iter([None, early]))  # type: ignore[arg-type]  # the plan fails after these steps
        assert loop.step_plan(cut) is None and len(stage.bgp) == sent
        assert loop.step_plan(cut) is None and stage.bgp[sent:] == [(early, loop.token)]
        loop.on_bgp(BgpReport(applied=loop.token))
        assert (await stage.quiet())[0] == 0
        assert stage.last[-1][0].applied == 0, "early routes are not a complete plan"
        while (made := loop.step_plan(planning)) is None:
            pass
        assert made.bgp == known.plan.bgp and made.digest == known.plan.digest
        loop.end_plan(planning, made)
        assert stage.bgp[sent + 1 :] == [(made.bgp, loop.token)] and loop.digests[loop.token] == made.digest
        loop.end_plan(planning, made)
        assert len(stage.bgp) == sent + 2, "nothing is new"

    play(story)
