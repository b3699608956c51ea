"""The simulator as a part of the gate: some seeds, and the seeds that once found a fault."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sim.run import peers, rebalances, spreads
from tests.sim.command import sim

IPV6 = 12
"""A seed with IPv6 VIPs."""
SEEDS = int(os.environ.get("PORTERLB_SIM_SEEDS", "4"))
"""About 20 s of processor time; `python -m sim --continue` runs more."""
FIRST = 1000031
WITH_BGP = 1000037
"""The gate's seed with routers."""


@pytest.mark.timeout(1000)
def test_no_promise_is_broken() -> None:
    done = sim("--seeds", str(SEEDS), "--first", str(FIRST), "--no-shrink")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert f"{SEEDS} seeds" in done.stdout
    assert " 0 violations" in done.stdout


@pytest.mark.timeout(300)
def test_no_promise_is_broken_with_bgp() -> None:
    assert peers(WITH_BGP)
    done = sim("--seeds", "1", "--first", str(WITH_BGP), "--no-shrink")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert " 0 violations" in done.stdout


def test_some_seed_gives_each_host_a_next_hop_of_its_own_and_some_rebalances() -> None:
    assert {(spreads(seed), rebalances(seed)) for seed in range(FIRST, FIRST + 4)} == {
        (True, False),
        (False, True),
        (False, False),
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [3, IPV6], ids=["ipv4", "ipv6"])
def test_a_seed_runs_the_same_twice(seed: int, tmp_path: Path) -> None:
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps([{"at": 8.0, "kind": "power", "a": "n1", "seconds": 6.0}]))
    one, two = (sim("--seed", str(seed), "--seconds", "45", "--faults", str(faults)) for _ in range(2))
    assert one.stdout == two.stdout
    assert one.returncode == 0, one.stdout[-3000:]
    assert "FAULT         power n1 for 6.00 s" in one.stdout
    assert "node n1 is dead" in one.stdout


FOUND = sorted((Path(__file__).parent / "found").glob("*.json"))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", FOUND, ids=[path.stem for path in FOUND])
def test_what_was_found_stays_mended(path: Path, tmp_path: Path) -> None:
    """``never``: a text that must not be in the timeline, in addition to violations."""
    found = json.loads(path.read_text())
    faults = tmp_path / "faults.json"
    faults.write_text(json.dumps(found["faults"]))
    seed, seconds = str(found["seed"]), str(found["seconds"])
    done = sim("--seed", seed, "--seconds", seconds, "--faults", str(faults))
    assert done.returncode == 0, found["what"] + done.stdout[-3000:]
    assert not found["never"] or found["never"] not in done.stdout, found["what"]
    lines = sum(2 if fault.get("seconds") else 1 for fault in found["faults"])  # the end of a fault has a line too
    assert done.stdout.count("FAULT") == lines
