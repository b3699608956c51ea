"""A steady stream of small requests to VIPs and their results: the lab's measure of an interruption.

Each *flow* (one VIP from one UDP source port, and therefore one path through ECMP routers) sends a request every
`interval`.

**Gap**: a run of lost requests of one flow lasts from the sending of the first lost request to the sending of the next
answered one. Without a loss there is no gap, even if an answer is late. An outage of D appears as D plus or minus one
interval. The worst gap is the longest of any flow: if one of three ECMP next hops dies, its gap counts in full.
"""

from __future__ import annotations

import json
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.host import Host
from lab.netns import LabError
from lab.process import Process

STREAMER = Path(__file__).with_name("streamer.py")
ECHO_PORT = 7


@dataclass(frozen=True)
class Gap:
    """A run of lost requests. `begin` is on this machine's monotonic clock (``time.monotonic()``), in seconds."""

    target: str
    flow: int
    begin: float
    length_ms: float
    lost: int


@dataclass(frozen=True)
class Report:
    """The result of a stream, for all flows or for those to one VIP (`only`).

    `sender_stall_ms` is the longest delay of the lab's own sender: it indicates a busy machine, not the network under
    test. `pods` counts answers by pod. `changes` has (monotonic time, flow, pod) for each change of the pod that
    answers a flow.
    """

    sent: int
    received: int
    gaps: tuple[Gap, ...]
    max_rtt_ms: float
    sender_stall_ms: float
    pods: dict[str, int]
    changes: tuple[tuple[float, int, str], ...]
    flows: tuple[dict[str, Any], ...]
    begun: float
    ended: float
    interval_ms: float

    @property
    def lost(self) -> int:
        return self.sent - self.received

    @property
    def worst(self) -> Gap | None:
        return max(self.gaps, key=lambda gap: gap.length_ms, default=None)

    @property
    def worst_gap_ms(self) -> float:
        """The longest gap of any flow; 0 if no request was lost."""
        return self.worst.length_ms if self.worst else 0.0

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, lost {self.lost}, worst gap {self.worst_gap_ms:.0f} ms, "
            f"longest answer {self.max_rtt_ms:.1f} ms, pods {self.pods}"
        )

    def only(self, target: str) -> Report:
        """The report of one VIP's flows."""
        return _report(self._raw([flow for flow in self.flows if flow["target"] == target]))

    def since(self, moment: float) -> tuple[Gap, ...]:
        """Gaps that began at `moment` (monotonic seconds) or later."""
        return tuple(gap for gap in self.gaps if gap.begin >= moment)

    def _raw(self, flows: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "flows": flows,
            "begun": self.begun,
            "ended": self.ended,
            "interval_ms": self.interval_ms,
            "sender_stall_ms": self.sender_stall_ms,
        }


def _report(raw: dict[str, Any]) -> Report:
    flows = raw["flows"]
    pods: dict[str, int] = {}
    for flow in flows:
        for pod, count in flow["pods"].items():
            pods[pod] = pods.get(pod, 0) + count
    return Report(
        sent=sum(flow["sent"] for flow in flows),
        received=sum(flow["received"] for flow in flows),
        gaps=tuple(
            Gap(flow["target"], number, begin, length * 1000, lost)
            for number, flow in enumerate(flows)
            for begin, length, lost in flow["gaps"]
        ),
        max_rtt_ms=max((flow["max_rtt_ms"] for flow in flows), default=0.0),
        sender_stall_ms=raw["sender_stall_ms"],
        pods=pods,
        changes=tuple(sorted((when, n, pod) for n, flow in enumerate(flows) for when, pod in flow["changes"])),
        flows=tuple(flows),
        begun=raw["begun"],
        ended=raw["ended"],
        interval_ms=raw["interval_ms"],
    )


class Stream:
    """Runs from construction until `report` is called or the ``with`` block ends.

    Args:
        host: the machine that sends.
        targets: VIPs, of either family.
        interval: seconds between two requests of one flow.
        flows: source ports per target; more than one to use several ECMP next hops.
        port: UDP port of the echo service.
        duration: seconds after which it ends automatically.
        linger: seconds that it waits for late answers at the end.
    """

    def __init__(
        self,
        host: Host,
        targets: list[str],
        *,
        interval: float = 0.001,
        flows: int = 1,
        port: int = ECHO_PORT,
        duration: float = 120.0,
        linger: float = 0.3,
    ) -> None:
        options = {
            "targets": targets,
            "interval": interval,
            "flows": flows,
            "port": port,
            "duration": duration,
            "linger": linger,
        }
        argv = [sys.executable, "-I", "-S", str(STREAMER), json.dumps(options)]
        self.process: Process = host.start("stream", argv, pipes=True)
        self._report: Report | None = None
        self._linger = linger
        self._line(10.0)  # "started"

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.report()
        else:
            self.process.close()

    def report(self) -> Report:
        """Ends the sending (the first time) and returns the result."""
        if self._report is None:
            assert self.process.popen.stdin is not None
            self.process.popen.stdin.close()
            self._report = _report(json.loads(self._line(self._linger + 20.0)))
            self.process.wait(10.0)
            self.process.close()
        return self._report

    def _line(self, timeout: float) -> bytes:
        out = self.process.popen.stdout
        assert out is not None
        if not select.select([out], [], [], timeout)[0]:
            raise LabError(f"the stream did not answer within {timeout} s; log: {self.process.log}")
        line = out.readline()
        if not line:
            raise LabError(f"the stream has died: {self.process.output()[-1000:]}")
        return line
