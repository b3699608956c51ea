"""A node loses its power: the information for a person on call, on a real segment, without waiting for Kubernetes."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.backend import DirBackend
from lab.cluster import CHECKOUT
from lab.measure import wait_until
from lab.netns import run_command
from tests.lab import on_call
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

NAMED_WITHIN = 3.0
"""Seconds from the power loss until a newly started ``porterlb status`` names the node: below 1 s on an idle
machine."""


def porterlb(backend: DirBackend, *args: str) -> str:
    argv = [sys.executable, "-P", "-m", "porterlb", "--cluster", f"dir:{backend.folder}", *args]
    return run_command(["env", f"PYTHONPATH={CHECKOUT}", "COLUMNS=200", *argv]).stdout


def text_of(told: dict[str, Any], step: str) -> str:
    """The text of the first row of this step in ``explain``."""
    return next(str(row["text"]) for row in told["steps"] if row["step"].strip() == step)


def explained(told: dict[str, Any], victim: str, survivors: list[str]) -> None:
    """``explain`` shows the new next hop and the reason."""
    hop = text_of(told, "Layer 2").split(" with the MAC of ")[1]
    assert hop in survivors
    assert f"{victim} does not answer probes" in text_of(told, "Nodes")
    assert f"moved from {victim} to {hop} (layer2), because {victim} does not answer" in text_of(told, "History")


def test_a_node_that_loses_its_power_is_named_within_a_second_with_log_event_and_history() -> None:
    with Stage("manifests") as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        backend = stage.lab.backend
        assert isinstance(backend, DirBackend)
        wait_until(lambda: "3 of 3 ready" in porterlb(backend, "status"), 20, "status to have seen all")
        time.sleep(6.0)  # the history starts 5 s after a replica's first plan
        vips = {vip: stage.owner(vip) for vip in stage.all_vips()}
        victim = vips[at["node-c"][0]]
        survivors = [node.name for node in stage.lab.nodes if node.name != victim]
        witness = stage.lab.node(survivors[0])
        stage.lab.node(victim).power_off()
        off = time.monotonic()
        wait_until(lambda: on_call.page_says_dead(witness, victim, survivors), 5, "the page to tell", interval=0.02)
        print(f"the page told {time.monotonic() - off:.2f} s after the loss of power")
        assert time.monotonic() - off <= NAMED_WITHIN
        while True:
            begun = time.monotonic() - off
            shown = porterlb(backend, "status")
            if f"{victim} is dead (seen by {', '.join(survivors)})" in shown:
                break
            assert begun < 10, shown
        print(f"named by a status that was begun {begun:.2f} s after the loss of power")
        assert begun <= NAMED_WITHIN
        explained(on_call.ask(witness, "explain", at["node-c"][0])[1], victim, survivors)
        assert "2 of 3 ready" in shown
        wait_until(lambda: f"silent: {victim}" in porterlb(backend, "status"), 5, "status to call the replica silent")

        def moved() -> set[str]:
            rows = json.loads(porterlb(backend, "history", "--node", victim, "--since", "60s", "-o", "json"))["items"]
            assert any(row["what"] == "NodeDead" and row["seenBy"] == survivors for row in rows)
            moves = [row for row in rows if row["what"] == "VipMoved" and row["why"] == "NodeDead"]
            return {vip for row in moves for vip in row["vips"]}

        expected = {vip for vip, owner in vips.items() if owner == victim}
        wait_until(lambda: moved() == expected, 5, f"the history to name {sorted(expected)}")
        logs = {name: stage.manager(name).output() for name in survivors}
        for name, text in logs.items():
            assert text.count(f"Node {victim} does not answer probes.") == 1, f"one log line of {name}"
            assert f"because {victim} does not answer probes" in text

        def events() -> list[dict[str, object]]:
            lines = Path(backend.folder, ".porterlb", "events.jsonl").read_text().splitlines()
            return [e for e in map(json.loads, lines) if e["kind"] == "Node" and e["reason"] == "NodeDead"]

        wait_until(events, 5, "an Event on the node")
        (event,) = events()
        assert (event["name"], event["count"]) == (victim, 1)
        assert f"{len(expected)} addresses moved" in str(event["message"])
        by_name = {row["name"]: row for row in json.loads(porterlb(backend, "service", "list", "-o", "json"))["items"]}
        assert any(row["since"] for row in by_name.values())
        _, metrics = stage.lab.manager_http(survivors[0], "/metrics")
        assert 'porterlb_history_events_total{what="NodeDead",why=""} 1.0' in metrics
