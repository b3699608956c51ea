"""The wire process alone: its answer latency, the cost of its probes and hellos, and the duration of a burst."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, ip_address, ip_interface
from typing import Any

from bench.report import Table, percentile
from bench.usage import processor_seconds
from lab.cluster import CHECKOUT
from lab.frames import arp_request
from lab.host import Host
from lab.measure import wait_until
from porterlb.core.hello import Hello, encode
from porterlb.core.model import Member
from porterlb.settings import PROFILES
from porterlb.wire import packet
from tests.edge.wire_lab import KEY, Segment, vips

FIRST4, FIRST6 = "10.99.0.0", "fd99::1:0"


@contextlib.contextmanager
def segment(nodes: int, names: tuple[str, ...] = (), **settings: Any) -> Iterator[Segment]:
    """A segment with wire processes on these nodes (default: all)."""
    made = Segment(nodes=nodes)
    try:
        made.start(names, **settings)
        yield made
    finally:
        made.close()


def give(made: Segment, first: str, count: int, candidates: tuple[str, ...]) -> None:
    """Makes `count` addresses VIPs, replacing the previous ones, and waits until all have been taken over."""
    start = ip_address(first)
    rows = [(str(start + number), candidates) for number in range(count)]
    wanted = made.tell(vips=vips(*rows, interface="eth0"))
    for replica in made.replicas.values():
        replica.until(lambda r: r.report.applied == wanted.digest, "the VIPs are taken over", 60.0 + count / 1000)
    owner = made.replicas[candidates[0]]
    owner.until(lambda r: all(r.answering.get(text) for text, _ in rows), "all are answered", 60.0 + count / 1000)


def ask(client: Host, mode: str, priority: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    """Runs bench.load on a client, behind the command ``priority``."""
    given = {"mode": mode, "mac": client.mac, "v4": client.v4, "v6": client.v6, **options}
    done = client.ns.run(
        [*priority, "env", f"PYTHONPATH={CHECKOUT}", sys.executable, "-m", "bench.load", json.dumps(given)],
        timeout=120.0,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


RESPONDERS: Mapping[str, str] = {"userspace": "PorterLB", "kernel": "PorterLB in the kernel"}
"""By the setting ``answers``."""

HOGS = 16


def answers(quick: bool) -> Table:
    """Answers of the wire process."""
    return _answers("userspace", (1, 1000, 10_000), quick)


def in_kernel(quick: bool) -> Table:
    """Answers of the kernel in place of the wire process (``--answers kernel``)."""
    return _answers("kernel", (1, 10_000) if quick else (1, 1000, 10_000, 100_000), quick)


def _answers(setting: str, sizes: tuple[int, ...], quick: bool) -> Table:
    """Latency of single answers, and the answered share of a flood, next to the kernel's own answers."""
    table = Table(
        f"Answers ({setting}): beside the kernel's own, on the same machine at the same time",
        ("who answers", "median µs", "p99 µs", "lost of singles", "flood sent/s", "answered %"),
        notes=["flood: 2 s at 100,000 questions/s wanted, of one client, answers counted by its kernel"],
    )
    count, seconds = (1000, 0.5) if quick else (10_000, 2.0)

    def row(name: str, first: str, addresses: int, client: Host) -> None:
        single = _singles(client, first, addresses, count)
        flood = ask(client, "flood", rate=100_000, seconds=seconds, first=first, count=addresses)
        figures = single["microseconds"]
        table.rows.append(
            (
                name,
                percentile(figures, 0.5),
                percentile(figures, 0.99),
                single["lost"],
                round(flood["rate"]),
                100.0 * flood["answered"] / max(1, flood["sent"]),
            )
        )
        table.raw[name] = {
            "flood": flood,
            "lost": single["lost"],
            "microseconds": sorted(figures)[:: max(1, count // 1000)],
        }

    responder = RESPONDERS[setting]
    with _responding(setting) as made:
        host, client = made.host("n1"), made.client
        for family, own, first in (("ARP", host.v4, FIRST4), ("NDP", host.v6, FIRST6)):
            row(f"kernel, {family}, its own address", own, 1, client)
            for many in sizes:
                give(made, first, many, ("n1",))
                time.sleep(0.5)
                row(f"{responder}, {family}, {many:,} VIPs", first, many, client)
            # The cost of PorterLB's VIPs for the kernel: it would search all their groups if it were a member
            row(f"kernel, {family}, its own address beside them", own, 1, client)
        limit = ask(client, "flood", rate=10_000_000, seconds=seconds, first="10.98.0.0", count=1000)
    table.notes.append(f"the generator's own limit, towards addresses of nobody: {limit['rate']:,.0f}/s")
    table.raw["limit"] = limit
    for figure in ("median", "p99"):
        table.add_ratio(f"{figure} / kernel's", f"{figure} µs", "who answers", kernel)
    return table


def kernel(name: str) -> str:
    """The kernel's answers for its own address, in the same run and of the same family."""
    who, family, *_ = name.split(", ")
    return f"kernel, {family}, its own address" if who in RESPONDERS.values() else ""


def busy(quick: bool) -> Table:
    """Latency of single answers while all processors are busy. The client has a higher priority than the busy
    processes, the replica has not."""
    table = Table(
        f"Answers beside {HOGS} busy processes",
        ("who answers", "median µs", "p99 µs", "lost of singles"),
    )
    count = 1000 if quick else 5000
    for setting, responder in RESPONDERS.items():
        with _responding(setting) as made:
            give(made, FIRST4, 1000, ("n1",))
            hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(HOGS)]
            try:
                for name, first, addresses in (
                    ("kernel, ARP, its own address", made.host("n1").v4, 1),
                    (f"{responder}, ARP, 1,000 VIPs", FIRST4, 1000),
                ):
                    single = _singles(made.client, first, addresses, count, priority=("chrt", "-f", "10"))
                    figures = single["microseconds"]
                    table.rows.append((name, percentile(figures, 0.5), percentile(figures, 0.99), single["lost"]))
                    table.raw[f"{setting}: {name}"] = sorted(figures)[:: max(1, count // 1000)]
            finally:
                for hog in hogs:
                    hog.kill()
                    hog.wait()
    return table


@contextlib.contextmanager
def _responding(setting: str) -> Iterator[Segment]:
    """A segment with one replica whose answers come from the kernel or from user space. Announcements must not be
    counted as answers."""
    with segment(1, gratuitous_rate=1, answers=setting) as made:
        expected = {"eth0": ""} if setting == "kernel" else {}
        made.replicas["n1"].until(lambda r: r.report.in_kernel == expected, "the kernel answers, or is not asked")
        yield made


def _singles(client: Host, first: str, addresses: int, count: int, priority: tuple[str, ...] = ()) -> dict[str, Any]:
    """Asks one question at a time, after a warm-up."""
    options: dict[str, Any] = {"first": first, "count": addresses, "priority": priority}
    ask(client, "latency", questions=200, **options)
    return ask(client, "latency", questions=count, **options)


def cost(quick: bool) -> Table:
    """The cost of probing and hellos for one replica among N nodes with a replica each."""
    table = Table(
        "Cost of probing and hello, per replica",
        ("nodes", "profile", "% of a processor", "probes/s", "hellos/s in + out", "deaths declared"),
        notes=["the other nodes are addresses of one kernel, their hellos come from one process at the profile's pace"],
    )
    seconds = 3.0 if quick else 10.0
    for nodes in (3, 10, 100):
        for profile in ("default", "fast"):
            settings = dict(PROFILES[profile])
            with (
                segment(2, ("n1",), **settings) as made,
                _crowd(made, nodes - 1, float(settings.get("hello_interval", 0.05))),
            ):
                replica = made.replicas["n1"]
                replica.until(lambda r, n=nodes: len(r.report.fresh) == n - 1, "everybody is fresh", 20.0)  # type: ignore[misc]
                time.sleep(2.5)
                before, used = dict(replica.report.counters), processor_seconds(replica.wire_pid)
                begun = time.monotonic()
                time.sleep(seconds)
                elapsed = time.monotonic() - begun
                used = processor_seconds(replica.wire_pid) - used
                after = replica.report.counters

                rates = {name: (after.get(name, 0) - before.get(name, 0)) / elapsed for name in after}
                table.rows.append(
                    (
                        nodes,
                        profile,
                        100 * used / elapsed,
                        round(rates.get("probes", 0)),
                        round(rates.get("hellos_heard", 0) + rates.get("hellos_sent", 0)),
                        after.get("deaths", 0),
                    )
                )
    return table


@contextlib.contextmanager
def _crowd(made: Segment, others: int, interval: float) -> Iterator[None]:
    """Host n2 acts as `others` nodes with replicas: its kernel answers for their addresses, a thread sends hellos."""
    host, own = made.host("n2"), made.host("n1")
    addresses = [f"10.77.1.{number}" for number in range(1, others + 1)]
    own.ns.ip("address add 10.77.1.250/24 dev eth0")
    host.ns.ip(*(f"address add {address}/24 dev eth0" for address in addresses))
    names = [f"crowd-{number}" for number in range(1, others + 1)]
    members = {
        name: Member(name, address, 7473, 1, (ip_interface(f"{address}/24"),))
        for name, address in zip(names, addresses, strict=True)
    }
    made.tell(
        members={"n1": made.wanted.members["n1"], **members},
        nodes={name: (ip_address(address),) for name, address in zip(names, addresses, strict=True)},
    )
    end = threading.Event()
    sock = host.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def talk() -> None:
        due = time.monotonic()
        while not end.is_set():
            for name in names:
                data = encode(Hello(name, 1, time.monotonic_ns(), leader="n1", answers=True), KEY)
                sock.sendto(data, (own.v4, 7473))
            due = max(due + interval, time.monotonic() - interval)
            end.wait(max(0.0, due - time.monotonic()))

    thread = threading.Thread(target=talk, name="bench-crowd", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(5.0)
        sock.close()


def burst(quick: bool) -> Table:
    """A node with many VIPs dies. Measures the time until another node has announced the last VIP, and the last of
    those that a client had asked for: a tenth of them all."""
    table = Table(
        "Gratuitous burst: the next hop of all VIPs is cut off",
        ("VIPs", "rate allowed/s", "first after ms", "last asked for", "half", "last", "announced"),
        notes=[
            "from the cut of the cable until a client has received the first announcement of a VIP by its new node",
            "last asked for: a client asked for one VIP in ten shortly before",
        ],
    )
    for count in (300, 1000) if quick else (300, 1000, 10_000):
        for rate in (2000, 100_000):
            with segment(3, gratuitous_rate=rate) as made:
                made.settled()
                give(made, FIRST4, count, ("n2", "n1", "n3"))
                time.sleep(1.0)
                wait_until(lambda: _quiet(made.client), 30.0, "the announcements of the start to end")
                asked = _ask_lately(made.client, range(0, count, 10))
                found = _burst(made, count, patience=3.0 + 2.5 * count / rate)
                seen = sorted(found.values())
                # Infinite if one of them was not announced
                of_asked = max(found.get(number, float("inf")) for number in asked)
                times = (seen[0], of_asked, percentile(seen, 0.5), seen[-1]) if seen else (of_asked,) * 4
                table.rows.append((count, rate, *(1000 * second for second in times), len(seen)))
                table.raw[f"{count} at {rate}"] = seen[:: max(1, len(seen) // 300)]
    return table


def _listen(client: Host) -> socket.socket:
    return client.ns.call(lambda: packet.open_socket("eth0", packet.ETHERTYPE_ARP, packet.arp_program(1)))


def _quiet(client: Host) -> bool:
    """Whether no gratuitous ARP arrives for 1.5 s."""
    end = time.monotonic() + 1.5
    with _listen(client) as sock:
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                frame = sock.recv(256)
                if frame[28:32] == frame[38:42]:
                    return False
                continue
            time.sleep(0.01)
    return True


def _ask_lately(client: Host, numbers: range) -> range:
    """Broadcasts an ARP request for these VIPs, counted from the first one, and waits for two reports."""
    base = IPv4Address(FIRST4)
    with _listen(client) as sock:
        for number in numbers:
            sock.send(arp_request(client.nics[0].mac, client.nics[0].v4, base + number))
            time.sleep(0.001)
    time.sleep(2.0)
    return numbers


def _burst(made: Segment, count: int, patience: float) -> dict[int, float]:
    """The VIPs, counted from the first one, and the seconds after the cut at which each was first announced."""
    seen: dict[int, float] = {}
    base = int(IPv4Address(FIRST4))
    with _listen(made.client) as sock:
        cut = time.monotonic()
        made.net.carrier("n2", False)
        while len(seen) < count and time.monotonic() < cut + patience:
            try:
                frame = sock.recv(256)
            except BlockingIOError:
                time.sleep(0.0005)
                continue
            number = struct.unpack("!I", frame[38:42])[0] - base
            if frame[28:32] == frame[38:42] and 0 <= number < count:
                seen.setdefault(number, time.monotonic() - cut)
    return seen
