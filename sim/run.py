"""One run: a seed, its site, its faults, and the result."""

from __future__ import annotations

import gc
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from porterlb.release import release
from sim.cluster import Site
from sim.faults import Fault, Faults, draw, with_bgp
from sim.platform import substitute
from sim.promises import Promises, Violation
from sim.recordings import write
from sim.world import World

SPREAD = 0.25
"""The share of seeds in which each host has its own next hop (``layer2Spread: hosts``)."""

BGP_CALM = 20.0
"""Additional seconds without faults at the end of a seed with BGP: sessions return late, and are trusted after 10 s."""

RING = 1 << 25
"""Bytes of a recording: more than the two minutes of a seed need."""

_READY: list[bool] = []


@dataclass
class Result:
    """``worst``: the longest time that each condition was broken without a violation. ``processor``: seconds of
    processor time."""

    seed: int
    seconds: float
    faults: list[Fault]
    begun: int
    violation: Violation | None
    worst: dict[str, float]
    events: int
    frames: int
    timeline: list[tuple[float, str, str]] = field(default_factory=list)
    processor: float = 0.0


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
    prepare()
    spent = time.process_time()
    chance = random.Random(f"{seed}/site")
    names = tuple(f"n{number}" for number in range(1, chance.choice((2, 3, 3, 3, 4)) + 1))
    world = World(seed)
    settings = {**_settings(chance), **(REBALANCING if rebalances(seed) else {})}
    bgp = random.Random(f"{seed}/bgp") if peers(seed) else None
    settings["record_ring"] = ring if recordings is not None else 0
    site = Site(world, names, settings, paths=_routers(bgp) if bgp is not None else (), ipv6=with_ipv6(seed))
    more: dict[str, Any] = {"layer2Spread": "hosts"} if spreads(seed) else {}
    if bgp is not None:
        more["layer2Standby"] = bgp.random() < 0.7
    site.eip("segment", "10.77.0.200-10.77.0.229", "auto" if bgp is not None else "layer2", **more)
    for number in range(chance.randint(2, 4)):
        nodes = sorted(chance.sample(names, chance.randint(1, len(names))))
        site.service(f"s{number}", "segment", chance.choice(("Local", "Cluster")), nodes)
    for number in range(3 if rebalances(seed) else 0):
        site.service(f"even{number}", "segment", "Cluster", list(names))
    if site.ipv6:
        _with_ipv6(site, random.Random(f"{seed}/ipv6"), more)
    if bgp is not None:
        _with_peers(site, bgp)
    drawn = _drawn(seed, site, seconds) if faults is None else faults
    site.run_all()
    carried = Faults(site, drawn)
    promises = Promises(site, carried, seconds, balanced=rebalances(seed))
    handler = _listen(world) if timeline else None
    violation: Violation | None = None
    gc.disable()  # a run leaves little garbage in cycles; collections took a tenth of its time
    try:
        world.run(seconds)
    except Violation as found:
        violation = found
    except Exception as error:
        error.add_note(f"in seed {seed}, at {world.now:.3f}")
        raise
    finally:
        gc.enable()
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
    result.processor = time.process_time() - spent
    return result


def prepare() -> None:
    """Replaces the operating system under porterlb in this Python process, once."""
    if not _READY:
        _READY.append(True)
        substitute()
        sys.unraisablehook = lambda unraisable: None  # coroutines of processes that were killed


def _routers(chance: random.Random) -> tuple[bool, ...]:
    return tuple(chance.random() < 0.7 for _ in range(chance.choice((1, 2, 2))))


def _with_peers(site: Site, chance: random.Random) -> None:
    """BGP, and Services outside the segment that only BGP can serve."""
    site.peers(add_path=chance.random() < 0.8, graceful_restart=chance.random() < 0.8)
    site.eip("routed", "10.99.0.0/28", "bgp")
    for number in range(chance.randint(1, 2)):
        nodes = sorted(chance.sample(site.names, chance.randint(1, len(site.names))))
        site.service(f"routed{number}", "routed", chance.choice(("Local", "Cluster")), nodes)


def _with_ipv6(site: Site, chance: random.Random, more: dict[str, Any]) -> None:
    """IPv6 VIPs on the segment. ``more``: as in the Eip for IPv4."""
    site.eip("segment6", "fd77::200-fd77::22f", site.protocol(next(iter(site.services))), **more)
    for number in range(chance.randint(1, 3)):
        nodes = sorted(chance.sample(site.names, chance.randint(1, len(site.names))))
        site.service(f"six{number}", "segment6", chance.choice(("Local", "Cluster")), nodes)


def _drawn(seed: int, site: Site, seconds: float) -> list[Fault]:
    names, services = site.names, tuple(site.services)
    if not site.routers:
        return draw(seed, names, services, seconds)
    routers = tuple(router.name for router in site.routers)
    end = seconds - BGP_CALM
    return with_bgp(seed, draw(seed, names, services, end), names, routers, end)


def peers(seed: int) -> bool:
    """Whether a seed has routers and BGP."""
    return seed % 7 == 3


def with_ipv6(seed: int) -> bool:
    """Whether a seed has IPv6 VIPs beside the IPv4 ones."""
    return seed % 11 == 1


def spreads(seed: int) -> bool:
    """Whether each host has its own next hop in a seed."""
    return random.Random(f"{seed}/spread").random() < SPREAD


def rebalances(seed: int) -> bool:
    """Whether a seed has more VIPs, which the leader rebalances after some seconds."""
    return seed % 6 == 2 and not spreads(seed) and not peers(seed)


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
