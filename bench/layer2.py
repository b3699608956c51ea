"""Layer 2 mode: answers, cost, bursts, the gaps for clients when machines fail, and one VIP on several nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.answers import answers, burst, cost
from bench.gaps import failover
from bench.report import Table
from bench.spread import spread

PARTS: Mapping[str, Callable[[bool], Table]] = {
    "answers": answers,
    "failover": failover,
    "cost": cost,
    "burst": burst,
    "spread": spread,
}
