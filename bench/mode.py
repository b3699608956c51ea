"""BGP lost, returned and switched manually: the gaps behind the router, and the effect on established connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.report import Table, percentile
from lab.client import ConnectionsReport
from lab.measure import wait_until
from lab.stream import Report
from tests.lab.mode_scenes import ModeStage

FLOWS = 6
"""Flows per address: enough to use all next hops of an ECMP route."""

CONNECTIONS = 60
INTERVAL = 0.01  # seconds, of each flow

LOSSES = {
    "bird": {"shut down": "administrative shutdown", "ended": "the daemon ends"},
    "frr": {"killed": "bgpd killed", "shut down": "administrative shutdown"},
}


def loss(quick: bool) -> Table:
    """The gap for a client behind the router when all sessions are lost, and the losses on their return."""
    count = 3 if quick else 20
    table = Table(
        f"All BGP sessions lost, and back ({count} trials; a request each {INTERVAL * 1000:.0f} ms in {FLOWS} flows)",
        ("router", "how", "pool", "median ms", "worst ms", "target", "lost on the return", "own stall ms"),
        notes=[
            "the gap begins when the router has noticed and takes its routes out; longest of 6 flows each, v4 and v6",
            "standby: answered on the segment in both modes; quiet: only in layer2 mode (layer2Standby: false)",
        ],
    )
    for router, ways in LOSSES.items():
        gaps: dict[tuple[str, str], list[float]] = {}
        lost: dict[tuple[str, str], int] = {}
        stall: dict[str, float] = {}
        with ModeStage(routers=(router,), options=("--return-after", "1")) as stage:
            for number in range(count):
                how = list(ways)[number % len(ways)]
                down, back = _down(stage, how), _back(stage, how)
                stall[how] = max(stall.get(how, 0.0), down.sender_stall_ms)
                for pool, vips in stage.vips.items():
                    key = how, pool
                    gaps.setdefault(key, []).append(max(down.only(vip).worst_gap_ms for vip in vips))
                    lost[key] = lost.get(key, 0) + sum(back.only(vip).lost for vip in vips)
        for (how, pool), found in sorted(gaps.items()):
            row = (router, ways[how], pool, percentile(found, 0.5), max(found), "100", lost[how, pool], stall[how])
            table.rows.append(row)
            table.raw[f"{router}, {how}, {pool}"] = {"gaps": found, "lost on the return": lost[how, pool]}
    return table


def _down(stage: ModeStage, how: str) -> Report:
    stage.wait_judged("bgp", timeout=60)
    stage.wait_wide()
    time.sleep(0.3)

    def gone() -> None:
        stage.lose(how)
        for pool in stage.vips:
            stage.wait_mode("layer2", pool)

    return stage.during(gone, after=0.5, flows=FLOWS, interval=INTERVAL)


def _back(stage: ModeStage, how: str) -> Report:
    def again() -> None:
        stage.give_back(how)
        stage.wait_judged("bgp", timeout=60)
        stage.wait_wide()

    return stage.during(again, after=0.5, flows=FLOWS, interval=INTERVAL)


def switch(quick: bool) -> Table:
    """The manual switch, in both directions: the time until it takes effect on the network, and the losses."""
    count = 2 if quick else 5
    table = Table(
        f"Switch by hand under traffic ({count} trials each)",
        ("from", "to", "lost", "of", "median s until all is on the wire", "worst s"),
        notes=[
            "with `porterlb mode`, its start included; it waits until the way that was left has ended (3 s overlap)"
        ],
    )
    with ModeStage() as stage:
        seconds: dict[tuple[str, str], list[float]] = {}
        lost: dict[tuple[str, str], tuple[int, int]] = {}
        before = "auto"
        for number in range(4 * count):
            wanted = ("layer2", "bgp", "layer2", "auto")[number % 4]
            took: list[float] = []

            def change(wanted: str = wanted, took: list[float] = took) -> None:
                begun = time.monotonic()
                code, _, err = stage.command("mode", wanted)
                took.append(time.monotonic() - begun)
                assert code == 0, err

            report = stage.during(change, after=0.3, flows=FLOWS, interval=0.01)
            key = before, wanted
            seconds.setdefault(key, []).extend(took)
            old = lost.get(key, (0, 0))
            lost[key] = old[0] + report.lost, old[1] + report.sent
            before = wanted
    for (one, other), found in seconds.items():
        table.rows.append((one, other, *lost[one, other], percentile(found, 0.5), max(found)))
        table.raw[f"{one} to {other}"] = {"seconds": found, "lost": lost[one, other]}
    return table


def connections(quick: bool) -> Table:
    """The effect of each step on established TCP connections."""
    table = Table(
        f"Established TCP connections ({CONNECTIONS}, one pod a node, externalTrafficPolicy Local)",
        ("step", "reset or silent", "of", "why"),
        notes=[
            "a connection lives as long as it stays on its node; a second after each step, each with an echo per 0.1 s"
        ],
    )
    with ModeStage(options=("--return-after", "1", "--widen-after", "6")) as stage:
        vip = stage.vips["standby"][0]
        stage.wait_wide()
        for what, why, step in _steps(stage, vip):
            before, broken = _held(stage, vip, step)
            table.rows.append((what, broken, before.opened, why))
            table.raw[what] = {"broken": broken, "pods before": before.pods}
            if quick and len(table.rows) == 3:
                break
    return table


def _held(stage: ModeStage, vip: str, step: Callable[[], Any]) -> tuple[ConnectionsReport, int]:
    with stage.lab.client.connections(vip, CONNECTIONS) as held:
        time.sleep(0.5)
        before = held.report()
        step()
        time.sleep(1.5)
        after = held.report()
        return before, after.reset + after.silent


def _steps(stage: ModeStage, vip: str) -> list[tuple[str, str, Callable[[], Any]]]:
    names = {node.name for node in stage.lab.nodes}

    def until(wanted: Callable[[set[str]], bool]) -> None:
        wait_until(lambda: wanted(stage.routes(vip)), 60, "the routes")

    def lost() -> None:
        stage.lose("shut down")
        stage.wait_judged("layer2")

    def narrow() -> None:
        stage.give_back("shut down")
        until(lambda hops: len(hops) == 1)

    def by_hand(wanted: str) -> Callable[[], None]:
        def change() -> None:
            code, _, err = stage.command("mode", wanted, "--eip", "standby")
            assert code == 0, err

        return change

    def one_session() -> None:
        stage.lab.router.shutdown_session(stage.lab.node("node-b").v4)
        time.sleep(1)

    return [
        ("all sessions lost (ECMP over 3 nodes -> Layer 2)", "two of three nodes are left", lost),
        ("BGP returns, narrow", "the same node goes on", narrow),
        ("widened after widenAfter", "ECMP moves flows to other nodes", lambda: until(lambda hops: hops == names)),
        ("one replica of three loses its session", "others announce the same", one_session),
        ("by hand: auto -> layer2", "two of three nodes are left", by_hand("layer2")),
        ("by hand: layer2 -> auto", "ECMP moves flows to other nodes", by_hand("auto")),
        ("by hand: auto -> bgp", "the routes stay", by_hand("bgp")),
    ]


PARTS: Mapping[str, Callable[[bool], Table]] = {"loss": loss, "switch": switch, "connections": connections}
