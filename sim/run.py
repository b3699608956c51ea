"""One run: a seed, its site, its faults, and the result."""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porterlb.release import release
from sim.cluster import Site
from sim.faults import Fault, Faults, draw
from sim.platform import substitute
from sim.promises import Promises, Violation
from sim.recordings import write
from sim.world import World

SPREAD = 0.25
"""The share of seeds in which each host has its own next hop (``layer2Spread: hosts``)."""

RING = 1 << 25
"""Bytes of a recording: more than the two minutes of a seed need."""

_READY: list[bool] = []


@dataclass
class Result:
    """``worst``: the longest time that each condition was broken without a violation."""

    seed: int
    seconds: float
    faults: list[Fault]
    begun: int
    violation: Violation | None
    worst: dict[str, float]
    events: int
    frames: int
    timeline: list[tuple[float, str, str]] = field(default_factory=list)


def run(
    seed: int,
    seconds: float,
    faults: list[Fault] | None = None,
    *,
    timeline: bool = False,
    recordings: Path | None = None,
    ring: int = RING,
) -> Result:
    """Runs one seed. ``faults``: instead of those that the seed draws. ``recordings``: a folder for the replicas'
    recordings, ``ring`` bytes for each process."""
    if not _READY:
        _READY.append(True)
        substitute()
        sys.unraisablehook = lambda unraisable: None  # coroutines of processes that were killed
    chance = random.Random(f"{seed}/site")
    names = tuple(f"n{number}" for number in range(1, chance.choice((2, 3, 3, 3, 4)) + 1))
    world = World(seed)
    settings = {**_settings(chance), **(REBALANCING if rebalances(seed) else {})}
    site = Site(world, names, {**settings, "record_ring": ring if recordings is not None else 0})
    site.eip("segment", "10.77.0.200-10.77.0.229", "layer2", **{"layer2Spread": "hosts"} if spreads(seed) else {})
    for number in range(chance.randint(2, 4)):
        nodes = sorted(chance.sample(names, chance.randint(1, len(names))))
        site.service(f"s{number}", "segment", chance.choice(("Local", "Cluster")), nodes)
    for number in range(3 if rebalances(seed) else 0):
        site.service(f"even{number}", "segment", "Cluster", list(names))
    drawn = draw(seed, names, tuple(site.services), seconds) if faults is None else faults
    site.run_all()
    carried = Faults(site, drawn)
    promises = Promises(site, carried, seconds, balanced=rebalances(seed))
    handler = _listen(world) if timeline else None
    violation: Violation | None = None
    try:
        world.run(seconds)
    except Violation as found:
        violation = found
    except Exception as error:
        error.add_note(f"in seed {seed}, at {world.now:.3f}")
        raise
    finally:
        if handler is not None:
            handler()
    lines = list(world.said) if timeline else []
    result = Result(
        seed, world.now, drawn, carried.begun, violation, promises.worst, world.events, site.segment.frames, lines
    )
    for process in world.processes:
        process.alive = False
    if recordings is not None:
        write(recordings, site.recorded, release())
    return result


def spreads(seed: int) -> bool:
    """Whether each host has its own next hop in a seed."""
    return random.Random(f"{seed}/spread").random() < SPREAD


def rebalances(seed: int) -> bool:
    """Whether a seed has more VIPs, which the leader rebalances after some seconds."""
    return seed % 6 == 2 and not spreads(seed)


REBALANCING = {"settle_after": 2.0, "rebalance_after": 4.0, "rebalance_pace": 0.5}
"""Seconds. By default, rebalancing takes ten minutes."""


def _settings(chance: random.Random) -> dict[str, Any]:
    return {"mark_pods_not_ready": chance.random() < 0.5}


def _listen(world: World) -> Any:
    """Adds the log lines of porterlb to the timeline, until the returned function is called."""
    import logging  # noqa: PLC0415

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            who = world.current.name if world.current is not None else record.name
            world.say(who, record.getMessage())

    handler = Handler(logging.INFO)
    logger = logging.getLogger("porterlb")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)

    def end() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)

    return end
