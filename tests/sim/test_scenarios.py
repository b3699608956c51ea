"""Ten scenarios end in the simulator in the same way as on real kernels (tests/lab/test_scenarios.py)."""

from __future__ import annotations

import json

import pytest

from sim.scenarios import SCENARIOS
from tests.sim.command import sim

MOST = 0.3
"""Seconds without a path in a scenario: the bound of the simulator's promises for a single fault."""


@pytest.mark.timeout(300)
def test_each_scenario_ends_as_it_should() -> None:
    done = sim("--scenarios", timeout=280)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    seen = {row["scenario"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert seen.keys() == {scenario.name for scenario in SCENARIOS} and len(seen) == 10
    for scenario in SCENARIOS:
        row = seen[scenario.name]
        assert set(row["moves"]) == scenario.moves, row
        assert set(row["loses"]) == scenario.loses, row
        assert row["leader"] is scenario.leader, row
        assert all(gap <= MOST for gap in row["gaps"].values()), row
