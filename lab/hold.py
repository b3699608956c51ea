"""``make lab``: the lab with sample objects, kept running for inspection, with a small prompt for its verbs.

Ends on an empty line, ctrl-C or SIGTERM, and removes everything.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lab.backend import DirBackend
from lab.cluster import Lab
from lab.netns import LabError
from lab.node import Node
from lab.routers import KINDS
from lab.routers.bird import Bird
from lab.routers.frr import Frr

SAMPLES = Path(__file__).with_name("manifests")

VERBS = """\
  off NODE, on NODE           power off (nothing is said), boot again
  cut NODE, restore NODE      pull the cable, plug it in again
  api-off NODE, api-on NODE   take the manifests directory away from a node, give it back
  kill NODE, start NODE       SIGKILL the manager on a node, start one
  bgp-off, bgp-on             the router drops all TCP packets of BGP, or no longer
  vips, routes, sessions      what Services have; what the router has
  get VIP                     20 HTTP requests from outside: who answers
  stream VIP [SECONDS [VERB ...]]
                              a request every 1 ms from outside, and what was lost; with a verb, which is done
                              after two seconds: stream 10.77.0.100 5 off node-a
  who VIP                     whose MAC answers on the segment
An empty line ends the lab."""


def directory(lab: Lab) -> Path:
    """The manifests directory of this lab."""
    assert isinstance(lab.backend, DirBackend)
    return lab.backend.folder


def tour(lab: Lab) -> str:
    """Describes the parts of the lab, as commands to copy."""
    prefix = lab.node("node-a").ns.name.removesuffix("node-a")
    router = lab.routers[0] if lab.routers else None
    folder = directory(lab)
    lines = [
        f"The lab {lab.net.id} is running. As root, in another terminal:",
        "",
        "  # the cluster: edit, add or delete manifests here",
        f"  ls {folder}",
        f"  {sys.executable} -m porterlb status --cluster dir:{folder}",
        "  # a node, a pod, the client outside, the one on the segment",
        *(
            f"  ip netns exec {prefix}{name} {command}"
            for name, command in (
                ("node-a", "ip address show eth0"),
                ("node-a", "nft list table inet lab-proxy"),
                ("pod-a1", "ip route"),
                ("client", "ping -c 1 10.77.0.11"),
                ("local", "ip neigh"),
                ("local", "tcpdump -eni eth0 arp or icmp6"),
            )
        ),
    ]
    if isinstance(router, Bird):
        control = f"  birdc -s {router.socket_path} show"
        lines += ["  # the router", f"{control} route", f"{control} protocols"]
    elif isinstance(router, Frr):
        lines += ["  # the router", f"  vtysh --vty_socket {router.files} -d bgpd -c 'show bgp summary'"]
    elif router is not None:
        lines += ["  # the router", f"  gobgp --target unix://{router.files}/gobgp.sock global rib"]
    if router is not None:
        lines.append(f"  ip netns exec {router.ns.name} ip route")
    return "\n".join([*lines, f"  # logs of all processes\n  ls {lab.net.folder}/logs", "", "Here:", VERBS])


class Prompt:
    """The verbs by name. Each takes its arguments and returns the text to print."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.verbs: dict[str, Callable[..., object]] = {
            "off": lambda name: lab.node(name).power_off(),
            "on": lambda name: lab.node(name).power_on(),
            "cut": lambda name: lab.node(name).cut_link(),
            "restore": lambda name: lab.node(name).restore_link(),
            "api-off": lambda name: lab.node(name).cut_api(),
            "api-on": lambda name: lab.node(name).restore_api(),
            "kill": lambda name: self.kill(lab.node(name)),
            "start": lambda name: lab.start_manager(name, remember=True),
            "bgp-off": lab.router.block_bgp,
            "bgp-on": lab.router.unblock_bgp,
            "vips": self.vips,
            "routes": self.routes,
            "sessions": self.sessions,
            "get": lab.client.pods_answering,
            "stream": self.stream,
            "who": lambda vip: ", ".join(map(self.owner, sorted(lab.segment_client.who_has(vip)))) or "nobody",
        }

    def do(self, line: str) -> str:
        """The output for one line. An error is also reported in one line."""
        verb, *words = line.split()
        try:
            if verb not in self.verbs:
                return f"There is no verb {verb!r}. There are:\n{VERBS}"
            answer = self.verbs[verb](*words)
            return "done" if answer is None else str(answer)
        except TypeError:  # TypeError of the call itself: too few or too many words
            return f"{verb} does not go with {words or 'nothing'}. There are:\n{VERBS}"
        except (LabError, ValueError, OSError) as error:
            return f"{error}"

    def kill(self, node: Node) -> str:
        managers = [p for p in node.processes if p.name.endswith("/manager") and p.alive]
        for manager in managers:
            manager.kill()
        return f"killed {len(managers)}"

    def vips(self) -> str:
        lines = []
        for service in self.lab.backend.objects("Service"):
            namespace, name = service["metadata"].get("namespace", "default"), service["metadata"]["name"]
            lines.append(f"{namespace}/{name}: {' '.join(self.lab.vips(name, namespace)) or 'no address yet'}")
        return "\n".join(lines)

    def sessions(self) -> str:
        return "\n".join(f"{s.neighbor:12} {s.state} {s.detail}" for s in self.lab.router.sessions().values())

    def routes(self) -> str:
        table = self.lab.router.next_hops()
        return "\n".join(f"{prefix:20} {' '.join(sorted(hops))}" for prefix, hops in sorted(table.items())) or "none"

    def stream(self, vip: str, seconds: str = "5", *then: str) -> str:
        with self.lab.client.stream(vip, flows=4, interval=0.004) as stream:
            if then:
                time.sleep(2)
                print(self.do(" ".join(then)))
            time.sleep(float(seconds))
        return str(stream.report())

    def owner(self, mac: str) -> str:
        names = {node.mac: node.name for node in self.lab.nodes}
        return f"{mac} ({names.get(mac, 'no node')})"


def established(lab: Lab, seconds: float = 20.0) -> str:
    """Waits for the BGP sessions of the first router with every node, in both families. Returns a description of the
    result."""
    if not lab.routers:
        return "There is no router."
    wanted = {address for node in lab.nodes for address in (node.v4, node.v6)}
    with contextlib.suppress(LabError):
        lab.router.wait_established(wanted, seconds)
    return f"{len(lab.router.established() & wanted)} of {len(wanted)} BGP sessions are established."


def main() -> None:
    parser = argparse.ArgumentParser(prog="make lab", description=__doc__)
    parser.add_argument("--router", action="append", choices=sorted(KINDS), help="may be given twice")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--no-managers", action="store_true", help="start PorterLB by hand")
    options = parser.parse_args()
    try:
        with Lab(nodes=options.nodes, routers=options.router or ["bird"]) as lab:
            hold(lab, managers=not options.no_managers)
    except KeyboardInterrupt:
        pass
    except LabError as error:
        sys.exit(f"The lab cannot run: {error}")
    print("\nEverything is removed.")


def hold(lab: Lab, managers: bool) -> None:
    for sample in sorted(SAMPLES.glob("*.yaml")):
        shutil.copy(sample, directory(lab))
    print(tour(lab), flush=True)
    if managers:
        started = [lab.start_manager(node, remember=True) for node in lab.nodes]
        print(f"{established(lab)}", flush=True)
        for process in started:
            if not process.alive:
                print(f"{process.name} has ended with {process.returncode}; its log: {process.log}")
    prompt = Prompt(lab)
    interactive = sys.stdin.isatty()
    while True:
        if interactive:
            print("> ", end="", flush=True)
        line = sys.stdin.readline()
        if not line and not interactive:  # no terminal: wait for a signal
            signal.pause()
        if not line.strip():
            return
        print(prompt.do(line), flush=True)


if __name__ == "__main__":
    main()
