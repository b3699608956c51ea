"""The path of a change through the code: calls that enter another file, in the manager and in the wire process.

One replica runs in the lab with bench/path_trace.py in its processes. ``lost``: from the line with which ExaBGP reports
a lost session to the first gratuitous ARP. ``route``: from the first read of a new Service to the command that gives
ExaBGP its route. The figures are counts, not times. On a busy machine more background falls into the time of an event;
``steps`` leaves it out. ``plan``: of both events only the plan, in this process: always the same figures, and no root.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bgp_feed import Feed
from bench.path_trace import FOLDER, Note, entering
from bench.report import Table
from lab import objects
from lab.cluster import CHECKOUT, Lab
from lab.frames import Capture, Frame
from lab.measure import wait_until
from porterlb.core.observed import BgpReport, SessionState

TRIALS = 3
IDLE = 4.0  # seconds without an event, to measure the background
AFTER_RETURN = 6.0  # seconds: Layer 2 still answers for some time after BGP has returned
POOL = "10.77.0.200-10.77.0.229"
ANNOTATION = {"eip.porter.kubesphere.io/v1alpha2": "auto"}


@dataclass(frozen=True)
class Window:
    """The records of one process between two moments."""

    notes: tuple[Note, ...]
    seconds: float

    @property
    def moves(self) -> int:
        """Calls that entered another file."""
        return len(self.notes)

    @property
    def steps(self) -> set[str]:
        """The distinct calls from one file into another."""
        return {f"{note[2] or 'loop'} -> {note[3]} {note[4]}" for note in self.notes}

    @property
    def files(self) -> set[str]:
        return {note[3] for note in self.notes}


def window(notes: Iterable[Note], begin: float, end: float) -> Window:
    return Window(tuple(note for note in notes if note[1] == "call" and begin <= note[0] <= end), end - begin)


@dataclass(frozen=True)
class Trial:
    """One trial: the windows of both processes."""

    manager: Window
    wire: Window


@contextmanager
def replica() -> Iterator[tuple[Lab, Callable[[], Mapping[str, list[Note]]]]]:
    """One node with a manager, and one router; and a function that ends the manager and returns the records of its
    processes."""
    with Lab(nodes=1, routers=["bird"]) as lab, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text("from bench import path_trace\n\npath_trace.begin()\n")
        lab.eip("auto", POOL, layer2Standby=False)
        lab.bgp_conf()
        lab.peer()
        environment = {FOLDER: name, "PYTHONPATH": os.pathsep.join([name, str(CHECKOUT)])}
        manager = lab.start_manager("node-a", "--return-after", "1", env=environment)
        lab.service("first", annotations=ANNOTATION)
        routed(lab, lab.wait_vips("first", timeout=40)[0])

        def end() -> Mapping[str, list[Note]]:
            manager.signal(signal.SIGTERM)
            manager.wait(20)
            return {part: _read(folder, part) for part in ("manager", "wire")}

        yield lab, end


def _read(folder: Path, part: str) -> list[Note]:
    (file,) = wait_until(lambda: list(folder.glob(f"{part}-*.json")), 10, f"the notes of the {part}")[0]
    return [(at, what, caller, entered, name) for at, what, caller, entered, name in json.loads(file.read_text())]


def routed(lab: Lab, vip: str) -> float:
    """The time at which the router had the route, in wall-clock seconds."""
    wait_until(lambda: f"{vip}/32" in lab.router.next_hops(), 30, f"a route to {vip}", interval=0.002)
    return time.time()


def lost(quick: bool) -> Table:
    """The router's daemon is killed repeatedly; the VIP moves to Layer 2."""
    with replica() as (lab, end):
        vip = lab.vips("first")[0]
        trials: list[tuple[float, float]] = []
        idle = time.time()
        time.sleep(IDLE)
        for _ in range(2 if quick else TRIALS):
            time.sleep(AFTER_RETURN)
            with Capture(lab.segment_client, "arp") as capture:
                assert lab.router.process is not None
                killed = time.time()
                lab.router.process.kill()
                frames = wait_until(lambda: capture.frames(lambda f: gratuitous(f, vip)), 20, "the announcement")[0]
                first: Frame = frames[0]
                trials.append((killed, first.at))
            lab.router.start_daemon()
            routed(lab, vip)
        notes = end()
    manager, wire = notes["manager"], notes["wire"]
    found = []
    for killed, seen in trials:
        begin = at_first(manager, killed, lambda note: note[1] == "call" and note[3] == "edge/bgp/channel.py")
        sent = at_last(wire, seen + 0.002, "packet")
        told = at_first(manager, begin, lambda note: note[1] == "pipe")
        done = at_last(manager, sent, "pipe")
        found.append(Trial(window(manager, begin, done), window(wire, told, sent)))
    return tabled("A lost session, to the gratuitous ARP", found, notes, idle)


def route(quick: bool) -> Table:
    """Services are created one by one; each already has its endpoints."""
    with replica() as (lab, end):
        trials: list[tuple[float, float]] = []
        idle = time.time()
        time.sleep(IDLE)
        for number in range(2 if quick else TRIALS):
            name = f"new-{number}"
            for piece in objects.endpoint_slices(name, lab.pods, "default", families=["IPv4"], conditions=None):
                lab.backend.apply(piece)
            time.sleep(2)
            begun = time.time()
            lab.backend.apply(objects.service(name, "default", families=["IPv4"], annotations=ANNOTATION))
            trials.append((begun, routed(lab, lab.wait_vips(name)[0])))
        notes = end()
    manager, wire = notes["manager"], notes["wire"]
    found = []
    for begun, seen in trials:
        begin = at_first(manager, begun, lambda note: note[1] == "call" and note[3].startswith("edge/manifests/"))
        done = at_last(manager, seen, "exabgp")
        found.append(Trial(window(manager, begin, done), window(wire, begin, done)))
    return tabled("A new Service, to its route", found, notes, idle)


def at_first(notes: Iterable[Note], since: float, which: Callable[[Note], bool]) -> float:
    return next(note[0] for note in notes if note[0] >= since and which(note))


def at_last(notes: Iterable[Note], until: float, kind: str) -> float:
    return max(note[0] for note in notes if note[0] <= until and note[1] == kind)


def gratuitous(frame: bytes, vip: str) -> bool:
    """Whether a captured ARP frame announces this address: sender and target are the same."""
    packed = socket.inet_aton(vip)
    return len(frame) >= 42 and frame[28:32] == packed == frame[38:42]


def tabled(title: str, found: list[Trial], notes: Mapping[str, list[Note]], idle: float) -> Table:
    """The median of all trials, and the activity of these processes in the same time without an event."""
    table = Table(
        f"{title}: calls that enter another file (median of {len(found)})",
        ["process", "steps", "calls", "least", "most", "of them anyway", "files", "milliseconds (slowed down)"],
        notes=[
            "steps: distinct calls in the trial with the fewest calls, without those that also occur without the event",
            "anyway: on average, in as long a time without the event",
        ],
    )
    for part in ("manager", "wire"):
        windows: list[Window] = sorted((getattr(one, part) for one in found), key=lambda one: one.moves)
        middle = windows[len(windows) // 2]
        background = window(notes[part], idle, idle + IDLE)
        steps = windows[0].steps - background.steps
        table.rows.append(
            [
                part,
                len(steps),
                middle.moves,
                windows[0].moves,
                windows[-1].moves,
                round(background.moves / IDLE * middle.seconds, 1),
                len(middle.files),
                middle.seconds * 1000,
            ]
        )
        pairs = Counter(f"{note[2] or 'loop'} -> {note[3]} {note[4]}" for note in windows[0].notes)
        table.raw[part] = {
            "moves": [one.moves for one in windows],
            "steps": sorted(steps),
            "least": dict(pairs.most_common()),
        }
    return table


def planned(quick: bool) -> Table:
    """One plan of two nodes, one router and one VIP after each event."""
    with tempfile.TemporaryDirectory() as folder:
        feed = Feed(
            {
                "node": "node-a",
                "others": [],
                "nodes": {"node-a": ["10.77.0.11"], "node-b": ["10.77.0.12"]},
                "router": "10.77.0.1",
                "as": 64500,
                "afiSafis": [{"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}}}],
                "folder": folder,
            }
        )
        established = BgpReport(sessions={"tor": SessionState("tor", "established", 0.0)})
        feed.report = established
        feed.service(0, 4, ["node-a"])
        for _ in range(2):
            feed.go()
        feed.report = BgpReport()
        found = {"a lost session": entering(feed.go)}
        feed.report = established
        feed.go()
        feed.service(1, 4, ["node-a"])
        found["a new Service"] = entering(feed.go)
    table = Table(
        "The plan alone: calls that enter another file",
        ["after", "steps", "calls", "files", "calls of core/persistent.py"],
        notes=["steps: distinct calls. core/persistent.py: the mappings and sets of snapshots and plans"],
    )
    for event, calls in found.items():
        containers = sum(file == "core/persistent.py" for _, file, _ in calls)
        table.rows.append([event, len(set(calls)), len(calls), len({file for _, file, _ in calls}), containers])
        table.raw[event] = dict(Counter(f"{caller or 'bench'} -> {file} {name}" for caller, file, name in calls))
    return table


PARTS: Mapping[str, Callable[[bool], Table]] = {"lost": lost, "route": route, "plan": planned}
