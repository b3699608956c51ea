"""The simulator as a part of the gate: some seeds, and the seeds that once found a fault."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sim.run import peers, rebalances, spreads, with_ipv6
from tests.sim.command import sim

IPV6 = 12
"""A seed with IPv6 VIPs."""
SEEDS = int(os.environ.get("PORTERLB_SIM_SEEDS", "200"))
"""Some 12 minutes of processor time; `python -m sim --continue` runs more."""
FIRST = 1000031
WAIT = 3600
"""Seconds: the gate runs this at idle priority, and other tests beside it."""


@pytest.mark.timeout(WAIT)
def test_no_promise_is_broken() -> None:
    done = sim("--seeds", str(SEEDS), "--first", str(FIRST), "--no-shrink", timeout=WAIT - 60)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    assert f"{SEEDS} seeds" in done.stdout
    assert " 0 violations" in done.stdout


def test_the_first_seeds_have_sites_of_every_kind() -> None:
    """IPv4 and IPv6, with and without BGP, rebalancing, and a next hop of its own for each host."""
    first = range(FIRST, FIRST + 12)
    for kind in (peers, with_ipv6, spreads, rebalances):
        assert {kind(seed) for seed in first} == {True, False}


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
