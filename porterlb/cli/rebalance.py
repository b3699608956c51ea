"""``porterlb rebalance``: which Layer 2 VIPs would move to restore balance, and the request to move them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from porterlb.cli.loading import load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, show
from porterlb.cli.plan import gone, spread_json
from porterlb.cli.replicas import ask
from porterlb.cluster import Cluster, Kind
from porterlb.core.mode import ModePolicy
from porterlb.core.parse.eip import REBALANCE
from porterlb.core.parse.meta import DOMAINS
from porterlb.core.placement.load import level
from porterlb.core.placement.overview import Overview, addresses_of, overview, rebalancing
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.placement.state import Move
from porterlb.core.plan import Plan, plan
from porterlb.core.whatif import offline_snapshot, without
from porterlb.errors import PorterError

OWNER = "porterlb-cli-rebalance"
"""Field manager (server-side apply) of the annotation. Not that of spec.protocol, which would give up that field."""

ANNOTATION = f"{REBALANCE[0]}.{DOMAINS[0]}/{REBALANCE[1]}"

POLL = 0.2  # seconds between two checks for the answer


@click.command()
@click.option("--yes", is_flag=True, help="Ask the leader to move them, and wait until it has.")
@click.option("--no-wait", is_flag=True, help="With --yes: do not wait.")
@click.option("--timeout", type=click.FloatRange(min=0), default=900.0, show_default=True, help="Seconds to wait.")
@query
def rebalance(options: Options, *, yes: bool, no_wait: bool, timeout: float) -> None:
    """Show which Layer 2 VIPs would move to spread them evenly over the nodes, and why; move them with --yes.

    The fewest moves that restore balance. The leader moves one Service at a time, not while nodes or replicas come and
    go. A move interrupts the connections to the VIPs that are moved, and no others.
    """

    async def work(cluster: Cluster) -> dict[str, Any]:
        found = await load(cluster)
        snapshot = offline_snapshot(found.objects, found.members)
        made = plan(without(snapshot, gone(found, await ask(cluster, found.members))), None, 0.0, ModePolicy(), AT_ONCE)
        moves, data = rebalancing(made), as_json(made)
        if yes and moves:
            # Any Eip can carry the request: it applies to all of them.
            eip = made.vips[addresses_of(made, moves[0].key)[0]].eip
            data["request"] = await _request(cluster, eip)
            data["done"] = not no_wait and await _answered(cluster, eip, data["request"], timeout)
        return data

    data = options.ask(work, writes=yes)
    show(options.output, data, _tables(data), [_told(data, asked=yes)])


def as_json(made: Plan) -> dict[str, Any]:
    """The stable shape: ``placement`` (now), ``after``, ``moves``, ``request`` (its name; empty: none), ``done``."""
    now = overview(made)
    moves = rebalancing(made)
    return {
        "placement": spread_json(now),
        "after": _after(now, moves),
        "moves": [
            {
                "service": str(move.key),
                "addresses": [str(address) for address in addresses_of(made, move.key)],
                "from": move.source,
                "to": move.target,
                "why": _why(now, move),
            }
            for move in moves
        ],
        "request": "",
        "done": False,
    }


def _after(now: Overview, moves: Sequence[Move]) -> dict[str, int]:
    """The load of each node after the moves."""
    loads = {name: share.load for name, share in now.shares.items()}
    for move in moves:
        loads[move.source] -= move.weight
        loads[move.target] = loads.get(move.target, 0) + move.weight
    return loads


def _why(now: Overview, move: Move) -> str:
    source, target = now.shares[move.source], now.shares.get(move.target)
    there = level(target.load, target.capacity) if target else 0
    return f"{move.source} carries {float(level(source.load, source.capacity)):g}, {move.target} {float(there):g}"


async def _request(cluster: Cluster, eip: str) -> str:
    request = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    await cluster.apply(Kind.EIP, eip, "", {"metadata": {"annotations": {ANNOTATION: request}}}, owner=OWNER)
    return request


async def _answered(cluster: Cluster, eip: str, request: str, patience: float) -> bool:
    until = time.monotonic() + patience
    while True:
        obj = await cluster.get(Kind.EIP, eip) or {}
        if (obj.get("status") or {}).get("rebalanced") == request:
            return True
        if time.monotonic() >= until:
            raise PorterError(
                f"The leader has not finished within {patience:g} s; it goes on.",
                "See porterlb rebalance for what is left. It waits while nodes or replicas come and go.",
            )
        await asyncio.sleep(POLL)


def _tables(data: Mapping[str, Any]) -> list[Table]:
    nodes = data["placement"]["nodes"]
    shares = [
        (name, str(share["vips"]), str(share["load"]), f"{share['capacity']:g}", str(data["after"].get(name, 0)))
        for name, share in nodes.items()
    ]
    moves = [(m["service"], ", ".join(m["addresses"]), m["from"], m["to"], m["why"]) for m in data["moves"]]
    ratio = data["placement"]["imbalance"]
    return [
        Table(
            ("NODE", "VIPS", "LOAD", "CAPACITY", "LOAD AFTER"), shares, f"Nodes (fullest {ratio:.2f} times the mean)"
        ),
        Table(("SERVICE", "ADDRESS", "FROM", "TO", "WHY"), moves, "Moves", "Nothing to move."),
    ]


def _told(data: Mapping[str, Any], *, asked: bool) -> str:
    count = len(data["moves"])
    services = "1 Service" if count == 1 else f"{count} Services"
    if not count:
        return "The VIPs are as even as their candidates allow."
    if not asked:
        return f"Nothing was changed. porterlb rebalance --yes moves {services}."
    if data["done"]:
        return f"{services} moved."
    return f"The leader was asked to move {services}."
