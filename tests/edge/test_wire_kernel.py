"""Answers in the kernel: on real kernels, with what makes them begin and end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lab.frames import who_has
from porterlb.capabilities import Capability
from porterlb.core.ebpf.refusals import Refusal
from tests.edge.wire_lab import PATIENCE, Replica, Segment, resolve, vips

pytestmark = pytest.mark.lab

V4, V6 = "10.77.0.100", "fd77::100"
FRESH = 3.0
"""Seconds for which answers continue after the last sign of life: long, so that the test sees both sides."""


@contextlib.contextmanager
def serving(nodes: int = 1, *, spread: bool = False, **settings: Any) -> Iterator[Segment]:
    made = Segment(nodes)
    try:
        made.start(answers="kernel", **settings)
        names = tuple(host.name for host in made.nodes)
        made.tell(vips=vips((V4, names), (V6, names), **({"takers": names} if spread else {})))
        made.settled()
        for replica in made.replicas.values():
            replica.until(lambda r: r.report.in_kernel == {"eth0": ""}, "the kernel answers")
        yield made
    finally:
        made.close()


def answered(replica: Replica) -> tuple[int, int]:
    """Answers of the kernel and of user space, once they are reported."""
    seen = len(replica.history)
    counted = lambda r: len({str(report.counters) for _, report in r.history[seen:]}) > 2  # noqa: E731
    replica.until(counted, "the counters are reported again")
    counters = replica.report.counters
    by_kernel = counters.get("kernel_answers", 0)
    return by_kernel, counters.get("answers", 0) - by_kernel


def macs(segment: Segment, vip: str) -> list[str]:
    return [answer.mac for answer in who_has(segment.client, vip)]


def loader_of(replica: Replica) -> int:
    return replica.process.find("porterlb.loader")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def capabilities(pid: int) -> set[int]:
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    held = int(status["CapEff"], 16) | int(status["CapPrm"], 16)
    return {bit for bit in range(64) if held >> bit & 1}


def test_the_kernel_answers_and_user_space_knows_what_was_asked() -> None:
    with serving() as segment:
        replica, mac = segment.replicas["n1"], segment.host("n1").mac
        before = answered(replica)
        for vip in (V4, V6):
            assert resolve(segment.client, vip) == (mac, "REACHABLE")
        after = answered(replica)
        assert after[0] >= before[0] + 2 and after[1] == before[1]
        replica.until(lambda r: {V4, V6} <= {str(vip) for vip in r.report.asked}, "the VIPs count as asked for")
        assert capabilities(replica.wire_pid) == {Capability.NET_RAW}
        assert capabilities(loader_of(replica)) == {Capability.BPF, Capability.NET_ADMIN}


def test_a_vip_that_moves_is_answered_by_its_new_node_alone() -> None:
    with serving(2) as segment:
        for names in (("n2", "n1"), ("n1", "n2")):
            wanted = segment.tell(vips=vips((V4, names), (V6, names)))
            for replica in segment.replicas.values():
                replica.until(
                    lambda r, d=wanted.digest, n=names[0]: (
                        r.report.applied == d and all(r.answering[vip].answerer == n for vip in (V4, V6))
                    ),
                    "the VIPs have moved",
                )
            for vip in (V4, V6):
                assert macs(segment, vip) == [segment.host(names[0]).mac]
        wanted = segment.tell(vips={})
        for replica in segment.replicas.values():
            replica.until(lambda r, d=wanted.digest: r.report.applied == d, "no VIP is wanted")
        assert macs(segment, V4) == macs(segment, V6) == []


def test_a_stopped_process_answers_until_its_lease_ends_and_again_after_it_continues() -> None:
    with serving(hello_fresh=FRESH) as segment:
        replica, mac = segment.replicas["n1"], segment.host("n1").mac
        pid = replica.wire_pid
        os.kill(pid, signal.SIGSTOP)
        stopped = time.monotonic()
        try:
            assert macs(segment, V4) == macs(segment, V6) == [mac]  # only the kernel can have answered
            assert time.monotonic() < stopped + FRESH, "the machine was too slow for this test"
            time.sleep(max(0.0, stopped + FRESH + 0.05 - time.monotonic()))
            assert macs(segment, V4) == macs(segment, V6) == []
        finally:
            os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE
        while macs(segment, V4) != [mac]:
            assert time.monotonic() < deadline


def test_nothing_answers_after_the_process_was_killed() -> None:
    with serving(hello_fresh=FRESH) as segment:
        replica = segment.replicas["n1"]
        loader = loader_of(replica)
        replica.process.signal(signal.SIGSTOP)  # the manager must not start another process
        try:
            os.kill(replica.wire_pid, signal.SIGKILL)
            deadline = time.monotonic() + 1.0
            while not gone(loader):
                assert time.monotonic() < deadline, "the loader outlives the wire process"
                time.sleep(0.01)
            assert macs(segment, V4) == macs(segment, V6) == []
            assert time.monotonic() < deadline + 1.0 < deadline - 1.0 + FRESH, "the lease must not have ended"
        finally:
            replica.process.signal(signal.SIGCONT)
        replica.until(lambda r: r.report.restarts == 1 and r.report.in_kernel == {"eth0": ""}, "it starts again")
        mac = segment.host("n1").mac
        deadline = time.monotonic() + PATIENCE
        while macs(segment, V4) != [mac]:
            assert time.monotonic() < deadline


def test_without_the_loader_the_kernel_continues_and_user_space_answers_on_interfaces_that_return() -> None:
    with serving() as segment:
        replica, mac = segment.replicas["n1"], segment.host("n1").mac
        os.kill(loader_of(replica), signal.SIGKILL)
        before = answered(replica)
        assert macs(segment, V4) == [mac] and answered(replica)[0] > before[0]
        segment.net.carrier("n1", False)
        replica.until(lambda r: r.report.in_kernel == {}, "the interface is closed")
        segment.net.carrier("n1", True)
        replica.until(lambda r: r.report.in_kernel == {"eth0": Refusal.NO_LOADER}, "the loader is missing")
        deadline = time.monotonic() + PATIENCE
        while macs(segment, V4) != [mac]:
            assert time.monotonic() < deadline


def test_answers_stop_at_the_end_of_a_hand_over() -> None:
    with serving() as segment:
        replica = segment.replicas["n1"]
        pid = replica.wire_pid
        replica.stop()
        deadline = time.monotonic() + PATIENCE
        while not gone(pid):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert macs(segment, V4) == macs(segment, V6) == []


def test_hosts_with_next_hops_of_their_own_are_answered_by_user_space() -> None:
    with serving(2, spread=True) as segment:
        before = {name: answered(replica) for name, replica in segment.replicas.items()}
        for vip in (V4, V6):
            assert resolve(segment.client, vip)[1] == "REACHABLE"
        after = {name: answered(replica) for name, replica in segment.replicas.items()}
        assert all(after[name][0] == before[name][0] for name in after)
        assert sum(after[name][1] - before[name][1] for name in after) >= 2


@pytest.mark.parametrize(
    ("bounds", "why"),
    [("-all,+net_raw", Refusal.NO_CAPABILITY), ("-all,+net_raw,+net_admin,+bpf", "")],
    ids=["without", "with"],
)
def test_the_capabilities_decide_who_answers(bounds: str, why: str) -> None:
    segment = Segment(1)
    try:
        prefix = ("setpriv", "--bounding-set", bounds, "--inh-caps", "-all")
        replica = segment.replicas["n1"] = Replica(segment.host("n1"), prefix=prefix, answers="kernel")
        replica.want(replace(segment.wanted, vips=vips((V4, ("n1",)))))
        replica.until(lambda r: V4 in r.answering and r.answering[V4].answerer == "n1", "it answers")
        replica.until(lambda r: r.report.in_kernel == {"eth0": why}, "the kernel answers, or why it does not")
        assert macs(segment, V4) == [segment.host("n1").mac]
        assert ("this process answers, not the kernel" in replica.process.output()) == bool(why)
        assert (answered(replica)[0] > 0) != bool(why)
    finally:
        segment.close()
