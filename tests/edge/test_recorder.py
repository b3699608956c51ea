"""The recorder: one log line and one count per entry, Events from one replica only, and harmless failures."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from porterlb.cluster import Kind, Obj
from porterlb.core.history import Entry, What
from porterlb.core.history import history as module
from porterlb.core.history.events import HOLD
from porterlb.core.known import Known
from porterlb.core.objects import Objects
from porterlb.edge.manifests import ManifestsCluster
from porterlb.edge.metrics import Metrics
from porterlb.edge.recorder import Recorder
from porterlb.edge.state_sharer import StateSharer
from tests.core.stage import LATER, situation, snapshot
from tests.core.test_plan import NAMES


class Teller:
    """A cluster that records Events."""

    namespace = "porterlb-system"

    def __init__(self) -> None:
        self.events: list[tuple[str, str, str]] = []

    async def emit(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        self.events.append((f"{kind.kind} {obj['metadata']['name']}", reason, message))


def known(node: str = "node-a", dead: str = "") -> Known:
    live = tuple(name for name in NAMES if name != dead)
    return situation(snapshot(node, up=live, fresh=frozenset(live), dead=frozenset({dead} - {""})), now=LATER)


def record(node: str, *steps: Callable[[Recorder], None]) -> tuple[Teller, Metrics, Recorder]:
    """Runs a recorder of the replica on ``node`` through the steps, each one virtual second after the previous one."""
    teller, now = Teller(), 100.0
    objects = Objects(True)
    for name in NAMES:
        objects.change("Node", {"metadata": {"name": name, "uid": name}})
    metrics = Metrics(lambda: None, lambda: now)
    recorder = Recorder(
        teller,  # type: ignore[arg-type]
        objects,
        "porterlb-test",
        metrics,
        on_entries=lambda: None,
        clock=lambda: now,
    )

    async def main() -> None:
        nonlocal now
        task = asyncio.create_task(recorder.run())
        recorder.observe(known(node), ())
        for step in steps:
            await asyncio.sleep(0.1)
            now += module.SETTLING + HOLD
            step(recorder)
        await asyncio.sleep(0.1)
        now += HOLD
        recorder.observe(recorder._latest or known(node), ())
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    return teller, metrics, recorder


def dies(node: str) -> Callable[[Recorder], None]:
    gone = known(node, "node-c")
    return lambda recorder: recorder.observe(gone, gone.on_wire)


def test_a_death_is_one_line_a_count_and_one_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "porterlb.history")
    teller, metrics, recorder = record("node-a", dies("node-a"))
    lines = [line.getMessage() for line in caplog.records]
    assert lines.count("Node node-c does not answer probes.") == 1
    assert any("because node-c does not answer probes." in line for line in lines)
    (event,) = [event for event in teller.events if event[0] == "Node node-c"]
    assert event[1] == "NodeDead" and "moved" in event[2]
    labels = {"what": "NodeDead", "why": ""}
    assert metrics.registry.get_sample_value("porterlb_history_events_total", labels) == 1.0
    assert "NodeDead" in {entry.what.value for entry in recorder.history.entries}


def test_what_was_done_about_a_dead_node_is_an_entry_a_line_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "porterlb.history")
    marked = Entry(LATER, What.PODS_MARKED, "node-c", detail="7")
    restored = Entry(LATER, What.PODS_RESTORED, "node-c", detail="2")
    steps = [dies("node-a"), lambda recorder: recorder.note(marked), lambda recorder: recorder.note(restored)]
    teller, metrics, recorder = record("node-a", *steps)
    found = {line.getMessage(): line.levelname for line in caplog.records}
    assert found["Node node-c is dead: 7 of its pods were marked not ready."] == "WARNING"
    assert found["Node node-c lives: 2 of its pods that were still marked not ready were restored."] == "INFO"
    assert [e for e in recorder.history.entries if e in (marked, restored)] == [marked, restored]
    assert not [event for event in teller.events if event[1].startswith("Pods")], "whoever did it tells of it"
    labels = {"what": "PodsMarkedNotReady", "why": ""}
    assert metrics.registry.get_sample_value("porterlb_history_events_total", labels) == 1.0


def test_another_replica_logs_and_does_not_tell(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "porterlb.history")
    teller, _, _ = record("node-b", dies("node-b"))
    assert "Node node-c does not answer probes." in [line.getMessage() for line in caplog.records]
    assert teller.events == []


def test_what_cannot_be_compared_begins_anew(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.recorder.AGAIN", 0.0)
    bad: Any = replace(known(), snapshot=None)  # type: ignore[arg-type]
    _, _, recorder = record("node-a", lambda recorder: recorder.observe(bad, ()), dies("node-a"))
    assert "A new one begins" in caplog.text and recorder.history.places


def test_the_state_is_shared_at_once_and_kept_fresh(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = ManifestsCluster(tmp_path)
        state: dict[str, Any] = {}
        sharer = StateSharer(cluster, "node-a", lambda: (lambda: state) if state else None)
        task = asyncio.create_task(sharer.run())
        await asyncio.sleep(0.1)
        state["vips"] = {"a": 1}
        sharer.changed()
        async with asyncio.timeout(10):
            while not (tmp_path / ".porterlb" / "replicas" / "node-a.json").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(2.5)
        found = await cluster.replica_state("node-a")
        assert json.dumps(found.state) == json.dumps(state) and found.age < 2.0, "its age says that it is still so"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await sharer.stop()
        assert not (tmp_path / ".porterlb" / "replicas" / "node-a.json").exists()
        await cluster.close()

    asyncio.run(main())
