"""The gaps for a client when a node loses its power: PorterLB and keepalived, in the same run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from bench.report import Table, percentile
from lab.cluster import Lab
from lab.measure import wait_until
from lab.node import Node
from lab.stream import Report
from tests.lab.scenarios import Stage

NODES = 5
LEAST = 2
"""Nodes are powered off one by one until this number is left. Then all are powered on at once."""

CONNECT = 0.04
"""Seconds between two new connections."""

KEEPALIVED = {"default (1 s adverts)": "1", "100 ms adverts": "0.1", "10 ms adverts": "0.01"}
ANCHORS = {
    "PorterLB, default": "keepalived, default (1 s adverts)",
    "PorterLB, fast": "keepalived, 100 ms adverts",
}
"""What each profile is compared with, in the same run."""


@dataclass
class Trials:
    """``gaps``: of the stream, ms; ``connections``: from the failure to the start of the last failed new connection,
    ms; ``stalls``: the longest delay of the benchmark's own sender, ms; ``waits``: seconds without allocation."""

    gaps: list[float] = field(default_factory=list)
    connections: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    lost_elsewhere: int = 0
    waits: list[float] = field(default_factory=list)

    def add(self, report: Report, affected: Iterable[str], others: Iterable[str] = ()) -> None:
        self.gaps.append(max(report.only(vip).worst_gap_ms for vip in affected))
        self.stalls.append(report.sender_stall_ms)
        self.lost_elsewhere += sum(report.only(vip).lost for vip in others)

    def row(self, what: str, who: str, target: str = "") -> tuple[Any, ...]:
        return (
            what,
            who,
            percentile(self.gaps, 0.5),
            max(self.gaps),
            max(self.connections),
            target,
            self.lost_elsewhere,
            f"{max(self.waits):.1f}" if self.waits else "",
            max(self.stalls),
        )


def failover(quick: bool) -> Table:
    """Worst gaps of scenarios 1 and 3, with both profiles, and keepalived's."""
    count = 3 if quick else 20
    table = Table(
        f"Failover: gap of a 1 ms stream, ms ({count} trials)",
        (
            "what fails",
            "who",
            "median",
            "worst",
            "new connections",
            "target",
            "lost elsewhere",
            "no allocation s",
            "own stall",
        ),
        notes=[
            "new connections: until the last one that failed had begun, worst; 25 a second, time-out 1 s",
            f"{NODES} nodes; IPv4 and IPv6 at once for PorterLB, the longer gap of both counts; IPv4 for keepalived",
            "lost elsewhere: requests to a VIP whose node did not fail; own stall: how late our sender was at worst",
        ],
    )
    for profile, target in (("default", "250"), ("fast", "100")):
        for what, run in (("next hop's node", _next_hop), ("leader's node", _leader)):
            done = ours(profile, count, run)
            table.rows.append(done.row(what, f"PorterLB, {profile}", target))
            _say(table)
            table.raw[f"{what}, {profile}"] = vars(done)
    for name, interval in KEEPALIVED.items():
        done = keepalived(interval, count)
        table.rows.append(done.row("master's node", f"keepalived, {name}"))
        _say(table)
        table.raw[f"keepalived, {name}"] = vars(done)
    for figure in ("median", "worst"):
        table.add_ratio(f"{figure} / keepalived's", figure, "who", lambda who: ANCHORS.get(who, ""))
    table.notes.append("keepalived's: with 1 s adverts for the profile default, with 100 ms adverts for fast")
    return table


def _say(table: Table) -> None:
    """Shows progress: the benchmark takes 15 minutes."""
    what, who, median, worst, connections, *_ = table.rows[-1]
    words = f"median {median:.0f} ms, worst {worst:.0f} ms; new connections {connections:.0f} ms"
    print(f"  {what}, {who}: {words}", file=sys.stderr, flush=True)


Trial = Callable[[Stage, Trials, str], str]
"""One trial: powers a node off, records the results, and returns the node's name."""


def ours(profile: str, count: int, trial: Trial) -> Trials:
    """`count` trials with PorterLB. Each has its own Service, served by the node that is powered off."""
    done = Trials()
    with Stage(nodes=NODES, profile=profile) as stage:
        stage.settle()
        down: list[str] = []
        while len(done.gaps) < count:
            if len(stage.running) <= LEAST:
                stage.back(*down)
                down.clear()
                wait_until(lambda: _all_used(stage), 30.0, "the nodes to be used again")
            down.append(trial(stage, done, f"trial-{len(done.gaps)}"))
            stage.settle()
    return done


def _all_used(stage: Stage) -> bool:
    """Whether no replica waits for a node that has returned (porterlb/core/node_return.py)."""
    states = [stage.lab.state(name) for name in stage.running]
    return all(node["usable"] for state in states for node in state["nodes"].values())


def _served(stage: Stage, name: str, victim: str) -> tuple[list[str], list[str]]:
    """The VIPs of a new Service that this node serves, and those of a second Service that another node serves."""
    other = next(node for node in stage.running if node != victim)
    others = stage.serve(f"{name}-beside", at=other)
    affected = stage.serve(name, at=victim)
    wait_until(lambda: {stage.owner(vip) for vip in others} == {other}, 20.0, "the other VIP elsewhere")
    wait_until(lambda: {stage.owner(vip) for vip in affected} == {victim}, 20.0, "the VIP on its node")
    stage.settle()
    return affected, others


def _during(
    stage: Stage, done: Trials, affected: list[str], others: list[str], off: Callable[[], object], after: float
) -> None:
    """Records the effect of a power loss on a stream and on new connections."""
    moments: list[float] = []

    def timed() -> None:
        moments.append(time.monotonic())
        off()

    with ExitStack() as stack:
        client = stage.lab.segment_client
        running = [stack.enter_context(client.attempts(vip, interval=CONNECT)) for vip in affected]
        report = stage.during([*affected, *others], timed, after=after)
        done.connections.append(max(one.report().last(moments[0]) for one in running) * 1000)
    done.add(report, affected, others)


def _next_hop(stage: Stage, done: Trials, name: str) -> str:
    leader = stage.leader()
    victim = next(node for node in stage.running if node != leader)
    affected, others = _served(stage, name, victim)
    _during(stage, done, affected, others, stage.lab.node(victim).power_off, after=1.2)
    _forget(stage, name)
    return victim


def _leader(stage: Stage, done: Trials, name: str) -> str:
    leader = stage.leader()
    affected, others = _served(stage, name, leader)

    def off() -> None:
        stage.lab.node(leader).power_off()
        done.waits.append(stage.time_to_allocate(f"late-{name}"))

    _during(stage, done, affected, others, off, after=0.3)
    stage.lab.delete_service(f"late-{name}")
    _forget(stage, name)
    return leader


def _forget(stage: Stage, name: str) -> None:
    for service in (name, f"{name}-beside"):
        stage.lab.delete_service(service)
        del stage.vips[service]


# keepalived

VIP = "10.77.0.150"

CONFIG = """\
global_defs {{
    router_id {name}
    vrrp_version {version}
}}
vrrp_instance bench {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int {interval}
    nopreempt
    virtual_ipaddress {{
        {vip}/32
    }}
}}
"""


def keepalived(interval: str, count: int) -> Trials:
    """`count` trials with keepalived instead of PorterLB: the same nodes, pods, rules and stream."""
    done = Trials()
    down_for = 3 * float(interval) + 1.0  # until a backup takes over, by VRRP
    with Lab(nodes=NODES, routers=("bird",)) as lab:
        lab.service("web", policy="Local")
        lab.fix_vips("web", VIP)
        for node in lab.nodes:
            _start_keepalived(node, interval)
        off: list[Node] = []
        while len(done.gaps) < count:
            if len(lab.nodes) - len(off) <= LEAST:
                for node in off:
                    node.power_on()
                off.clear()
                time.sleep(1.0 + down_for)
            master = wait_until(lambda: _master(lab), 20.0, "one master")[0]
            assert master is not None
            lab.segment_client.flush_neighbours()
            wait_until(lambda: lab.segment_client.reaches(VIP), 10.0, "an answer through keepalived")
            client = lab.segment_client
            with client.attempts(VIP, interval=CONNECT) as attempts, client.stream(VIP) as stream:
                time.sleep(0.4)
                moment = time.monotonic()
                master.power_off()
                time.sleep(down_for + 0.7)
                done.add(stream.report(), [VIP])
                done.connections.append(attempts.report().last(moment) * 1000)
            off.append(master)
    return done


def _start_keepalived(node: Node, interval: str) -> None:
    files = node.net.folder / f"keepalived-{node.name}"
    files.mkdir()
    config = files / "keepalived.conf"
    version = 2 if interval == "1" else 3  # the default; adverts below a second are VRRP version 3
    config.write_text(
        CONFIG.format(name=node.name, version=version, priority=100 - node.index, interval=interval, vip=VIP)
    )
    argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp", f"--use-file={config}"]
    node.remember("keepalived", [*argv, f"--pid={files}/pid", f"--vrrp_pid={files}/vrrp.pid"])


def _master(lab: Lab) -> Node | None:
    """The only node that answers for the VIP; None if none or several answer."""
    macs = lab.segment_client.who_has(VIP, 0.15)
    return lab.node(macs.pop()) if len(macs) == 1 else None
