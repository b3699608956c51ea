"""The messages between the manager and its BFD process: one JSON object per line, in both directions.

To the process: ``want`` with the whole set, and ``stop``. To the manager: ``report`` with the whole state.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from ipaddress import ip_address
from typing import Any

from porterlb.core.bfd.values import (
    BfdReport,
    BfdSession,
    BfdSettings,
    BfdState,
    BfdTarget,
    Obstacle,
    ObstacleKind,
)


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


STOP = _line({"t": "stop"})


def want_line(targets: Iterable[BfdTarget]) -> bytes:
    return _line({"t": "want", "targets": [_target(target) for target in sorted(targets, key=lambda t: t.peer)]})


def _target(target: BfdTarget) -> dict[str, Any]:
    local = str(target.local_address) if target.local_address is not None else ""
    return {**asdict(target), "address": str(target.address), "local_address": local}


def read_want(message: Mapping[str, Any]) -> tuple[BfdTarget, ...]:
    return tuple(
        BfdTarget(
            row["peer"],
            ip_address(row["address"]),
            ip_address(row["local_address"]) if row["local_address"] else None,
            row["multihop"],
            BfdSettings(**row["settings"]),
            row["interface"],
        )
        for row in message["targets"]
    )


def report_line(report: BfdReport) -> bytes:
    sessions = {peer: asdict(session) for peer, session in report.sessions.items()}
    return _line({"t": "report", "sessions": sessions, "discarded": dict(report.discarded)})


def read_report(message: Mapping[str, Any]) -> BfdReport:
    return BfdReport(
        {peer: _session(row) for peer, row in message["sessions"].items()},
        {str(why): int(count) for why, count in message["discarded"].items()},
    )


def _session(row: Mapping[str, Any]) -> BfdSession:
    obstacle = row["obstacle"]
    if obstacle is not None:
        obstacle = Obstacle(ObstacleKind(obstacle["kind"]), obstacle["port"], obstacle["text"])
    states = {name: BfdState(row[name]) for name in ("state", "remote_state")}
    return BfdSession(**{**row, **states, "obstacle": obstacle})
