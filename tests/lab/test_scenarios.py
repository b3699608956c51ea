"""The scenarios of the simulator (sim/scenarios.py) on real kernels, with the same outcome.

The gate runs two of them; PORTERLB_SCENARIOS=all runs all. `tests/sim/test_scenarios.py` runs all in the simulator.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sim.scenarios import ROLES, SCENARIOS, Scenario, Step
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]

IN_THE_GATE = ("the next hop's cable is pulled", "the leader's node loses power")
CHOSEN = [one for one in SCENARIOS if os.environ.get("PORTERLB_SCENARIOS") == "all" or one.name in IN_THE_GATE]
GAP_MS = 600.0
"""Limit without an answer, in milliseconds: twice the target, because test machines are busy."""
RESTART = 1.5
"""Seconds until the kubelet would restart a replica."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as made:
        yield made


class Play:
    """One scenario with its own Services: each node serves one VIP, independent of the moves of earlier scenarios."""

    def __init__(self, stage: Stage, scenario: Scenario, number: int) -> None:
        self.stage, self.scenario = stage, scenario
        leader = stage.leader()
        others = [node.name for node in stage.lab.nodes if node.name != leader]
        self.roles = dict(zip(ROLES, (leader, *others), strict=True))
        self.vips = {
            role: stage.serve(f"s{number}-{role}", at=node, families=("IPv4",))[0] for role, node in self.roles.items()
        }
        stage.settle()

    def run(self) -> None:
        events: list[tuple[float, Callable[[], None]]] = []
        for step in self.scenario.steps:
            begin, end = self.fault(step)
            events.append((step.at, begin))
            if step.seconds:
                events.append((step.at + step.seconds, end))
        begun = time.monotonic()
        for at, do in sorted(events, key=lambda event: event[0]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            do()
        time.sleep(max(0.0, begun + self.scenario.watch - time.monotonic()))

    def fault(self, step: Step) -> tuple[Callable[[], None], Callable[[], None]]:
        """The functions that start and end a fault."""
        stage, name = self.stage, self.roles.get(step.role, "")
        if step.kind == "api_out":
            return self.cut_api, self.restore_api
        node = stage.lab.node(name)
        match step.kind:
            case "power":
                return node.power_off, node.power_on
            case "link":
                return node.cut_link, node.restore_link
            case "isolate":
                return node.partition, node.heal
            case "pair":
                other = stage.lab.node(self.roles[step.other])
                return lambda: node.partition(other), lambda: node.heal(other)
            case "kill_manager":
                return lambda: self.again(name, lambda: stage.manager(name).kill()), _nothing
            case "term_manager":
                return lambda: self.again(name, lambda: stage.manager(name).terminate()), _nothing
            case "kill_wire":
                return lambda: os.kill(stage.wire(name), signal.SIGKILL), _nothing
            case "stop_both":
                manager = stage.manager(name)
                pids = [manager.pid, *[pid for pid, _ in manager.descendants()]]
                return lambda: _signal(pids, signal.SIGSTOP), lambda: _signal(pids, signal.SIGCONT)
        raise AssertionError(step.kind)

    def cut_api(self) -> None:
        for node in self.stage.lab.nodes:
            node.cut_api()

    def restore_api(self) -> None:
        for node in self.stage.lab.nodes:
            node.restore_api()

    def again(self, name: str, end: Callable[[], object]) -> None:
        """Ends a manager. It is restarted after a delay, as by the kubelet."""
        end()
        threading.Timer(RESTART, self.stage.start, (name,)).start()


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)


def _nothing() -> None:
    pass


@pytest.mark.parametrize("scenario", CHOSEN, ids=lambda scenario: scenario.name.replace(" ", "-"))
def test_a_scenario_ends_as_in_the_simulator(stage: Stage, scenario: Scenario) -> None:
    play = Play(stage, scenario, SCENARIOS.index(scenario))
    report = stage.during(play.vips.values(), play.run, after=0.2)
    stage.settle(60.0)
    gaps = {role: report.only(vip).worst_gap_ms for role, vip in play.vips.items() if report.only(vip).lost}
    moved = {role for role, vip in play.vips.items() if stage.owner(vip) != play.roles[role]}
    print(f"{scenario.name}: moved {sorted(moved)}, gaps {gaps} ms, leader {stage.leader()}")
    assert moved == scenario.moves
    assert gaps.keys() == scenario.loses, gaps
    assert all(gap <= GAP_MS for gap in gaps.values()), gaps
    assert (stage.leader() != play.roles["leader"]) is scenario.leader
