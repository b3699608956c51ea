"""BGP: from a plan to the router's table, next to the router's own static routes and GoBGP, in the same run.

The router is BIRD with its kernel table, as in the lab. ``in the table`` is the time at which BIRD's RIB has all
routes. The RIB is queried every 10 ms (every 0.5 ms for single routes) on its control socket. PorterLB's side is the
planner and the BGP speaker with its ExaBGP in a separate process (bench/bgp_feed.py). The time counts from the start of
the plan, or, in the part ``speaker``, from the moment at which the BGP speaker gets the routes.
"""

from __future__ import annotations

import json
import select
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Address
from statistics import median
from typing import Any

from bench import bgp_racks
from bench.bgp_feed import prefix, vip
from bench.bgp_gaps import next_hop
from bench.report import Cell, Table, percentile
from bench.usage import resident_bytes
from lab.cluster import CHECKOUT, Lab
from lab.netns import LabError
from lab.node import Node
from lab.process import Process
from lab.routers import NODES_AS, Session
from lab.routers.bird import Bird

FEW = 100  # VIPs that exist before a burst
PATIENCE = 240.0  # seconds
SINGLES = 200
"""Single changes while idle, so that a 99th percentile exists."""

Figures = Mapping[str, list[float]]
"""By name, one per trial."""


class Subject:
    """Runs bench/bgp_feed.py on a node."""

    def __init__(self, lab: Lab, node: Node, folder: str) -> None:
        options = {
            "node": node.name,
            "others": [],
            "nodes": {each.name: [each.v4, each.v6] for each in lab.nodes},
            "router": lab.router.v4,
            "as": lab.router.config.asn,
            "afiSafis": [
                {"config": {"family": {"afi": afi, "safi": "SAFI_UNICAST"}}, "addPaths": {"config": {"sendMax": 8}}}
                for afi in ("AFI_IP", "AFI_IP6")
            ],
            "folder": folder,
        }
        argv = [sys.executable, "-P", "-m", "bench.bgp_feed", json.dumps(options)]
        self.process: Process = node.start("feed", argv, {"PYTHONPATH": str(CHECKOUT)}, pipes=True, cwd=CHECKOUT)
        self._number = 0
        self._heard: list[dict[str, Any]] = []
        self._buffer = b""

    def ask(self, **command: Any) -> int:
        """Sends a command. Returns its number."""
        self._number += 1
        stdin = self.process.popen.stdin
        assert stdin is not None
        stdin.write(json.dumps({"id": self._number, **command}).encode() + b"\n")
        stdin.flush()
        return self._number

    def answer(self, number: int) -> dict[str, Any]:
        return self._wait(lambda said: said.get("id") == number)

    def up(self) -> float:
        """Waits for the next establishment of its session. Returns the time."""
        return float(self._wait(lambda said: "up" in said)["up"])

    def _wait(self, what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        out = self.process.popen.stdout
        assert out is not None
        deadline = time.monotonic() + PATIENCE
        while True:
            for said in self._heard:
                if what(said):
                    self._heard.remove(said)
                    return said
            if not select.select([out], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise LabError(f"no answer from the feed: {self.process.output()[-1000:]}")
            data = out.read1(1 << 16)  # type: ignore[attr-defined]
            if not data:
                raise LabError(f"the feed has ended: {self.process.output()[-2000:]}")
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._heard += map(json.loads, lines)


def count(router: Bird, version: int, source: str = "RTS_BGP") -> int:
    """The number of routes in BIRD's table of this IP version from this source."""
    return int(router.birdc(f"show route table master{version} where source = {source} count").split()[0])


def until_count(router: Bird, wanted: int, version: int = 4, source: str = "RTS_BGP") -> float:
    """Waits until BIRD has `wanted` routes. Returns the time."""
    deadline = time.monotonic() + PATIENCE
    while (seen := count(router, version, source)) != wanted:
        if time.monotonic() > deadline:
            raise LabError(f"BIRD has {seen} routes, not {wanted}, after {PATIENCE:.0f} s")
        time.sleep(0.01)  # each query scans the whole table
    return time.monotonic()


def until_hop(router: Bird, number: int, hop: str, version: int = 4) -> float:
    """Waits until BIRD has a route to this VIP through this node. Returns the time."""
    question = f"show route {prefix(number, version)} table master{version}"
    deadline = time.monotonic() + PATIENCE
    while f"via {hop} " not in (said := router.birdc(question)):
        if time.monotonic() > deadline:
            raise LabError(f"BIRD did not take the change of VIP {number} in {PATIENCE:.0f} s: {said}")
        time.sleep(0.0005)
    return time.monotonic()


def routes(quick: bool) -> Table:
    """From the plan to the table, and single changes."""
    sizes = ((1000, 4), (1000, 6)) if quick else ((1000, 4), (10_000, 4), (10_000, 6))
    return tabled(
        "BGP: from a plan to BIRD's table (milliseconds)",
        {size: measure(*size, trials=1 if quick else 3) for size in sizes},
        {
            "PorterLB: all in the table": "300 (10,000 IPv4)",
            "PorterLB: one change while idle, 99th percentile": "5",
            "PorterLB: one change during the burst, worst": "100",
        },
    )


def speaker(quick: bool) -> Table:
    """Without a plan: from the speaker to the table."""
    sizes = ((10_000, 4), (10_000, 6)) if quick else ((10_000, 4), (10_000, 6), (100_000, 4), (100_000, 6))
    return tabled(
        "BGP: from the BGP speaker to BIRD's table (milliseconds)",
        {size: spoken(*size, trials=1 if quick or size[0] > 10_000 else 3) for size in sizes},
        {"PorterLB: all in the table": "4,000 (100,000 IPv4)"},
    )


def tabled(title: str, found: Mapping[tuple[int, int], Figures], targets: Mapping[str, str]) -> Table:
    """The worst of the trials, and the ratios of the medians to what else was measured in the same run."""
    table = Table(title, ["", *(f"{size:,} IPv{version}" for size, version in found), "target"])
    names = list(dict.fromkeys(name for each in found.values() for name in each))
    for name in names:
        cells: list[Cell] = [max(each[name]) if name in each else "" for each in found.values()]
        table.rows.append([name, *cells, targets.get(name, "")])
    for anchor in (name for name in names if name.endswith(": all in the table") and name != ALL):
        ratios: list[Cell] = [ratio(each, anchor) for each in found.values()]
        table.rows.append([f"ratio: PorterLB / {anchor.partition(':')[0]}", *ratios, ""])
    table.notes = [
        "The worst of the trials; single figures are in the JSON. Ratios are those of the medians.",
        "One next hop each, so one path a prefix. processor: processor time of the process for the first burst.",
        "GoBGP: `gobgp mrt inject` of one file. birdc: `configure` with the routes as static ones, no BGP in between.",
    ]
    table.raw = {f"{size} IPv{version}": each for (size, version), each in found.items()}
    return table


ALL = "PorterLB: all in the table"


def ratio(figures: Figures, anchor: str) -> Cell:
    return median(figures[ALL]) / median(figures[anchor]) if anchor in figures else ""


class Trials:
    """The figures of all trials of one size, by name."""

    def __init__(self, size: int, version: int) -> None:
        self.size, self.version = size, version
        self.figures: dict[str, list[float]] = {}

    def note(self, name: str, figure: float) -> None:
        self.figures.setdefault(name, []).append(figure)


@contextmanager
def fed() -> Iterator[tuple[Lab, Bird, Subject]]:
    """Two nodes and BIRD; on the first node, a feed with an established session and with `FEW` VIPs of each version."""
    with Lab(nodes=2, routers=["bird"], pods=0) as lab, tempfile.TemporaryDirectory() as folder:
        router = lab.router
        assert isinstance(router, Bird)
        here, there = lab.nodes
        sessions = (
            Session(here.name, here.v4, families=("v4", "v6"), graceful_restart=False),
            Session(there.name, there.v4, graceful_restart=False, add_path=False),
        )
        router.reconfigure(type(router.config)(sessions))
        subject = Subject(lab, here, folder)
        subject.up()
        for version in (4, 6):
            subject.answer(subject.ask(do="add", to=FEW, nodes=[there.name], version=version))
            until_count(router, FEW, version)
        yield lab, router, subject
        subject.process.close()


def measure(size: int, version: int, trials: int) -> Figures:
    found = Trials(size, version)
    with fed() as (lab, router, subject):
        for trial in range(trials):
            if trial:  # otherwise, the routes of the previous trial still exist, and nothing is measured
                subject.answer(subject.ask(do="remove", version=version, **{"from": FEW, "to": FEW + size}))
            until_count(router, FEW, version)
            planned(subject, router, found, (lab.nodes[0], lab.nodes[1]))
        own, exabgp = subject.answer(subject.ask(do="usage"))["memory"]
        found.note("memory of planner + speaker + ExaBGP (MB)", own + exabgp)
        found.note("  of which ExaBGP (MB)", exabgp)
        router.birdc(f"restart {router.config.sessions[0].label}")
        since = subject.up()
        found.note(
            "PorterLB: sent again after the session was reset",
            (until_count(router, size + FEW, version) - since) * 1000,
        )
        begun = subject.answer(subject.ask(do="remove", to=size + FEW, version=version))["begun"]
        found.note("PorterLB: all withdrawn", (until_count(router, 0, version) - begun) * 1000)
        subject.process.close()
        anchors(lab, router, found, trials)
    return found.figures


def spoken(size: int, version: int, trials: int) -> Figures:
    found = Trials(size, version)
    with fed() as (lab, router, subject):
        for _ in range(trials):
            until_count(router, FEW, version)
            before = subject.answer(subject.ask(do="usage"))["processor"]
            said = subject.answer(subject.ask(do="announce", version=version, **{"from": FEW, "to": FEW + size}))
            found.note(ALL, (until_count(router, size + FEW, version) - said["begun"]) * 1000)
            after = subject.answer(subject.ask(do="usage"))["processor"]
            found.note("  processor: ExaBGP", after[1] - before[1])
            found.note("  processor: BGP speaker", after[0] - before[0])
            begun = subject.answer(subject.ask(do="announce", version=version))["begun"]
            found.note("PorterLB: all withdrawn", (until_count(router, FEW, version) - begun) * 1000)
        subject.process.close()
        until_count(router, 0, version)
        anchors(lab, router, found, trials)
    return found.figures


def planned(subject: Subject, router: Bird, found: Trials, nodes: tuple[Node, Node]) -> None:
    """All routes are added at once; then single changes while idle; then all but a few are removed; then all are added
    again with a change during the burst."""
    here, there = nodes
    version, size = found.version, found.size
    hop = here.v4 if version == 4 else here.v6
    burst = {"do": "add", "from": FEW, "to": FEW + size, "nodes": [there.name], "version": version}
    before = subject.answer(subject.ask(do="usage"))["processor"]
    said = subject.answer(subject.ask(**burst))
    found.note(ALL, (until_count(router, size + FEW, version) - said["begun"]) * 1000)
    found.note("  of which planning", said["planning"] * 1000)
    found.note("  processor: ExaBGP", subject.answer(subject.ask(do="usage"))["processor"][1] - before[1])

    idle = []
    for turn in range(SINGLES):
        move = {"do": "move", "number": turn % FEW, "version": version}
        begun = subject.answer(subject.ask(**move, nodes=[here.name], wait=False))["begun"]
        idle.append((until_hop(router, turn % FEW, hop, version) - begun) * 1000)
        subject.answer(subject.ask(**move, nodes=[there.name]))
    found.note("PorterLB: one change while idle, median", percentile(idle, 0.5))
    found.note("PorterLB: one change while idle, 99th percentile", percentile(idle, 0.99))

    begun = subject.answer(subject.ask(**{**burst, "do": "remove"}))["begun"]
    found.note("PorterLB: all but 100 withdrawn", (until_count(router, FEW, version) - begun) * 1000)

    # Again, with a VIP that moves during the burst: its path through one node is removed, and one through the other is
    # added
    waits = []
    for turn, delay in enumerate((0.02, 0.1, 0.2)):
        subject.answer(subject.ask(**burst, wait=False))
        time.sleep(delay)
        if count(router, version) == size + FEW:
            break  # the burst has already ended
        move = {"do": "move", "number": turn, "version": version}
        begun = subject.answer(subject.ask(**move, nodes=[here.name], wait=False))["begun"]
        waits.append((until_hop(router, turn, hop, version) - begun) * 1000)
        until_count(router, size + FEW, version)
        subject.answer(subject.ask(**move, nodes=[there.name]))
        if turn < 2:
            subject.answer(subject.ask(**{**burst, "do": "remove"}))
            until_count(router, FEW, version)
    until_count(router, size + FEW, version)
    if waits:
        found.note("PorterLB: one change during the burst, worst", max(waits))


def anchors(lab: Lab, router: Bird, found: Trials, trials: int) -> None:
    """The same number of routes without PorterLB."""
    for _ in range(trials):
        found.note("birdc configure: all in the table", static(router, found.size, found.version))
    if found.version == 4:
        for _ in range(trials):
            gobgp(lab, router, found)


def static(router: Bird, size: int, version: int) -> float:
    """The same number of routes, in a file that BIRD reads."""
    usual = router.render()
    hop = router.v4 if version == 4 else router.v6
    lines = "".join(f"route {prefix(n, version)} via {hop};\n" for n in range(size))
    path = router.files / "bird.conf"
    path.write_text(
        usual.replace("export where source = RTS_BGP", "export all")
        + f"protocol static bench {{ ipv{version};\n{lines}}}\n"
    )
    begun = time.monotonic()
    router.reload()
    took = (until_count(router, size, version, "RTS_STATIC") - begun) * 1000
    path.write_text(usual)
    router.reload()
    until_count(router, 0, version, "RTS_STATIC")
    return took


def gobgp(lab: Lab, router: Bird, found: Trials) -> None:
    """GoBGP on the other node, fed with an MRT file of IPv4 routes."""
    node, size = lab.nodes[1], found.size
    files = router.files
    control = files / "feed.sock"
    control.unlink(missing_ok=True)
    (files / "feed.toml").write_text(
        f'[global.config]\n  as = {NODES_AS}\n  router-id = "{node.v4}"\n  port = -1\n[[neighbors]]\n'
        f'  [neighbors.config]\n    neighbor-address = "{router.v4}"\n    peer-as = {router.config.asn}\n'
        "  [neighbors.timers.config]\n    connect-retry = 1\n    idle-hold-time-after-reset = 1\n"
        '  [[neighbors.afi-safis]]\n    [neighbors.afi-safis.config]\n      afi-safi-name = "ipv4-unicast"\n'
    )
    (files / "feed.mrt").write_bytes(mrt(size, node.v4))
    options = ["-f", str(files / "feed.toml"), "-t", "toml", "--api-hosts", f"unix://{control}", "--pprof-disable"]
    daemon = node.start("gobgpd", ["gobgpd", *options])
    try:
        router.wait_established({node.v4}, 30)
        argv = ["gobgp", "--target", f"unix://{control}"]
        begun = time.monotonic()
        node.run([*argv, "mrt", "inject", "global", str(files / "feed.mrt")])
        found.note("GoBGP: all in the table", (until_count(router, size) - begun) * 1000)
        begun = time.monotonic()
        node.run([*argv, "global", "rib", "add", prefix(size, 4), "nexthop", node.v4])
        found.note("GoBGP: one more while idle", (until_hop(router, size, node.v4) - begun) * 1000)
        found.note("GoBGP: memory (MB)", resident_bytes(daemon.pid) / 2**20)
    finally:
        daemon.close()
    until_count(router, 0)


def mrt(size: int, hop: str) -> bytes:
    """A TABLE_DUMP_V2 file (RFC 6396) with `size` prefixes."""

    def record(subtype: int, body: bytes) -> bytes:
        return struct.pack("!IHHI", 0, 13, subtype, len(body)) + body

    address = IPv4Address(hop).packed
    peers = address + struct.pack("!HH", 0, 1) + bytes([2]) + address + address + struct.pack("!I", NODES_AS)
    attributes = bytes([0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4]) + address
    entry = struct.pack("!HHIH", 1, 0, 0, len(attributes)) + attributes
    # `gobgp mrt inject` ends without sending the rest of its queue of 1,024: repeat the first prefix to fill the queue
    numbers = [*range(size), *[0] * 3000]
    table = (
        record(2, struct.pack("!IB", at, 32) + IPv4Address(vip(number, 4)).packed + entry)
        for at, number in enumerate(numbers)
    )
    return record(1, peers) + b"".join(table)


PARTS = {"routes": routes, "speaker": speaker, "next_hop": next_hop, **bgp_racks.PARTS}
