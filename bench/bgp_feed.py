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
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench.usage import resident_bytes
from lab import objects
from porterlb.collector import collect_seldom
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Snapshot, View
from porterlb.core.objects import Objects
from porterlb.core.observed import BgpReport
from porterlb.core.plan import Plan, plan
from porterlb.edge.bgp import BgpSpeaker

BASE = int(IPv4Address("172.16.0.0"))
POLICY = ModePolicy(return_after=0.0)


class Feed:
    """Services by number; the VIP of number N is 172.16.0.0 + N."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.me: str = options["node"]
        self.others: list[str] = options["others"]
        self.objects = Objects(claim_without_class=True)
        for name, address in options["nodes"].items():
            self.objects.change("Node", objects.node(name, [address]))
        self.objects.change("Eip", objects.eip("routed", "172.16.0.0/16", protocol="bgp"))
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

    def service(self, number: int, nodes: list[str]) -> None:
        """A Service that already has its address, with one endpoint on each of these nodes."""
        name = f"s{number}"
        found = objects.service(name, policy="Local", ports=objects.PORTS[:1])
        found["metadata"]["uid"] = name
        found["status"] = {"loadBalancer": {"ingress": [{"ip": str(IPv4Address(BASE + number)), "ipMode": "VIP"}]}}
        self.objects.change("Service", found)
        self.endpoints(number, nodes)

    def endpoints(self, number: int, nodes: list[str]) -> None:
        pods: Any = [SimpleNamespace(name=f"p-{node}", node=node, v4="10.244.9.9", v6="fd44::9") for node in nodes]
        for piece in objects.endpoint_slices(f"s{number}", pods, ports=objects.PORTS[:1]):
            self.objects.change("EndpointSlice", piece)

    def remove(self, number: int) -> None:
        self.objects.delete("Service", "default", f"s{number}")
        self.objects.delete("EndpointSlice", "default", f"s{number}-ipv4")

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
        verb = command["do"]
        numbers = range(command.get("from", 0), command.get("to", 0))
        if verb == "add":
            for number in numbers:
                self.service(number, command["nodes"])
                await breathe(number)
        elif verb == "remove":
            for number in numbers:
                self.remove(number)
                await breathe(number)
        elif verb == "move":
            self.endpoints(command["number"], command["nodes"])
        elif verb == "memory":
            return {"own": resident_bytes(os.getpid()) / 2**20, "exabgp": resident_bytes(self.speaker.pid) / 2**20}
        await asyncio.sleep(command.get("after", 0.0))
        begun = time.monotonic()
        planning = self.go()
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
