"""The parts of a manager that BGP needs, in a separate process: objects, plans, and the BGP speaker with its ExaBGP.

bench/bgp.py runs it on a node of the lab. It reads commands as JSON lines and answers with JSON lines. Times are on the
monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.usage import processor_seconds, resident_bytes
from lab import objects
from porterlb.collector import collect_seldom
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Snapshot, View
from porterlb.core.objects import Objects
from porterlb.core.observed import BgpReport
from porterlb.core.plan import Plan, plan
from porterlb.edge.bgp import BgpSpeaker

BASE = {4: IPv4Address("172.16.0.0"), 6: IPv6Address("fd10::")}
POLICY = ModePolicy(return_after=0.0)


def vip(number: int, version: int) -> str:
    return str(BASE[version] + number)


def prefix(number: int, version: int) -> str:
    return f"{vip(number, version)}/{32 if version == 4 else 128}"


class Feed:
    """Services by number and IP version; the VIP of number N is 172.16.0.0 + N or fd10:: + N."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.me: str = options["node"]
        self.others: list[str] = options["others"]
        self.objects = Objects(claim_without_class=True)
        for name, addresses in options["nodes"].items():
            self.objects.change("Node", objects.node(name, addresses))
        self.objects.change("Eip", objects.eip("routed", "172.16.0.0/16,fd10::/112", protocol="bgp"))
        self.objects.change("BgpConf", objects.bgp_conf())
        spec = {"gracefulRestart": {"enabled": False}, "afiSafis": options["afiSafis"]}
        self.objects.change("BgpPeer", objects.bgp_peer("tor", options["router"], options["as"], **spec))
        self.report = BgpReport()
        self.speaker = BgpSpeaker(self.heard, run_dir=Path(options["folder"]))
        self.plan: Plan | None = None
        self.token = 0
        self.wake = asyncio.Event()

    def heard(self, report: BgpReport) -> None:
        was = self.up
        self.report = report
        if self.up and not was:
            say({"up": time.monotonic()})
            self.go()
        self.wake.set()

    @property
    def up(self) -> bool:
        return "tor" in self.report.sessions and self.report.sessions["tor"].up

    def service(self, number: int, version: int, nodes: list[str]) -> None:
        """A Service that already has its address, with one endpoint on each of these nodes."""
        name = f"s{version}-{number}"
        found = objects.service(name, policy="Local", families=[f"IPv{version}"], ports=objects.PORTS[:1])
        found["metadata"]["uid"] = name
        found["status"] = {"loadBalancer": {"ingress": [{"ip": vip(number, version), "ipMode": "VIP"}]}}
        self.objects.change("Service", found)
        self.endpoints(number, version, nodes)

    def endpoints(self, number: int, version: int, nodes: list[str]) -> None:
        pods: Any = [SimpleNamespace(name=f"p-{node}", node=node, v4="10.244.9.9", v6="fd44::9") for node in nodes]
        families, ports = [f"IPv{version}"], objects.PORTS[:1]
        for piece in objects.endpoint_slices(f"s{version}-{number}", pods, families=families, ports=ports):
            self.objects.change("EndpointSlice", piece)

    def remove(self, number: int, version: int) -> None:
        self.objects.delete("Service", "default", f"s{version}-{number}")
        self.objects.delete("EndpointSlice", "default", f"s{version}-{number}-ipv{version}")

    def announce(self, numbers: range, version: int) -> float:
        """Without a plan: the speaker gets these prefixes with a path of the last plan. Returns 0.0."""
        assert self.plan is not None
        planned = self.plan.bgp
        path = next(path for path in planned.routes if path.version == version)
        new = planned.routes[path] | {prefix(number, version) for number in numbers}
        self.token += 1
        self.speaker.want(replace(planned, routes={**planned.routes, path: new}), self.token)
        return 0.0

    def go(self) -> float:
        """Plans, and passes the plan to the speaker. Returns the planning time in seconds."""
        begun = time.monotonic()
        sessions = frozenset({(self.me, "tor")} if self.up else set())
        snapshot = Snapshot(
            view=View(
                node=self.me,
                fresh=frozenset({self.me}),
                sessions=sessions,
                negotiated={(self.me, name): s.negotiated for name, s in self.report.sessions.items() if s.negotiated},
                leader=self.me,
            ),
            nodes=self.objects.nodes,
            services=self.objects.services,
            endpoints=self.objects.endpoints,
            eips=self.objects.eips,
            peers=self.objects.peers,
            conf=self.objects.conf,
        )
        self.plan = plan(snapshot, self.plan, begun, POLICY)
        self.token += 1
        self.speaker.want(self.plan.bgp, self.token)
        return time.monotonic() - begun

    async def applied(self) -> float:
        """Waits until ExaBGP has acknowledged everything. Returns the time."""
        while self.report.applied != self.token:
            self.wake.clear()
            await self.wake.wait()
        return time.monotonic()

    async def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        verb, version = command["do"], command.get("version", 4)
        numbers = range(command.get("from", 0), command.get("to", 0))
        if verb == "add":
            for number in numbers:
                self.service(number, version, command["nodes"])
                await breathe(number)
        elif verb == "remove":
            for number in numbers:
                self.remove(number, version)
                await breathe(number)
        elif verb == "move":
            self.endpoints(command["number"], version, command["nodes"])
        elif verb == "usage":
            own, exabgp = os.getpid(), self.speaker.pid
            return {
                "memory": [resident_bytes(own) / 2**20, resident_bytes(exabgp) / 2**20],
                "processor": [processor_seconds(own) * 1000, processor_seconds(exabgp) * 1000],
            }
        await asyncio.sleep(command.get("after", 0.0))
        begun = time.monotonic()
        planning = self.announce(numbers, version) if verb == "announce" else self.go()
        answer = {"begun": begun, "planning": planning}
        if command.get("wait", True):
            answer["applied"] = await self.applied()
        return answer


async def breathe(number: int) -> None:
    """Yields, as between events of a watch: a manager without a beat for 10 s counts as hung, and its routes are
    withdrawn."""
    if number % 50 == 0:
        await asyncio.sleep(0)


def say(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main() -> None:
    collect_seldom()  # as the manager does
    feed = Feed(json.loads(sys.argv[1]))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    speaking = asyncio.create_task(feed.speaker.run())
    feed.go()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(command: dict[str, Any]) -> None:
        say({"id": command["id"], **await feed.obey(command)})

    while line := await reader.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await feed.speaker.stop(withdraw=False)
    await speaking


if __name__ == "__main__":
    asyncio.run(main())
