"""BGP: from a plan to the router's table, next to the router's own static routes and GoBGP, in the same run.

The router is BIRD with its kernel table, as in the lab. ``in the table`` is the time at which BIRD's RIB has all
routes. The RIB is queried every 10 ms (every 0.5 ms for single routes) on its control socket. PorterLB's side is the
planner and the BGP speaker with an unmodified ExaBGP in a separate process (bench/bgp_feed.py). The time counts from
the start of the plan.
"""

from __future__ import annotations

import json
import select
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Any

from bench import bgp_racks
from bench.bgp_gaps import next_hop
from bench.report import Table, percentile
from bench.usage import resident_bytes
from lab.cluster import CHECKOUT, Lab
from lab.netns import LabError
from lab.node import Node
from lab.process import Process
from lab.routers import NODES_AS, Session
from lab.routers.bird import Bird

BASE = int(IPv4Address("172.16.0.0"))
FEW = 100  # VIPs that exist before a burst
PATIENCE = 120.0  # seconds


class Subject:
    """Runs bench/bgp_feed.py on a node."""

    def __init__(self, lab: Lab, node: Node, folder: str) -> None:
        options = {
            "node": node.name,
            "others": [],
            "nodes": {each.name: each.v4 for each in lab.nodes},
            "router": lab.router.v4,
            "as": lab.router.config.asn,
            "afiSafis": [
                {
                    "config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}},
                    "addPaths": {"config": {"sendMax": 8}},
                }
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


def count(router: Bird, source: str) -> int:
    """The number of routes in BIRD's table from this source."""
    return int(router.birdc(f"show route table master4 where source = {source} count").split()[0])


def until_count(router: Bird, wanted: int, source: str = "RTS_BGP") -> float:
    """Waits until BIRD has `wanted` routes. Returns the time."""
    deadline = time.monotonic() + PATIENCE
    while (seen := count(router, source)) != wanted:
        if time.monotonic() > deadline:
            raise LabError(f"BIRD has {seen} routes, not {wanted}, after {PATIENCE:.0f} s")
        time.sleep(0.01)  # each query scans the whole table
    return time.monotonic()


def until_hop(router: Bird, number: int, hop: str | None) -> float:
    """Waits until BIRD has a route to this VIP through this node (None: no route). Returns the time."""
    question = f"show route {IPv4Address(BASE + number)}/32 table master4"
    deadline = time.monotonic() + PATIENCE
    while (said := router.birdc(question)) is not None:
        if (hop is None and "via" not in said) or (hop is not None and f"via {hop} " in said):
            return time.monotonic()
        if time.monotonic() > deadline:
            raise LabError(f"BIRD did not take the change of VIP {number} in {PATIENCE:.0f} s: {said}")
        time.sleep(0.0005)
    raise AssertionError


def routes(quick: bool) -> Table:
    """All measurements with 1,000 and with 10,000 VIPs."""
    sizes = (1000,) if quick else (1000, 10_000)
    table = Table(
        "BGP: from a plan to BIRD's table (milliseconds)",
        ["", *(f"{size:,} VIPs" for size in sizes), "target"],
    )
    found = {size: measure(size, trials=1 if quick else 3) for size in sizes}
    targets = {
        "PorterLB: all in the table": "1,000 (10,000 VIPs)",
        "PorterLB: one change during the burst, worst": "100",
        "memory of planner + speaker + ExaBGP (MB)": "250 (whole manager)",
    }
    for name in found[sizes[-1]]:
        table.rows.append([name, *(worst(found[size][name]) for size in sizes), targets.get(name, "")])
    table.notes = [
        "The worst of the trials; single figures are in the JSON. One next hop each, so one path a prefix.",
        "GoBGP: `gobgp mrt inject` of one file. birdc: `configure` with the routes as static ones, no BGP in between.",
    ]
    table.raw = {str(size): each for size, each in found.items()}
    return table


def worst(figures: list[float]) -> float:
    return max(figures)


def measure(size: int, trials: int) -> Mapping[str, list[float]]:
    """Figures by name, one per trial."""
    found: dict[str, list[float]] = {}

    def note(name: str, figure: float) -> None:
        found.setdefault(name, []).append(figure)

    with Lab(nodes=2, routers=["bird"], pods=0) as lab, tempfile.TemporaryDirectory() as folder:
        router = lab.router
        assert isinstance(router, Bird)
        sessions = tuple(
            Session(node.name, node.v4, graceful_restart=False, add_path=node.name == "node-a") for node in lab.nodes
        )
        router.reconfigure(type(router.config)(sessions))
        subject = Subject(lab, lab.nodes[0], folder)
        subject.up()
        here, there = lab.nodes[0], lab.nodes[1]
        subject.answer(subject.ask(do="add", to=FEW, nodes=[there.name]))
        until_count(router, FEW)
        for trial in range(trials):
            if trial:  # otherwise, the routes of the previous trial still exist, and nothing is measured
                subject.answer(subject.ask(do="remove", **{"from": FEW, "to": FEW + size}))
            until_count(router, FEW)
            porterlb(subject, router, size, note, (here, there))
        memory = subject.answer(subject.ask(do="memory"))
        note("memory of planner + speaker + ExaBGP (MB)", memory["own"] + memory["exabgp"])
        note("  of which ExaBGP (MB)", memory["exabgp"])
        note("PorterLB: sent again after the session was reset", flap(subject, router, size))
        begun = subject.answer(subject.ask(do="remove", to=size + FEW))["begun"]
        note("PorterLB: all withdrawn", (until_count(router, 0) - begun) * 1000)
        subject.process.close()
        for _ in range(trials):
            note("birdc configure: all in the table", static(router, size))
        for _ in range(trials):
            gobgp(lab, router, size, note)
    return found


def porterlb(
    subject: Subject, router: Bird, size: int, note: Callable[[str, float], None], nodes: tuple[Node, Node]
) -> None:
    """All routes are added at once; then single changes while idle; then all but a few are removed; then all are added
    again with a change during the burst."""
    here, there = nodes
    burst = {"do": "add", "from": FEW, "to": FEW + size, "nodes": [there.name]}
    first = subject.ask(**burst)
    said = subject.answer(first)
    note("PorterLB: all in the table", (until_count(router, size + FEW) - said["begun"]) * 1000)
    note("  of which planning", said["planning"] * 1000)

    idle = []
    for number in range(20):
        asked = subject.ask(do="move", number=number, nodes=[here.name], wait=False)
        begun = subject.answer(asked)["begun"]
        idle.append((until_hop(router, number, here.v4) - begun) * 1000)
        subject.answer(subject.ask(do="move", number=number, nodes=[there.name]))
    note("PorterLB: one change while idle, median of 20", percentile(idle, 0.5))
    note("PorterLB: one change while idle, worst of 20", max(idle))

    begun = subject.answer(subject.ask(**{**burst, "do": "remove"}))["begun"]
    note("PorterLB: all but 100 withdrawn", (until_count(router, FEW) - begun) * 1000)

    # Again, with a VIP that moves during the burst: its path through one node is removed, and one through the other is
    # added
    waits = []
    for turn, delay in enumerate((0.02, 0.1, 0.2)):
        asked = subject.ask(**burst, wait=False)
        subject.answer(asked)
        time.sleep(delay)
        if count(router, "RTS_BGP") == size + FEW:
            break  # the burst has already ended
        asked = subject.ask(do="move", number=turn, nodes=[here.name], wait=False)
        begun = subject.answer(asked)["begun"]
        waits.append((until_hop(router, turn, here.v4) - begun) * 1000)
        until_count(router, size + FEW)
        subject.answer(subject.ask(do="move", number=turn, nodes=[there.name]))
        if turn < 2:
            subject.answer(subject.ask(**{**burst, "do": "remove"}))
            until_count(router, FEW)
    until_count(router, size + FEW)
    if waits:
        note("PorterLB: one change during the burst, worst", max(waits))


def flap(subject: Subject, router: Bird, size: int) -> float:
    """The time in ms from the session's return until BIRD has all routes again."""
    router.birdc(f"restart {router.config.sessions[0].label}")
    since = subject.up()
    return (until_count(router, size + FEW) - since) * 1000


def static(router: Bird, size: int) -> float:
    """The same number of routes, in a file that BIRD reads."""
    usual = router.render()
    lines = "".join(f"route {IPv4Address(BASE + n)}/32 via {router.v4};\n" for n in range(size))
    path = router.files / "bird.conf"
    path.write_text(
        usual.replace("export where source = RTS_BGP", "export all") + f"protocol static bench {{ ipv4;\n{lines}}}\n"
    )
    begun = time.monotonic()
    router.reload()
    took = (until_count(router, size, "RTS_STATIC") - begun) * 1000
    path.write_text(usual)
    router.reload()
    until_count(router, 0, "RTS_STATIC")
    return took


def gobgp(lab: Lab, router: Bird, size: int, note: Callable[[str, float], None]) -> None:
    """GoBGP on the other node, fed with an MRT file."""
    node = lab.nodes[1]
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
        note("GoBGP: all in the table", (until_count(router, size) - begun) * 1000)
        begun = time.monotonic()
        node.run([*argv, "global", "rib", "add", f"{IPv4Address(BASE + size)}/32", "nexthop", node.v4])
        note("GoBGP: one more while idle", (until_hop(router, size, node.v4) - begun) * 1000)
        note("GoBGP: memory (MB)", resident_bytes(daemon.pid) / 2**20)
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
        record(2, struct.pack("!IB", at, 32) + IPv4Address(BASE + number).packed + entry)
        for at, number in enumerate(numbers)
    )
    return record(1, peers) + b"".join(table)


PARTS = {"routes": routes, "next_hop": next_hop, **bgp_racks.PARTS}
