"""The leader's actions for dead nodes: what it writes first, what it repeats, and what the next leader reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from porterlb.cluster import Conflict, Denied, Kind, Labels, LeaseRecord, Marked, Unavailable
from porterlb.core.history import What
from porterlb.core.model import Node, Service, ServiceKey
from porterlb.core.node_failure import REASON, Consensus, NotMarked, Rules, Seen
from porterlb.edge.kube import pods
from porterlb.edge.kube.api import Request
from porterlb.edge.kube.errors import Missing
from porterlb.edge.manifests import ManifestsCluster
from porterlb.edge.node_failure import ANNOTATION, RECORD, Look, NodeFailures

RULES = Rules(enabled=True, confirm=0.0, restore_after=0.05)
NODES = {name: Node(name) for name in ("a", "b", "c")}
DEAD = {"c": Consensus(frozenset("ab"), frozenset("ab"))}
ALIVE = {"c": Consensus(frozenset("ab"), heard=True)}
WEB = Service(ServiceKey("shop", "web"), selector=(("app", "web"),))


class FakeCluster:
    """Records its calls, in order. ``trouble``: raised once by each call of that name."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.failed = 0
        self.bounded = True
        self.pause = 0.0
        self.messages: list[str] = []
        self.lease: LeaseRecord | None = None

    def _do(self, what: str, *more: str) -> None:
        if what in self.trouble:
            self.told.append(f"{what} failed")
            raise self.trouble.pop(what)
        self.told.append(" ".join([what, *more]))

    async def read_lease(self, name: str) -> LeaseRecord | None:
        assert name == RECORD
        self._do("read")
        return self.lease

    async def write_lease(self, record: LeaseRecord, *, deadline: float = 1.0) -> LeaseRecord:
        if record.version != (self.lease.version if self.lease else ""):
            raise Conflict("somebody else has written")
        self._do("write", record.annotations[ANNOTATION])
        self.lease = replace(record, version=str(record.renewals))
        return self.lease

    async def mark_endpoints(
        self, node: str, first: Callable[[str, Labels], bool], *, reason: str, message: str, deadline: float
    ) -> Marked:
        assert reason == REASON and 0 < deadline <= 2
        assert first("shop", {"app": "web"}) and not first("shop", {"app": "db"})
        self._do("mark", node)
        try:
            await asyncio.sleep(self.pause)
        except asyncio.CancelledError:
            self.told.append("cut short")
            raise
        failed, self.failed = self.failed, 0
        return Marked(3, failed)

    async def restore_endpoints(self, node: str, *, reason: str, deadline: float) -> Marked:
        self._do("restore", node)
        return Marked(2)

    async def marking_bounded(self, deadline: float) -> bool:
        self._do("bounded?")
        return self.bounded

    async def emit(self, kind: Kind, obj: Any, *, type_: str, reason: str, message: str, reporter: str) -> None:
        self._do("event", type_, reason, obj["metadata"]["name"])
        self.messages.append(message)


class World:
    """One replica. ``verdicts``, ``left``: its current view."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.verdicts, self.left = DEAD, 2.0
        self.cluster = cluster
        self.done: list[tuple[What, str, int]] = []
        self.bounded: list[bool] = []
        self.failures = NodeFailures(
            cluster,  # type: ignore[arg-type]
            "a",
            RULES,
            self.look,
            on_done=lambda what, node, pods: self.done.append((what, node, pods)),
            on_bounded=self.bounded.append,
        )

    def look(self) -> Look:
        return Look(Seen(NODES, self.verdicts, self.left), [WEB])

    async def until(self, there: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not there():
                self.failures.touch()
                await asyncio.sleep(0.005)


def run(scene: Callable[[World], Coroutine[Any, Any, None]], cluster: FakeCluster | None = None) -> FakeCluster:
    async def main() -> FakeCluster:
        world = World(cluster or FakeCluster())
        task = asyncio.create_task(world.failures.run())
        try:
            await scene(world)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return world.cluster

    return asyncio.run(main())


def test_it_is_written_down_before_it_is_done_and_told_once() -> None:
    async def scene(world: World) -> None:
        await world.until(lambda: world.failures.stages == {"c": "marked"})
        assert world.failures.counts == {"nodes_marked": 1, "pods_marked": 3, "failed": 0}
        world.verdicts = ALIVE
        await world.until(lambda: world.failures.stages == {"c": "over"})
        assert world.failures.counts["pods_restored"] == 2 and world.failures.counts["nodes_restored"] == 1

        assert world.done == [(What.PODS_MARKED, "c", 3), (What.PODS_RESTORED, "c", 2)]
        assert "3 of its pods" in world.cluster.messages[0] and "2 of its pods" in world.cluster.messages[1]

    assert [line for line in run(scene).told if not line.startswith("write")] == [
        "read",
        "bounded?",
        "mark c",
        f"event Warning {REASON} c",
        "restore c",
        "event Normal PorterLBNodeBack c",
    ]
    assert run(scene).told[:4] == ["read", "bounded?", 'write {"c": "marking"}', "mark c"]


def test_marking_ends_in_the_middle_when_the_node_shows_that_it_lives() -> None:
    cluster = FakeCluster()
    cluster.pause = 5.0

    async def scene(world: World) -> None:
        await world.until(lambda: "mark c" in cluster.told)
        world.verdicts = ALIVE
        async with asyncio.timeout(1.0):  # sooner than the end of the attempt itself
            await world.until(lambda: "restore c" in cluster.told)
        assert world.done == [(What.PODS_RESTORED, "c", 2)] and "cut short" in cluster.told

    run(scene, cluster)


def test_what_fails_is_tried_again() -> None:
    cluster = FakeCluster()
    cluster.trouble = {"read": Unavailable("x"), "write": Conflict("x"), "mark": Unavailable("x")}
    cluster.failed = 1

    async def scene(world: World) -> None:
        await world.until(lambda: world.failures.stages == {"c": "marked"})
        assert world.done == [(What.PODS_MARKED, "c", 6)], "those of every attempt are counted"

    told = [line for line in run(scene, cluster).told if line != "bounded?"]
    assert told[:4] == ["read failed", "read", "write failed", "read"], "the record is read anew after a conflict"
    assert [line for line in told if line.startswith("mark")] == ["mark failed", "mark c", "mark c"]
    assert cluster.trouble == {}


def test_the_next_leader_goes_on_where_the_first_one_ended() -> None:
    cluster = FakeCluster()
    cluster.lease = LeaseRecord(RECORD, "b", 1.0, annotations={ANNOTATION: json.dumps({"c": "marked"})}, version="7")

    async def scene(world: World) -> None:
        await world.until(lambda: world.failures.stages == {"c": "marked"})
        world.verdicts = ALIVE
        await world.until(lambda: world.failures.stages == {"c": "over"})

    assert [line for line in run(scene, cluster).told if line.startswith(("mark", "restore"))] == ["restore c"]


def test_a_record_that_is_not_ours_is_begun_anew() -> None:
    for text in ("{", "[1]", '{"c": "whatever"}'):
        cluster = FakeCluster()
        cluster.lease = LeaseRecord(RECORD, "b", 1.0, annotations={ANNOTATION: text}, version="7")

        async def scene(world: World) -> None:
            await world.until(lambda: world.failures.stages == {"c": "marked"})

        assert "mark c" in run(scene, cluster).told


def test_without_the_policy_nothing_is_marked_until_it_is_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = FakeCluster()
    cluster.bounded = False

    async def scene(world: World) -> None:
        await world.until(lambda: world.failures.refused == {"c": NotMarked.UNBOUNDED})
        assert world.bounded == [False] and world.failures.stages == {}
        cluster.bounded = True
        world.failures._ask_bounded_at = 0.0
        await world.until(lambda: world.failures.stages == {"c": "marked"})
        assert world.bounded == [False, True]

    with caplog.at_level("INFO"):
        run(scene, cluster)
    told = [record for record in caplog.records if "admission policy" in record.message]
    assert [record.levelname for record in told] == ["WARNING", "INFO"]


def test_whether_the_policy_is_there_cannot_be_asked_now() -> None:
    cluster = FakeCluster()

    async def scene(world: World) -> None:
        await world.until(lambda: world.failures.stages == {"c": "marked"})
        cluster.trouble["bounded?"] = Unavailable("x")
        world.failures._ask_bounded_at = 0.0
        await world.until(lambda: "bounded? failed" in cluster.told)
        world.verdicts = ALIVE
        await world.until(lambda: world.failures.stages == {"c": "over"})

    run(scene, cluster)


def test_who_does_not_lead_says_why_and_does_nothing() -> None:
    async def scene(world: World) -> None:
        world.left = 0.0
        await world.until(lambda: world.failures.refused == {"c": NotMarked.LEASE})
        assert world.failures.stages == {}

    assert run(scene).told == []


def test_a_leader_that_loses_the_lease_forgets_and_reads_again() -> None:
    async def scene(world: World) -> None:
        await world.until(lambda: world.failures.stages == {"c": "marked"})
        world.left = 0.0
        await world.until(lambda: world.failures.stages == {})
        world.left = 2.0
        await world.until(lambda: world.failures.stages == {"c": "marked"})

    told = run(scene).told
    assert told.count("read") == 2 and told.count("mark c") == 1


# -- Kubernetes


def pod(name: str, status: str = "True", reason: str = "", app: str = "db") -> dict[str, Any]:
    condition = {"type": "Ready", "status": status, **({"reason": reason} if reason else {})}
    metadata = {"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": {"app": app}}
    return {"metadata": metadata, "status": {"conditions": [{"type": "Initialized", "status": "True"}, condition]}}


class FakeApi:
    def __init__(self, items: list[dict[str, Any]], errors: dict[str, Exception] | None = None) -> None:
        self.items, self.errors = items, errors or {}
        self.asked: list[Request] = []
        self.under_way = self.most = 0

    async def call(self, request: Request, deadline: float) -> dict[str, Any]:
        self.asked.append(request)
        if request.method == "GET":
            return {"items": self.items}
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        name = request.path.split("/")[-2]
        if name in self.errors:
            raise self.errors[name]
        return {}

    @property
    def patched(self) -> list[str]:
        return [request.path.split("/")[-2] for request in self.asked[1:]]


def first(namespace: str, labels: Labels) -> bool:
    return namespace == "shop" and labels.get("app") == "web"


def test_ready_pods_are_marked_those_behind_load_balancers_first_and_some_at_once() -> None:
    items = [pod(f"db{i}") for i in range(40)] + [pod("web1", app="web"), pod("web2", app="web")]
    items += [pod("down", "False"), {"metadata": {"name": "new", "namespace": "shop", "uid": "x"}}]
    api = FakeApi(items)
    done = asyncio.run(pods.mark(api, "n 1", first, "Why", "Sentence.", 1.0))  # type: ignore[arg-type]
    assert done == Marked(42)
    assert dict(api.asked[0].query) == {"fieldSelector": "spec.nodeName=n 1", "resourceVersion": "0"}
    assert api.patched[:2] == ["web1", "web2"] and len(api.patched) == 42
    assert 2 < api.most <= pods.AT_ONCE
    body: Any = api.asked[1].body
    assert api.asked[1].path == "/api/v1/namespaces/shop/pods/web1/status"
    assert body["metadata"] == {"uid": "uid-web1"}
    (condition,) = body["status"]["conditions"]
    assert {**condition, "lastTransitionTime": ""} == {
        "type": "Ready",
        "status": "False",
        "reason": "Why",
        "message": "Sentence.",
        "lastTransitionTime": "",
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, False),  # the API server accepted it
        (Denied("pods p is forbidden: ValidatingAdmissionPolicy x denied request: PorterLB may change no field"), True),
        (Denied('pods "p" is forbidden: User porterlb cannot patch resource pods/status'), False),
    ],
)
def test_the_api_server_itself_says_whether_the_right_is_bounded(answer: Exception | None, expected: bool) -> None:
    api = FakeApi([pod("p")], {"p": answer} if answer else {})
    assert asyncio.run(pods.bounded(api, 1.0)) is expected  # type: ignore[arg-type]
    assert dict(api.asked[0].query) == {"limit": "1"} and dict(api.asked[1].query) == {"dryRun": "All"}
    assert api.asked[1].body == {
        "metadata": {"uid": "uid-p"},
        "status": {"message": "PorterLB asks whether its right is bounded"},
    }


def test_a_pod_that_is_gone_says_nothing_of_the_policy() -> None:
    for gone in (Conflict("another uid"), Missing("no such pod", named=True)):
        with pytest.raises(Unavailable):
            asyncio.run(pods.bounded(FakeApi([pod("p")], {"p": gone}), 1.0))  # type: ignore[arg-type]
    assert not asyncio.run(pods.bounded(FakeApi([]), 1.0))  # type: ignore[arg-type]


def test_pods_that_are_gone_are_done_and_others_are_counted_as_failed() -> None:
    errors = {"db1": Conflict("another uid"), "db2": Unavailable("no answer")}
    api = FakeApi([pod(f"db{i}") for i in range(4)], errors)
    assert asyncio.run(pods.mark(api, "n", first, "Why", "", 1.0)) == Marked(3, 1)  # type: ignore[arg-type]


def test_only_what_has_our_reason_is_restored() -> None:
    api = FakeApi(
        [pod("ours", "False", "Why"), pod("theirs", "False", "Other"), pod("ready"), pod("odd", "True", "Why")]
    )
    assert asyncio.run(pods.restore(api, "n", "Why", 1.0)) == Marked(1)  # type: ignore[arg-type]
    assert api.patched == ["ours"]
    body = pods.patch(pod("ours"), "True", "", "", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    assert body["status"]["conditions"] == [
        {
            "type": "Ready",
            "status": "True",
            "reason": None,
            "message": None,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
    ]


# -- A directory of manifests


def test_in_a_directory_the_nodes_status_says_it(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("apiVersion: v1\nkind: Node\nmetadata: {name: c}\n")

    async def main() -> None:
        cluster = ManifestsCluster(tmp_path)
        await cluster.mark_endpoints("c", first, reason="Why", message="Sentence.", deadline=2.0)
        node = await cluster.get(Kind.NODE, "c")
        assert node is not None
        wanted = {"type": "EndpointsReady", "status": "False", "reason": "Why", "message": "Sentence."}
        assert node["status"]["conditions"] == [wanted]
        await cluster.restore_endpoints("c", reason="Why", deadline=2.0)
        node = await cluster.get(Kind.NODE, "c")
        assert node is not None and not (node.get("status") or {}).get("conditions")
        await cluster.close()

    asyncio.run(main())
