"""The writer: only changes, only while we lead, again after an outage, and never over the changes of others."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import pytest

from porterlb.cluster import Conflict, Denied, Kind, Obj, Unavailable
from porterlb.core.known import Known
from porterlb.core.model import Address, Endpoint
from porterlb.core.node_failure import Marking
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import Plan, plan
from porterlb.edge.status import StatusWriter, writer
from porterlb.edge.status.writer import PASSES_AT_ONCE
from tests.core.stage import LAYER2_VIP, NOW, POLICY, SHOP, WEB, seen, snapshot
from tests.core.test_plan import NAMES

Sent = tuple[str, str, str]
"""Kind, name, owner."""


QUIET = 10
"""Turns of the event loop (2 ms each) without a write after which all writes are done."""

REFUSED = 250
"""The same if a write is refused: the writer waits 0.1 s to see whether the object is gone."""


@dataclass
class Recorder:
    """A cluster that records its calls, and has a version for every object. ``trouble``: raised by writes."""

    objects: Objects
    echo: bool = True  # whether the watch delivers the written objects
    untold: dict[ObjectKey, Obj] = field(default_factory=dict)  # objects that the watch has not delivered
    asked: int = 0  # number of attempted writes
    attempts: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # by kind, name and owner
    sent: list[Sent] = field(default_factory=list)
    statuses: list[Mapping[str, Any]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    trouble: Exception | None = None
    at_once: int = 0
    most_at_once: int = 0
    delay: float = 0.0
    prune: tuple[str, ...] = ()
    namespace: str = "porterlb-system"

    async def apply_status(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        status: Mapping[str, Any],
        *,
        owner: str,
        version: str = "",
        deadline: float = 2.0,
    ) -> Obj:
        self.asked += 1
        self.attempts[(kind.kind, name, owner)] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self.delay)
        self.at_once -= 1
        if self.trouble:
            raise self.trouble
        key = ObjectKey(kind.kind, namespace, name)
        old = self.untold.get(key) or self.objects.raw(*key)
        assert old is not None
        if version and version != old["metadata"]["resourceVersion"]:
            raise Conflict(name)
        new = copy.deepcopy(dict(old))
        new["metadata"]["resourceVersion"] = str(int(new["metadata"]["resourceVersion"]) + 1)
        has = new.setdefault("status", {})
        said = {key: value for key, value in copy.deepcopy(dict(status)).items() if key not in self.prune}
        if "nodesPeerStatus" in said:
            said["nodesPeerStatus"] = has.get("nodesPeerStatus", {}) | said["nodesPeerStatus"]
        has.update(said)
        if not status:
            node = owner.removeprefix("porterlb-")
            has.get("nodesPeerStatus", {}).pop(node, None)
            if owner == "porterlb":
                has.clear()
        self.sent.append((kind.kind, name, owner))
        self.statuses.append(status)
        self.deadlines.append(deadline)
        if self.echo:
            self.objects.change(kind.kind, new)
        else:
            self.untold[key] = new
        return new

    async def apply(self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], *, owner: str) -> Obj:
        raise AssertionError(f"only status is written, not {kind} {namespace}/{name}: {body}")

    async def emit(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        self.events.append((obj["metadata"]["name"], reason))


def raw(kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "resourceVersion": "1", "uid": name, "generation": 1}
    if namespace:
        metadata["namespace"] = namespace
    return {"metadata": metadata, **more}


@dataclass
class Stage:
    """A writer over a recorder; all its inputs are plain fields."""

    node: str = "node-a"
    leads: bool = True
    left: float = 2.5
    clock: float = 0.0
    now: str = NOW
    concurrency: int = 16
    interval: float = 1e-6
    passes: int = 0
    objects: Objects = field(default_factory=lambda: Objects(True))

    def __post_init__(self) -> None:
        of = snapshot()
        ports = [{"port": 80}]
        for key, service in of.services.items():
            spec = {"type": "LoadBalancer", "ports": ports}
            ingress = [{"ip": str(address), "ipMode": "VIP"} for address in service.held]
            status = {"loadBalancer": {"ingress": ingress}}
            self.objects.change("Service", raw("Service", key.name, key.namespace, spec=spec, status=status))
        for name, eip in of.eips.items():
            self.objects.change(
                "Eip", raw("Eip", name, spec={"address": f"{eip.ranges[0].first}-{eip.ranges[0].last}"})
            )
        conf = {"neighborAddress": "10.77.0.1", "peerAs": 64500}
        self.objects.change("BgpPeer", raw("BgpPeer", "tor", spec={"conf": conf}))
        self.objects.change("BgpConf", raw("BgpConf", "default", spec={"as": 64512}))
        self.cluster = Recorder(self.objects)
        self.writer = StatusWriter(
            self.cluster,  # type: ignore[arg-type]
            self.objects,
            self.node,
            leading=lambda: self.leads,
            time_left=lambda: self.left,
            now=lambda: self.now,
            clock=lambda: self.clock,
            on_known=self.passed,
            interval=self.interval,
            concurrency=self.concurrency,
        )

    def passed(self, known: Known, touched: Set[Address]) -> None:
        self.passes += 1

    def tell(self, previous: Plan | None = None, **more: Any) -> Plan:
        """Known values without faults, with the cluster's Services. ``more``: for snapshot()."""
        of = snapshot(self.node, leader=self.node if self.leads else "node-z", **more)
        of = replace(of, services=self.objects.services)
        made = plan(of, previous, self.clock, POLICY, AT_ONCE)
        self.writer.update(seen(made, of, problems=self.objects.problems, generations=self.objects.generations))
        return made

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.writer.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def settle(self, *, until: Callable[[], bool] | None = None, turns: int = QUIET) -> None:
        """Waits until a condition holds, or until nothing is sent in ``turns`` turns of 2 ms; fails after 5 s."""
        async with asyncio.timeout(30.0):
            while until is not None and not until():  # noqa: ASYNC110
                await asyncio.sleep(0.002)
            if until is not None:
                await asyncio.sleep(0.01)
                return
            quiet, asked = 0, -1
            while quiet < turns:
                quiet = quiet + 1 if (asked, self.cluster.at_once) == (self.cluster.asked, 0) else 0
                asked = self.cluster.asked
                await asyncio.sleep(0.002)

    def names(self, kind: str) -> list[str]:
        return sorted(name for sent_kind, name, _ in self.cluster.sent if sent_kind == kind)


def run(stage: Stage, steps: Callable[[], Any]) -> None:
    async def main() -> None:
        async with stage.running():
            await steps()

    asyncio.run(main())


def test_the_leader_writes_everything_once() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        assert stage.names("Service") == ["mail", "shop", "web"]
        assert stage.names("Eip") == ["auto", "routed", "segment"]
        assert sorted(owner for kind, _, owner in stage.cluster.sent if kind == "BgpPeer") == [
            "porterlb",
            "porterlb-node-a",
        ]
        assert stage.names("BgpConf") == ["default"]
        assert ("web", "AddressAssigned") in stage.cluster.events
        assert ("tor", "SessionEstablished") in stage.cluster.events
        sent, events = len(stage.cluster.sent), len(stage.cluster.events)
        for _ in range(3):
            stage.now = "2030-01-01T00:00:00Z"
            stage.tell()
            await stage.settle()
        assert (len(stage.cluster.sent), len(stage.cluster.events)) == (sent, events)

    run(stage, steps)


def test_passes_wait_for_one_another_only_in_a_burst() -> None:
    """A user waits for the address of one new Service: its write must not wait for the interval of bursts."""
    stage = Stage(interval=3600.0)

    async def steps() -> None:
        for number in range(1, PASSES_AT_ONCE + 1):
            stage.tell()
            await stage.settle(until=lambda number=number: stage.passes == number)
        stage.tell()
        await stage.settle()
        assert stage.passes == PASSES_AT_ONCE

    run(stage, steps)


def test_a_long_pass_lets_other_tasks_run() -> None:
    """ExaBGP's acknowledgements, for which the next routes wait, are read by the same event loop."""
    stage = Stage()
    turns: list[int] = []

    def slow(known: Known, key: ObjectKey, *arguments: object, **more: object) -> None:
        stage.clock += 0.01
        asyncio.get_running_loop().call_soon(turns.append, len(turns))
        seen_turns.append(len(turns))

    seen_turns: list[int] = []

    async def steps() -> None:
        stage.tell()
        await stage.settle(until=lambda: stage.passes == 1 and len(seen_turns) >= 3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "service_write", slow)
        run(stage, steps)
    assert seen_turns[:3] == [0, 1, 2]


def test_a_watch_that_is_one_write_behind_tells_no_story_twice() -> None:
    stage = Stage()
    stage.cluster.echo = False

    async def steps() -> None:
        made = stage.tell()
        await stage.settle()
        first = dict(stage.cluster.untold)
        stage.tell(made, up=())
        await stage.settle()
        told = list(stage.cluster.events)
        assert told.count(("auto", "ModeChanged")) == 1
        for key, obj in first.items():  # the state before the second write; a Service waits for its own update
            if key.kind != "Service":
                stage.objects.change(key.kind, obj)
        stage.now = "2026-01-31T12:00:01Z"
        stage.tell(made, up=())
        await stage.settle()
        assert stage.cluster.events == told

    run(stage, steps)


def test_the_watch_may_be_late() -> None:
    """The object that a write returned counts until the watch delivers it: nothing is written twice until then."""
    stage = Stage()
    stage.cluster.echo = False

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        sent = len(stage.cluster.sent)
        stage.tell()
        await stage.settle()
        assert len(stage.cluster.sent) == sent

    run(stage, steps)


def test_a_follower_writes_its_own_sessions_only() -> None:
    stage = Stage(leads=False)

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        assert stage.cluster.sent == [("BgpPeer", "tor", "porterlb-node-a")]
        assert set(stage.cluster.statuses[0]) == {"nodesPeerStatus"}

    run(stage, steps)


def test_leadership_lost_on_the_way_stops_the_writes() -> None:
    stage = Stage(concurrency=2)
    stage.cluster.delay = 0.05

    async def steps() -> None:
        stage.tell()
        await stage.settle(until=lambda: stage.cluster.at_once > 0)
        stage.leads = False
        await stage.settle()
        leader_writes = [sent for sent in stage.cluster.sent if sent[2] == "porterlb"]
        assert 0 < len(leader_writes) <= 2, "only what was under way"

    run(stage, steps)


@pytest.mark.parametrize(("left", "writes"), [(0.0, False), (0.04, False), (0.5, True)])
def test_a_write_ends_within_the_lease(left: float, writes: bool) -> None:
    stage = Stage(left=left)

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        leader_deadlines = [
            deadline
            for deadline, (_, _, owner) in zip(stage.cluster.deadlines, stage.cluster.sent, strict=True)
            if owner == "porterlb"
        ]
        assert bool(leader_deadlines) is writes
        assert all(deadline <= left for deadline in leader_deadlines)

    run(stage, steps)


def test_a_conflict_waits_for_the_next_plan() -> None:
    stage = Stage()

    async def steps() -> None:
        of = snapshot(leader="node-a")
        stale = {key: replace(service, resource_version="0") for key, service in stage.objects.services.items()}
        of = replace(of, services=stale)
        made = plan(of, None, 0.0, POLICY)
        stage.writer.update(seen(made, of, generations=stage.objects.generations))
        await stage.settle()
        assert stage.names("Service") == []
        before = len(stage.cluster.sent)
        stage.writer.update(seen(made, of, generations=stage.objects.generations))
        await stage.settle()
        assert len(stage.cluster.sent) == before
        stage.tell()
        await stage.settle()
        assert stage.names("Service") == ["mail", "shop", "web"]

    run(stage, steps)


def test_after_an_outage_everything_is_written() -> None:
    stage = Stage()
    stage.cluster.trouble = Unavailable("The API server does not answer.")

    async def steps() -> None:
        stage.tell()
        await asyncio.sleep(0.1)
        assert not stage.cluster.sent
        stage.cluster.trouble = None
        await stage.settle(turns=REFUSED)  # a failed write waits before the next attempt
        assert stage.names("Service") == ["mail", "shop", "web"]
        assert stage.names("Eip") == ["auto", "routed", "segment"]

    run(stage, steps)


def test_what_is_refused_is_not_tried_for_ever() -> None:
    stage = Stage()
    stage.cluster.trouble = Denied("no right")
    tried = 0

    async def steps() -> None:
        nonlocal tried
        for _ in range(3):
            stage.tell()
            await stage.settle(turns=REFUSED)
        stage.cluster.trouble = None
        stage.tell()
        await stage.settle()
        assert not stage.cluster.sent
        stage.clock = 1.1
        stage.tell()
        await stage.settle()
        assert stage.names("Eip") == ["auto", "routed", "segment"]

    run(stage, steps)


def test_a_refusal_for_an_object_that_is_being_deleted_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()
    stage.cluster.trouble = Denied('Service "web" is invalid: spec.ports: Required value')

    async def steps() -> None:
        stage.tell()
        await asyncio.sleep(0.05)
        for kind in ("Service", "Eip", "BgpPeer", "BgpConf"):
            for key in list(stage.objects.all_raw(kind)):
                stage.objects.delete(*key)
        await stage.settle()
        assert stage.cluster.asked and not caplog.records

    run(stage, steps)


def test_what_is_refused_again_and_again_is_tried_ever_less() -> None:
    stage = Stage()
    stage.cluster.trouble = Denied("no right")
    tried: list[float] = []

    async def steps() -> None:
        asked = stage.cluster.asked
        for second in (0, 0.5, 1, 2, 3, 4, 8, 20, 23, 60, 83, 120, 143):
            stage.clock, stage.now = float(second), f"2026-01-01T00:{int(second) // 60:02}:{int(second) % 60:02}Z"
            stage.tell()
            await stage.settle(turns=REFUSED)
            if stage.cluster.asked != asked:
                tried.append(second)
                asked = stage.cluster.asked

    run(stage, steps)
    assert tried == [0, 1, 3, 8, 23, 83, 143]


def test_a_plan_made_while_a_write_is_being_refused_does_not_send_it_again() -> None:
    stage = Stage()
    stage.cluster.trouble = Denied("no right")

    async def steps() -> None:
        stage.tell()
        await stage.settle(until=lambda: stage.cluster.asked > 0)
        stage.tell()
        await stage.settle(turns=REFUSED)

    run(stage, steps)
    assert set(stage.cluster.attempts.values()) == {1}


def test_a_field_that_the_cluster_drops_does_not_make_a_loop() -> None:
    stage = Stage()
    stage.cluster.prune = ("mode",)

    async def steps() -> None:
        for _ in range(4):
            stage.tell()
            await stage.settle()
        assert stage.names("Eip") == ["auto", "routed", "segment"]

    run(stage, steps)


def test_the_default_of_ip_mode_does_not_make_a_loop() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        before = len(stage.cluster.sent)
        for key in (SHOP, WEB):
            obj = copy.deepcopy(dict(stage.objects.raw("Service", *key) or {}))
            obj["metadata"]["resourceVersion"] = "77"
            for entry in obj["status"]["loadBalancer"]["ingress"]:
                del entry["ipMode"]
            stage.objects.change("Service", obj)
        stage.tell()
        await stage.settle()
        assert len(stage.cluster.sent) == before

    run(stage, steps)


def test_writes_run_side_by_side_but_not_without_bound() -> None:
    stage = Stage()
    stage.cluster.delay = 0.002
    for number in range(200):
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
        obj = raw("Service", f"many-{number}", "default", spec=spec)
        stage.objects.change("Service", obj)

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        assert len(stage.names("Service")) == 203
        assert 8 < stage.cluster.most_at_once <= 16

    run(stage, steps)


def test_an_address_that_is_being_probed_is_not_written() -> None:
    stage = Stage()
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    stage.objects.change("Service", raw("Service", "new", "default", spec=spec))

    async def steps() -> None:
        of = replace(snapshot(leader="node-a"), services=stage.objects.services)
        made = plan(of, None, 0.0, POLICY)
        key = next(key for key in of.services if key.name == "new")
        free = frozenset(made.unwritten[key])
        stage.writer.update(seen(made, of, generations=stage.objects.generations, unchecked=free))
        await stage.settle()
        new = stage.objects.raw("Service", "default", "new")
        assert new is not None and "loadBalancer" not in new["status"]
        stage.tell()
        await stage.settle()
        new = stage.objects.raw("Service", "default", "new")
        assert new is not None and new["status"]["loadBalancer"]["ingress"]

    run(stage, steps)


def test_a_service_that_is_no_longer_ours_is_let_go() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        before = len(stage.cluster.sent)
        obj = copy.deepcopy(dict(stage.objects.raw("Service", *WEB) or {}))
        obj["metadata"]["resourceVersion"] = "50"
        obj["spec"]["loadBalancerClass"] = "somebody/else"
        stage.objects.change("Service", obj)
        stage.tell()
        await stage.settle()
        assert stage.cluster.statuses[stage.cluster.sent.index(("Service", "web", "porterlb"), before)] == {}
        left = stage.objects.raw("Service", *WEB)
        assert left is not None and not left["status"]
        sent = len(stage.cluster.sent)
        stage.tell()
        await stage.settle()
        assert len(stage.cluster.sent) == sent or stage.cluster.sent[-1][0] != "Service"

    run(stage, steps)


def test_the_sessions_of_a_vanished_node_are_removed_by_the_leader() -> None:
    stage = Stage()
    obj = copy.deepcopy(dict(stage.objects.raw("BgpPeer", "", "tor") or {}))
    up = {"peerState": {"sessionState": "ESTABLISHED"}}
    obj["status"] = {"nodesPeerStatus": {"node-gone": up, "node-b": up}}
    obj["metadata"]["resourceVersion"] = "9"
    stage.objects.change("BgpPeer", obj)

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        peer = stage.objects.raw("BgpPeer", "", "tor")
        assert peer is not None and set(peer["status"]["nodesPeerStatus"]) == {"node-a", "node-b"}
        # node-b falls silent: its entry stays for a while; after that it is no longer valid.
        stage.tell(fresh=frozenset({"node-a", "node-c"}))
        await stage.settle()
        assert ("BgpPeer", "tor", "porterlb-node-b") not in stage.cluster.sent
        stage.clock = 11.0
        stage.tell(fresh=frozenset({"node-a", "node-c"}))
        await stage.settle()
        peer = stage.objects.raw("BgpPeer", "", "tor")
        assert peer is not None and set(peer["status"]["nodesPeerStatus"]) == {"node-a"}

    run(stage, steps)


def test_g8_the_layer2_next_hops_are_noted_in_the_eips() -> None:
    """Not in an annotation of the Service: that would need the right to change every Service."""
    stage = Stage()

    async def steps() -> None:
        made = stage.tell()
        await stage.settle()
        noted: dict[str, str] = {}
        for key in stage.objects.all_raw("Eip"):
            noted |= (stage.objects.raw(*key) or {}).get("status", {}).get("layer2NextHops", {})
        assert made.memory.placement is not None
        decided = made.memory.placement.decided
        answered = {str(a): decided[vip.services[0]] for a, vip in made.vips.items() if vip.mode.answer}
        assert answered and noted == answered

    run(stage, steps)


def test_a_deleted_object_is_not_written_to() -> None:
    stage = Stage()

    async def steps() -> None:
        made = stage.tell()
        stage.objects.delete("Service", *WEB)
        await stage.settle()
        assert "web" not in stage.names("Service")
        assert made.services

    run(stage, steps)


def test_problems_reach_the_object_that_has_them() -> None:
    stage = Stage()
    stage.objects.change("Eip", raw("Eip", "bad", spec={"address": "10.0.0.300"}))

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        obj = stage.objects.raw("Eip", "", "bad")
        assert obj is not None
        ready = obj["status"]["conditions"][0]
        assert (ready["status"], "10.0.0.300" in ready["message"]) == ("False", True)
        assert ("bad", "InvalidAddress") in stage.cluster.events
        assert ObjectKey("Eip", "", "bad") in stage.objects.problems

    run(stage, steps)


def test_what_a_nodes_death_costs_is_written_when_it_changes() -> None:
    stage = Stage()
    endpoints = {SHOP: (Endpoint("node-a"), Endpoint("node-b"))}
    start = snapshot(stage.node, leader=stage.node)
    start = replace(start, services=stage.objects.services, endpoints={**start.endpoints, **endpoints})
    made = plan(start, None, 0.0, POLICY)

    def message() -> str:
        obj = stage.objects.raw("Service", *SHOP)
        assert obj is not None
        return str(next(c["message"] for c in obj["status"]["conditions"] if c["type"] == "Serving"))

    async def steps() -> None:
        async def tell(marking: Marking) -> None:
            stage.clock += 30.0  # changes of wording alone wait for a pause
            of = snapshot(stage.node, leader=stage.node)
            of = replace(of, services=stage.objects.services, endpoints={**of.endpoints, **endpoints})
            known = seen(made, of, problems=stage.objects.problems, generations=stage.objects.generations)
            stage.writer.update(replace(known, marking=marking))
            await stage.settle()

        for before, marking in pairwise((Marking.ON, Marking.UNBOUNDED, Marking.OFF, Marking.ON)):
            await tell(before)
            await tell(before)  # nothing has changed since
            await tell(marking)
            assert ("When a node dies" in message()) is (marking is not Marking.ON)
            assert marking.value in message()

    run(stage, steps)


def test_an_object_that_cannot_be_worked_out_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """The API server would reject this status; it represents a fault of ours."""
    stage = Stage()
    obj = copy.deepcopy(dict(stage.objects.raw("Service", *WEB) or {}))
    obj["metadata"]["resourceVersion"] = "2"
    obj["status"] = {"loadBalancer": "odd"}
    stage.objects.change("Service", obj)

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        assert stage.names("Service") == ["mail", "shop"]
        assert stage.names("Eip") == ["auto", "routed", "segment"]
        assert ("BgpPeer", "tor", "porterlb-node-a") in stage.cluster.sent

    run(stage, steps)
    assert "The status of one object cannot be computed." in caplog.text


def test_what_only_counts_is_written_once_a_second() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        written = len(stage.names("Eip"))
        for number in range(5):
            eip = copy.deepcopy(dict(stage.objects.raw("Eip", "", "routed") or {}))
            eip["status"]["usage"] = 90 + number  # as if that number of Services had come and gone
            eip["metadata"]["resourceVersion"] = str(100 + number)
            stage.objects.change("Eip", eip)
            stage.tell()
            await stage.settle()
        assert len(stage.names("Eip")) == written
        stage.clock = 1.1
        stage.tell()
        await stage.settle()
        assert len(stage.names("Eip")) == written + 1

    run(stage, steps)


def changed(stage: Stage, name: str, version: int, **status: Any) -> None:
    """The cluster receives another status of a Service."""
    obj = copy.deepcopy(dict(stage.objects.raw("Service", "default", name) or {}))
    obj["status"].update(status)
    obj["metadata"]["resourceVersion"] = str(version)
    stage.objects.change("Service", obj)


def test_the_first_moments_of_a_service_are_told_in_one_write() -> None:
    """The announcers of a VIP change several times until all replicas serve it: the address at once, the rest later."""
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        written = len(stage.names("Service"))
        for number in range(5):
            changed(stage, SHOP.name, 1000 + 10 * number, conditions=[])
            stage.clock += 0.05
            stage.tell()
            await stage.settle()
        assert len(stage.names("Service")) == written
        stage.clock = 0.6
        stage.tell()
        await stage.settle()
        assert stage.names("Service").count(SHOP.name) == 2

    run(stage, steps)


def test_while_addresses_are_given_out_what_becomes_of_them_waits_but_not_for_ever() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        changed(stage, SHOP.name, 500, loadBalancer={})
        stage.tell()
        await stage.settle()
        shops = stage.names("Service").count(SHOP.name)
        for number in range(60):
            stage.clock += 0.1
            changed(stage, WEB.name, 1000 + 10 * number, loadBalancer={})
            made_anew = copy.deepcopy(dict(stage.objects.raw("Service", "default", WEB.name) or {}))
            made_anew["metadata"] |= {"uid": f"web-{number}", "resourceVersion": str(1001 + 10 * number)}
            stage.objects.change("Service", made_anew)  # its address must be written again
            changed(stage, SHOP.name, 1000 + 10 * number, conditions=[])
            stage.tell()
            await stage.settle()
            if stage.clock < 4.9:
                assert stage.names("Service").count(SHOP.name) == shops
        assert stage.names("Service").count(WEB.name) > 50
        assert stage.names("Service").count(SHOP.name) > shops

    run(stage, steps)


def test_after_the_last_address_the_rest_waits_for_a_lull_only() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.clock = 1.6
        for name in (SHOP.name, WEB.name):
            stage.clock += 0.2
            changed(stage, name, 500, loadBalancer={})
            stage.tell()
            await stage.settle()
        shops = stage.names("Service").count(SHOP.name)
        for clock, more in ((2.4, 0), (2.6, 1)):  # the address of WEB was written at 2.0
            stage.clock = clock
            changed(stage, SHOP.name, int(clock * 1000), conditions=[])
            stage.tell()
            await stage.settle()
            assert stage.names("Service").count(SHOP.name) == shops + more

    run(stage, steps)


def test_bad_news_waits_for_nothing() -> None:
    stage = Stage()

    async def steps() -> None:
        made = stage.tell()
        await stage.settle()
        stage.tell(made, dead=frozenset(NAMES))  # no node remains to send it to, at the same moment
        await stage.settle()
        assert {(WEB.name, "NotServing"), (SHOP.name, "NotServing")} <= set(stage.cluster.events)

    run(stage, steps)


def test_an_object_that_is_made_anew_is_written_to_although_its_versions_are_those_of_the_old_one() -> None:
    """Versions in a directory of manifests are small numbers: those of the old object say nothing about the new one."""
    stage = Stage(leads=False)

    async def steps() -> None:
        old = copy.deepcopy(dict(stage.objects.raw("BgpPeer", "", "tor") or {}))
        stage.tell()
        await stage.settle()
        assert stage.names("BgpPeer") == ["tor"]
        stage.objects.delete("BgpPeer", "", "tor")
        stage.tell()
        await stage.settle()
        stage.objects.change("BgpPeer", old | {"metadata": old["metadata"] | {"uid": "anew"}})
        stage.tell()
        await stage.settle()
        assert stage.names("BgpPeer") == ["tor", "tor"]

    run(stage, steps)


def test_g5_a_foreign_writer_is_answered_less_and_less_often_and_named() -> None:
    stage = Stage()

    async def steps() -> None:
        stage.tell()
        await stage.settle()
        before = stage.names("Service").count("mail")
        for _ in range(50):
            stage.clock += 0.2
            theirs = copy.deepcopy(dict(stage.objects.raw("Service", "default", "mail") or {}))
            theirs["metadata"]["resourceVersion"] = str(int(theirs["metadata"]["resourceVersion"]) + 1)
            theirs["metadata"]["managedFields"] = [{"manager": "servicelb"}]
            theirs["status"]["loadBalancer"] = {"ingress": [{"ip": "192.0.2.1"}]}
            stage.objects.change("Service", theirs)
            made = stage.tell()
            assert LAYER2_VIP in made.wire.vips, "what we gave out stays served"
            await stage.settle(turns=3)
        assert 3 <= stage.names("Service").count("mail") - before <= 6, "in 10 s: at once, then after 1, 2, 4 s"
        told = stage.cluster.statuses[-1]["conditions"][0]["message"]
        assert "servicelb writes status.loadBalancer of this Service too" in told

    run(stage, steps)
