"""Layer 2 mode: answers, cost, bursts, the gaps for clients when machines fail, and one VIP on several nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.answers import answers, burst, busy, cost, in_kernel
from bench.gaps import failover
from bench.report import Table
from bench.spread import spread

PARTS: Mapping[str, Callable[[bool], Table]] = {
    "answers": answers,
    "in-kernel": in_kernel,
    "busy": busy,
    "failover": failover,
    "cost": cost,
    "burst": burst,
    "spread": spread,
}
