"""A demonstration of about a minute: ``make demo``.

It builds a bare-metal cluster of three nodes, a BIRD router and two clients in network namespaces. PorterLB runs on
each node from a directory of manifests. All printed values are read back from the router, the kernels and the clients.
Nothing is left behind except the recordings of the managers, if a folder is given for them: ``make demo
RECORDINGS=FOLDER``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lab.cluster import Lab
from lab.measure import wait_equal, wait_until
from lab.netns import LabError
from lab.node import Node
from lab.process import Process
from lab.stream import Report

ROUTED = "172.16.0.0/28"  # only BGP can serve these
ON_LINK = "10.77.0.200-10.77.0.215"  # BGP first, Layer 2 when BGP is unavailable
SEGMENT = "10.77.0.220-10.77.0.229"  # Layer 2 only


@dataclass
class Demo:
    """The steps of the demonstration. ``rows``: the measurements, for the table at the end.

    ``recordings``: a folder for the recordings of the managers; None: they are not written.
    """

    lab: Lab
    console: Console
    recordings: Path | None = None
    rows: list[tuple[str, str]] = field(default_factory=list)
    managers: dict[str, Process] = field(default_factory=dict)
    vips: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        self.console.print(text)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self.console.rule(f"[bold]{title}", align="left")
        yield
        self.console.print()

    def measured(self, what: str, figure: str) -> None:
        self.rows.append((what, figure))
        self.say(f"  [green]{what}: [bold]{figure}")

    def run(self) -> None:
        self.give_addresses()
        self.spread()
        self.lose_next_hop()
        self.lose_replica()
        self.lose_bgp()
        self.layer2_next_hop()
        self.lose_leader()
        self.delete()
        table = Table(title="What was measured", title_justify="left")
        table.add_column("event")
        table.add_column("a client saw", justify="right")
        for row in self.rows:
            table.add_row(*row)
        self.console.print(table)
        self.say(f"The story took {time.monotonic() - self.started:.0f} s.")
        if self.recordings is not None:
            self.say(f"The recordings are in {self.recordings}: porterlb replay FILE.")
        self.say("Streams: one UDP request each ms; where there are 12 flows, each 5 ms in each of them.")

    # Steps

    def give_addresses(self) -> None:
        lab = self.lab
        with self.step("Three nodes, one router, two clients: Services get addresses"):
            lab.bgp_conf()
            lab.peer()
            lab.eip("routed", ROUTED, protocol="bgp")
            lab.eip("auto", ON_LINK)
            lab.eip("segment", SEGMENT, protocol="layer2")
            for name, eip in (("web", "routed"), ("shop", "auto"), ("mail", "segment")):
                lab.service(name, policy="Local", annotations={"eip.porter.kubesphere.io/v1alpha2": eip})
            begun = time.monotonic()
            for node in lab.nodes:
                self._start_manager(node)
            self.vips = {name: lab.wait_vips(name, timeout=20)[0] for name in ("web", "shop", "mail")}
            for vip in (self.vips["web"], self.vips["shop"]):
                self._routed(vip, "node-a", "node-b", "node-c")
            self.measured("managers started, until routes are in the router's table", _s(time.monotonic() - begun))
            for name, vip in self.vips.items():
                self.say(f"  default/{name} has [bold]{vip}")
            for neighbor, state in lab.router.sessions().items():
                if ":" not in neighbor:
                    self.say(f"  BIRD: session with {neighbor} is {state.state}")
            self._show_table()

    def spread(self) -> None:
        with self.step("Replies come from all pods"):
            for name in ("web", "shop"):
                answered = self.lab.client.pods_answering(self.vips[name], 30)
                pods = ", ".join(f"{pod} {count}" for pod, count in sorted(answered.items()))
                self.say(f"  30 HTTP requests from behind the router to {name}: {pods}")
            wait_until(lambda: self.lab.segment_client.reaches(self.vips["mail"]), 10, "mail to answer")
            macs = self.lab.segment_client.who_has(self.vips["mail"])
            owners = ", ".join(self.lab.node(mac).name for mac in macs)
            self.say(f"  On the segment mail is answered by one MAC: that of {owners}")

    def lose_next_hop(self) -> None:
        with self.step("node-c loses its power: the others withdraw it"):
            report = self._during(self.vips["web"], lambda: self._off("node-c"), flows=12)
            self._routed(self.vips["web"], "node-a", "node-b")
            self._show_table()
            self.measured("BGP next hop loses power, worst gap of 12 flows", _gap(report))
            self.lab.node("node-c").power_on()
            self.lab.wait_settled()
            self._routed(self.vips["web"], "node-a", "node-b", "node-c")
            self.say("  node-c is back, and so is its next hop")

    def lose_replica(self) -> None:
        with self.step("A replica is killed: others announce the same"):
            node = self.lab.node("node-b")

            def kill() -> None:
                self.managers["node-b"].kill()
                time.sleep(2)

            report = self._during(self.vips["web"], kill, flows=12)
            self.measured("a replica (manager, ExaBGP, wire) killed, lost", f"{report.lost} of {report.sent}")
            self._start_manager(node)
            self.lab.wait_settled()

    def lose_bgp(self) -> None:
        vip = self.vips["shop"]
        with self.step("BGP is taken away: the same address goes on by ARP"):
            report = self._during(vip, lambda: self._stop_bgp(vip), flows=12)
            self.measured("all BGP sessions lost, worst gap of 12 flows", _gap(report))
            macs = self.lab.segment_client.who_has(vip)
            self.say(f"  {vip} is answered by {', '.join(self.lab.node(mac).name for mac in macs)}, no route left")
            report = self._during(vip, lambda: self._start_bgp(vip), flows=12)
            self.measured("BGP returns, lost", f"{report.lost} of {report.sent}")
            self._show_table()

    def layer2_next_hop(self) -> None:
        vip = self.vips["mail"]
        with self.step("Layer 2: the node that serves the address loses its power"):
            owner = self._owner(vip)
            report = self._during(vip, lambda: self._off(owner), client="segment")
            self.say(f"  {vip} moved from {owner} to {self._owner(vip)}")
            self.measured("Layer 2 next hop loses power, worst gap", _gap(report))
            self.lab.node(owner).power_on()
            self.lab.wait_settled()

    def lose_leader(self) -> None:
        vip = self.vips["mail"]
        with self.step("The leader's node loses its power"):
            leader = self._leader()
            took: list[float] = []

            def off() -> None:
                begun = time.monotonic()
                self._off(leader)
                self.lab.service("late", policy="Local", annotations={"eip.porter.kubesphere.io/v1alpha2": "segment"})
                self.lab.wait_vips("late", timeout=20)
                took.append(time.monotonic() - begun)

            report = self._during(vip, off, client="segment")
            self.measured(f"the leader's node ({leader}) loses power, worst gap", _gap(report))
            self.measured("until the new leader gave a new Service its address", _s(took[0]))
            self.lab.node(leader).power_on()
            self.lab.wait_settled()

    def delete(self) -> None:
        with self.step("A Service is deleted: withdrawn"):
            begun = time.monotonic()
            self.lab.delete_service("web")
            wait_until(lambda: f"{self.vips['web']}/32" not in self.lab.router.kernel_routes(), 10, "no route to web")
            self.measured("Service deleted, until the route was gone", _s(time.monotonic() - begun))

    # Helpers

    def _start_manager(self, node: Node) -> None:
        options = ["--return-after", "5"]
        if self.recordings is not None:
            options += ["--record", str(self.recordings / f"{node.name}.jsonl")]
        self.managers[node.name] = self.lab.start_manager(node, *options, remember=True)

    def _during(self, vip: str, what: Callable[[], object], *, flows: int = 1, client: str = "outside") -> Report:
        """A stream before, during and after ``what``."""
        sender = self.lab.client if client == "outside" else self.lab.segment_client
        with sender.stream(vip, flows=flows, interval=0.001 if flows == 1 else 0.005) as stream:
            time.sleep(0.5)
            what()
            time.sleep(1.5)
            return stream.report()

    def _off(self, name: str) -> None:
        self.lab.node(name).power_off()

    def _stop_bgp(self, vip: str) -> None:
        self.lab.router.stop_daemon()
        wait_until(lambda: f"{vip}/32" not in self.lab.router.kernel_routes(), 10, "no route left")

    def _start_bgp(self, vip: str) -> None:
        self.lab.router.start_daemon()
        self._routed(vip, "node-a", "node-b", "node-c", timeout=40)

    def _routed(self, vip: str, *nodes: str, timeout: float = 30) -> None:
        hops = self.lab.hops(*nodes)
        wait_equal(
            lambda: self.lab.router.kernel_routes().get(f"{vip}/32", frozenset()), hops, timeout, f"next hops of {vip}"
        )

    def _owner(self, vip: str) -> str:
        macs = wait_until(lambda: self.lab.segment_client.who_has(vip), 10, f"an answer for {vip}")[0]
        return ", ".join(self.lab.node(mac).name for mac in macs)

    def _leader(self) -> str:
        """The replica that reports itself as leader. A lease still names its holder for seconds after the holder's
        end."""
        return wait_until(
            lambda: next((node.name for node in self.lab.nodes if self._leads(node)), ""), 20, "a replica to lead"
        )[0]

    def _leads(self, node: Node) -> bool:
        try:
            return "porterlb_leader 1.0" in self.lab.manager_http(node, "/metrics")[1].splitlines()
        except LabError:
            return False

    def _show_table(self) -> None:
        for prefix, hops in sorted(self.lab.router.kernel_routes().items()):
            names = ", ".join(sorted(self.lab.node(hop).name for hop in hops))
            self.say(f"  the router's kernel: [bold]{prefix}[/] via {len(hops)} next hops: {names}")


def _gap(report: Report) -> str:
    return f"{report.worst_gap_ms:.0f} ms"


def _s(seconds: float) -> str:
    return f"{seconds:.2f} s"


def main(argv: Sequence[str]) -> int:
    console = Console(highlight=False)
    folder = Path(argv[0]).absolute() if argv else None
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        with Lab(nodes=3, routers=["bird"]) as lab:
            Demo(lab, console, folder).run()
    except LabError as error:
        console.print(f"[red]The demo failed: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
