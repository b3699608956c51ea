"""The program behind `lab.stream`: ``streamer.py '{"targets": [...], ...}'``. Standard library only.

Sends numbered UDP requests at a steady rate and records when each was sent and answered, all on one monotonic clock.
Prints ``started``, sends until stdin closes or the duration is over, waits for late answers, and prints a JSON report.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import struct
import sys
import time
from typing import Any

NUMBER = struct.Struct("!Q")


class Flow:
    """One target from one source port: the send time of each request, its answer time, and the pod that answered."""

    def __init__(self, target: str, port: int, offset: float) -> None:
        self.target = target
        self.due = offset
        self.sent: list[float] = []
        self.answered: list[float] = []  # 0.0 until there is an answer
        self.pods: dict[str, int] = {}
        self.last_pod = ""
        self.changes: list[tuple[float, str]] = []  # (send time, pod) for each change of the pod
        self.send_errors = 0
        self.sock = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.address = (target, port)
        self.sock.bind(("", 0))

    def send(self, now: float) -> None:
        number = len(self.sent)
        self.sent.append(now)
        self.answered.append(0.0)
        try:
            self.sock.sendto(NUMBER.pack(number), self.address)
        except OSError:  # no route, no neighbor, buffer full: counted as any other lost request
            self.send_errors += 1

    def receive(self) -> None:
        while True:
            try:
                data = self.sock.recv(2048)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an earlier request
                continue
            now = time.monotonic()
            if len(data) < NUMBER.size:
                continue
            (number,) = NUMBER.unpack_from(data)
            if number >= len(self.sent) or self.answered[number]:
                continue
            self.answered[number] = now
            pod = data[NUMBER.size :].decode(errors="replace")
            self.pods[pod] = self.pods.get(pod, 0) + 1
            if pod != self.last_pod:
                self.last_pod = pod
                self.changes.append((self.sent[number], pod))

    def gaps(self) -> list[tuple[float, float, int]]:
        """(begin, length, lost requests) of each run of lost requests, in seconds: from the sending of the first lost
        request to the sending of the next answered one (or, at the end, of the last sent one)."""
        found = []
        begun, lost = 0.0, 0
        for sent, answered in zip(self.sent, self.answered, strict=True):
            if answered:
                if lost:
                    found.append((begun, sent - begun, lost))
                lost = 0
            else:
                begun = begun if lost else sent
                lost += 1
        if lost:
            found.append((begun, self.sent[-1] - begun, lost))
        return found

    def report(self) -> dict[str, Any]:
        trips = [a - s for s, a in zip(self.sent, self.answered, strict=True) if a]
        return {
            "target": self.target,
            "source_port": self.sock.getsockname()[1],
            "sent": len(self.sent),
            "received": len(trips),
            "gaps": self.gaps(),
            "max_rtt_ms": max(trips, default=0.0) * 1000,
            "pods": self.pods,
            "changes": self.changes,
            "send_errors": self.send_errors,
        }


def run(options: dict[str, Any]) -> dict[str, Any]:
    interval = float(options["interval"])
    count = int(options["flows"])
    total = count * len(options["targets"])
    begun = time.monotonic()
    flows = [
        Flow(target, int(options["port"]), begun + interval * i / total)  # spread over the interval, not in bursts
        for i, target in enumerate(t for t in options["targets"] for _ in range(count))
    ]
    by_fd = {flow.sock.fileno(): flow for flow in flows}
    poll = select.epoll()
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    until = begun + float(options["duration"])
    watched: list[Any] = [poll, sys.stdin]
    print("started", flush=True)
    stall = 0.0
    queue = list(flows)
    position = 0
    while True:
        flow = queue[position]
        now = time.monotonic()
        if now >= flow.due:
            if now >= until:
                break
            stall = max(stall, now - flow.due)
            flow.send(now)
            # After a stall of this process, the missed turns are skipped, not sent in a burst
            flow.due = max(flow.due + interval, now + interval / 2)
            position = (position + 1) % total
            ready = select.select(watched, [], [], 0)[0] if position == 0 or interval > 0.01 else [poll]
        else:
            ready = select.select(watched, [], [], flow.due - now)[0]
        if poll in ready:
            for fd, _ in poll.poll(0):
                by_fd[fd].receive()
        if sys.stdin in ready:
            break
    ended = time.monotonic()
    while time.monotonic() < ended + float(options["linger"]):
        for fd, _ in poll.poll(0.02):
            by_fd[fd].receive()
        if all(flow.answered[-1] for flow in flows if flow.answered):
            break
    return {
        "begun": begun,
        "ended": ended,
        "interval_ms": interval * 1000,
        "sender_stall_ms": stall * 1000,
        "flows": [flow.report() for flow in flows],
    }


if __name__ == "__main__":
    gc.disable()  # a garbage collection would interrupt the sending
    report = run(json.loads(sys.argv[1]))
    print(json.dumps(report), flush=True)
