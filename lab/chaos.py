"""Random kills and stops, and the invariants that must hold after each: ``python -m lab.chaos --steps 300 --router
frr``.

Three replicas announce two Services to one router and serve three more by Layer 2: one on each segment, and one that
gives each host its own next hop (`layer2Spread: hosts`). A step kills, or stops and continues, one part: a manager, its
ExaBGP, the API process of ExaBGP, the wire process, the router's daemon. Or it starts a fault of `lab.chaos_network`:
loss, a filter, a one-way link, a second NIC that fails, a router that changes its capabilities, another controller that
writes the status of a Service. After every few steps, all faults end, and the wanted state must be restored: exactly
the router's next hops, one MAC per Layer 2 VIP, every replica in agreement. Then another controller sometimes writes
into the status of one Service: its VIP must stay served.

Meanwhile the router's table is checked continuously: **no route of a dead manager may outlive the hold time or, if
graceful restart keeps it, the restart time** that was requested. As no node loses its power, **no endpoint of a node
may be marked as not ready**. One case is counted separately: a node that a partition or a filter has cut off and that
has no running manager, or no wire process, at that moment. It cannot be distinguished from a node without power.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from lab.chaos_network import FAULTS, partition, write_foreign
from lab.client import Client
from lab.cluster import Lab
from lab.frames import who_has
from lab.measure import wait_equal, wait_until
from lab.netns import LabError
from lab.process import Process

HOLD, RESTART = 6, 12  # seconds, of the BgpPeer
SLACK = 4.0  # tolerance in seconds, for a busy machine and for the checks themselves
PARTS = {"exabgp": "exabgp.conf", "api process": "api.py", "wire": "porterlb.wire"}
CALM = 90.0  # seconds within which the wanted state must be restored
SEEN_LATE = 1.0  # seconds by which a mark may be observed later than it was decided
# Seconds within which a new wire process runs, and its manager has reported that it is alive
DEAF = 3.0
START = 5.0  # seconds within which a manager has started and hears the others
SERVICES = {"everywhere": "chaos", "somewhere": "chaos", "first": "segment", "second": "second", "hosts": "spread"}
"""Service -> Eip."""
LAYER2 = {"first": 0, "second": 1, "hosts": 0}
"""Service -> NIC of its segment."""
ROBBED_FOR = 1.0
"""Observation time, in seconds, of the VIP of a Service whose status another controller has written."""


@dataclass
class Watcher:
    """Checks how long the router keeps routes from a neighbor whose manager is dead."""

    lab: Lab
    dead_since: dict[str, float] = field(default_factory=dict)  # by the node's address
    longest: float = 0.0
    errors: list[str] = field(default_factory=list)
    mute: dict[str, float] = field(default_factory=dict)  # end of the time without a manager or wire process
    cut: dict[str, float] = field(default_factory=dict)  # the last time at which a partition cut off a node
    filtered: set[str] = field(default_factory=set)  # nodes whose frames a filter drops now
    marked: set[str] = field(default_factory=set)  # nodes whose endpoints are marked now
    unknowable: int = 0  # marked while mute and cut off
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Watcher:
        self._thread = threading.Thread(target=self._run, name="chaos-watcher", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        assert self._thread is not None
        self._thread.join(10)

    def _run(self) -> None:
        while not self._end.wait(0.1):
            self._look_at_marks(time.monotonic())
            dead = dict(self.dead_since)
            if not dead:
                continue
            asked = time.monotonic()
            with contextlib.suppress(LabError, OSError):  # the router itself does not run
                paths = self.lab.router.paths("v4")
                for neighbor in {path.neighbor for found in paths.values() for path in found} & dead.keys():
                    # still dead, and not restarted in the meantime
                    if self.dead_since.get(neighbor) == dead[neighbor]:
                        self._stale(neighbor, asked - dead[neighbor])

    def _look_at_marks(self, now: float) -> None:
        names = [node.name for node in self.lab.nodes]  # also the names of their ports on the first segment
        parted = {a for a in names for b in names if self.lab.net.parted(a, b)}
        self.cut.update(dict.fromkeys(parted | self.filtered, now))
        marked = {node.name for node in self.lab.nodes if is_marked(self.lab, node.name)}
        for name in marked - self.marked:
            if min(self.mute.get(name, 0.0), self.cut.get(name, 0.0)) >= now - SEEN_LATE:
                self.unknowable += 1
            else:
                self.errors.append(f"the endpoints of {name} were marked as not ready, and it lives")
        self.marked = marked

    def _stale(self, neighbor: str, age: float) -> None:
        self.longest = max(self.longest, age)
        if age > HOLD + RESTART + SLACK:
            self.errors.append(f"a route of {neighbor} is there {age:.1f} s after the death of its manager")


def is_marked(lab: Lab, node: str) -> bool:
    """Whether the product has written that the node's endpoints must not be used."""
    conditions = lab.backend.status("Node", node).get("conditions") or []
    return any(one["type"] == "EndpointsReady" and one["status"] == "False" for one in conditions)


class Chaos:
    """One seeded run."""

    def __init__(self, lab: Lab, seed: int, say: Callable[[str], None] = print) -> None:
        self.lab, self.random, self.say = lab, random.Random(seed), say
        self.managers: dict[str, Process] = {}
        self.stopped: list[tuple[float, int]] = []  # (end time, PID)
        self.counted: Counter[str] = Counter()
        self.slowest = 0.0
        self.watcher = Watcher(lab)
        self.healing: list[tuple[float, Callable[[], None]]] = []
        self.addresses: dict[str, str] = {}

    # Start

    def prepare(self) -> None:
        lab = self.lab
        self.config = lab.router.config
        lab.bgp_conf()
        lab.eip("chaos", "172.16.0.0/28", protocol="bgp")
        lab.eip("segment", "10.77.0.220-10.77.0.229", protocol="layer2")
        lab.eip("second", "10.79.0.220-10.79.0.229", protocol="layer2")
        lab.eip("spread", "10.77.0.230-10.77.0.239", protocol="layer2", layer2Spread="hosts")
        lab.peer(timers={"config": {"holdTime": HOLD}}, gracefulRestart={"enabled": True, "restartTime": RESTART})
        for node in lab.nodes:
            self.start(node.name)
        for name, eip in SERVICES.items():
            pods = [lab.pods[0]] if name == "somewhere" else None
            lab.service(name, pods, policy="Local", annotations={"eip.porter.kubesphere.io/v1alpha2": eip})
        self.addresses = {name: lab.wait_vips(name, timeout=CALM)[0] for name in SERVICES}
        wait_until(self._recorded, CALM, "the next hops of the Layer 2 VIPs to be recorded")
        self.settle()

    def _recorded(self) -> bool:
        """Until the next hops are recorded, a VIP may still move to another node."""
        vips = [self.addresses[name] for name in ("first", "second")]
        states = [self.lab.state(node.name) for node in self.lab.nodes]
        return all(state.get("vips", {}).get(vip, {}).get("recorded") for state in states for vip in vips)

    def start(self, name: str) -> None:
        options: tuple[str, ...] = (
            "--settle-after",
            "1",
            "--return-after",
            "1",
            "--mark-pods-not-ready",
            "--mark-again-after",
            "1",
        )
        options += ("--rebalance-after", "2", "--rebalance-pace", "0.5")
        self.managers[name] = self.lab.start_manager(name, *options)
        self.watcher.mute[name] = time.monotonic() + START
        self.watcher.dead_since.pop(self.lab.node(name).v4, None)

    # Disturbances

    def step(self) -> None:
        """One random disturbance. A stopped or cut-off part continues automatically some time later."""
        name = self.random.choice([node.name for node in self.lab.nodes])
        kinds = [self.kill_manager, self.stop_manager, self.kill_part, self.stop_part, self.end_manager]
        kinds += [self.kill_part, self.stop_part, self.router_goes, self.router_stops, self.stop_leader]
        self.random.choice([*kinds, *[self.network] * len(FAULTS)])(name)
        self.heal(time.monotonic())

    def kill_manager(self, name: str) -> None:
        self.note("manager killed")
        self.managers[name].kill()
        self.gone(name)

    def end_manager(self, name: str) -> None:
        self.note("manager ended")
        self.managers[name].signal(signal.SIGTERM)
        with contextlib.suppress(LabError):
            self.managers[name].wait(5.0)
        self.managers[name].kill()  # if it has not ended
        self.gone(name)

    def gone(self, name: str) -> None:
        self.watcher.mute[name] = float("inf")
        self.watcher.dead_since.setdefault(self.lab.node(name).v4, time.monotonic())
        self.later(self.random.choice([0.0, 0.5, 3.0]), lambda: self.start(name) if not self.alive(name) else None)

    def alive(self, name: str) -> bool:
        return self.managers[name].alive

    def stop_manager(self, name: str) -> None:
        self.note("manager stopped")
        self.stop(self.managers[name].pid, self.muted(name))

    def muted(self, name: str) -> Callable[[], None]:
        """The node has no running manager from now on. Returns the function to call once it runs again."""
        self.watcher.mute[name] = float("inf")

        def again() -> None:
            if self.alive(name):
                self.watcher.mute[name] = time.monotonic() + SEEN_LATE

        return again

    def stop_leader(self, name: str) -> None:
        """Stops the leader, possibly for longer than its lease, while another node is cut off. Then the leader
        continues."""
        leader = self.lab.leader()
        if leader not in self.managers or not self.alive(leader):
            return
        self.note("leader stopped and woken up")
        others = [node.name for node in self.lab.nodes if node.name != leader]
        what, end = partition(self.lab, self.random.choice(others), self.random)
        self.note(what)
        time.sleep(self.random.choice([0.1, 0.2, 0.3, 0.4]))
        again, pid = self.muted(leader), self.managers[leader].pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.random.choice([0.0, 6.0]))
            end()
            time.sleep(self.random.choice([0.0, 0.5]))
            os.kill(pid, signal.SIGCONT)
        again()

    def kill_part(self, name: str) -> None:
        part = self.random.choice(sorted(PARTS))
        if pid := self.pid_of(name, part):
            self.note(f"{part} killed")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if part == "wire":
                self.watcher.mute[name] = max(self.watcher.mute.get(name, 0.0), time.monotonic() + DEAF)

    def stop_part(self, name: str) -> None:
        part = self.random.choice(sorted(PARTS))
        if pid := self.pid_of(name, part):
            self.note(f"{part} stopped")
            self.stop(pid, self.muted(name) if part == "wire" else lambda: None)

    def router_goes(self, name: str) -> None:
        self.note("router restarted")
        router = self.lab.router
        self.random.choice([router.kill_daemon, router.stop_daemon])()
        time.sleep(self.random.choice([0.0, 0.5]))
        router.start_daemon()

    def router_stops(self, name: str) -> None:
        self.note("router stopped")
        if process := self.lab.router.process:
            self.stop(process.pid)

    def network(self, node: str) -> None:
        what, end = self.random.choice(FAULTS)(self.lab, node, self.random)
        self.note(what)
        if what.startswith(("filter", "one-way")):
            self.watcher.filtered.add(node)

        def over() -> None:
            end()
            self.watcher.filtered.discard(node)

        self.later(self.random.choice([0.2, 1.0, 3.0]), over)

    def note(self, what: str) -> None:
        self.counted[what] += 1

    def pid_of(self, name: str, part: str) -> int:
        with contextlib.suppress(LabError, OSError):
            return self.managers[name].find(PARTS[part])
        return 0  # it is starting, or its manager is dead

    def stop(self, pid: int, again: Callable[[], None] = lambda: None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)

            def go_on() -> None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
                again()

            self.later(self.random.choice([0.2, 1.0, 3.0]), go_on)

    # Recovery

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.healing.append((time.monotonic() + seconds, what))

    def heal(self, now: float) -> None:
        due = [what for at, what in self.healing if at <= now]
        self.healing = [(at, what) for at, what in self.healing if at > now]
        for what in due:
            what()

    def settle(self, *, foreign: bool = True) -> float:
        """Ends all disturbances, starts all managers, and waits until the wanted state is restored, within CALM
        seconds. Returns the elapsed seconds. ``foreign``: afterwards, another controller may write a status."""
        begun = time.monotonic()
        while self.healing:
            self.heal(float("inf"))
        for name, process in self.managers.items():
            if not process.alive:
                self.start(name)
        lab = self.lab
        # A router that was stopped or did not run may have missed the end of a fault.
        lab.router.reconfigure(self.config)
        vips = self.addresses
        wanted = self.routes()
        addresses = {node.v4 for node in lab.nodes}

        right = {
            "sessions": addresses,
            "routes": wanted,
            "addresses": {name: [vip] for name, vip in vips.items()},
            "one answer for": list(LAYER2),
            "replicas agree": True,
            "endpoints marked": set(),
        }

        def seen() -> dict[str, object]:
            return {
                "sessions": lab.router.established(),
                "routes": lab.router.routes(),
                "addresses": {name: lab.vips(name) for name in SERVICES},
                "one answer for": [name for name in LAYER2 if self.one_answer(name)],
                "replicas agree": self.agreed(),
                "endpoints marked": {node.name for node in lab.nodes if is_marked(lab, node.name)},
            }

        wait_equal(seen, right, CALM, "everything to be as wanted", interval=0.1)
        if lab.router.programs_kernel:
            wait_equal(lab.router.kernel_routes, wanted, 10, "the kernel's routes")
        took = time.monotonic() - begun
        self.slowest = max(self.slowest, took)
        if foreign and self.random.random() < 0.3:
            self.rob(self.random.choice(sorted(SERVICES)))
        return took

    def routes(self) -> dict[str, frozenset[str]]:
        """The expected routes of the router without faults."""
        lab, vips = self.lab, self.addresses
        return {
            f"{vips['everywhere']}/32": lab.hops(*(node.name for node in lab.nodes)),
            f"{vips['somewhere']}/32": lab.hops(lab.nodes[0].name),
        }

    def rob(self, name: str) -> None:
        """Another controller writes its address into the status of a Service. The VIP stays served, and the status gets
        the VIP again (after a delay that grows with each of these writes)."""
        lab, vip = self.lab, self.addresses[name]
        self.note("foreign writer while all is well")
        write_foreign(lab, name)
        begun = time.monotonic()
        while time.monotonic() < begun + ROBBED_FOR:
            served = self.one_answer(name) if name in LAYER2 else lab.router.routes() == self.routes()
            if not served:
                raise LabError(f"{vip} of {name} is not served as wanted while another controller writes its status")
        wait_equal(lambda: lab.vips(name), [vip], CALM, f"the status of {name} to have its own address again")

    def client(self, service: str) -> Client:
        """The client on the segment of a Layer 2 Service."""
        return (self.lab.segment_client, self.lab.second_client)[LAYER2[service]]

    def one_answer(self, service: str) -> bool:
        """Whether a client receives exactly one MAC for a VIP, and the MAC belongs to a node."""
        given = {answer.mac for answer in who_has(self.client(service), self.addresses[service], 0.2)}
        return len(given) == 1 and given <= {node.nics[LAYER2[service]].mac for node in self.lab.nodes}

    def agreed(self) -> bool:
        digests = set()
        for node in self.lab.nodes:
            code, body = self.lab.manager_http(node)
            plan = json.loads(body).get("plan", {}) if code == 200 else {}
            if not plan or plan["applied"] != plan["digest"]:
                return False
            digests.add(plan["digest"])
        return len(digests) == 1

    def run(self, steps: int, seconds: float = float("inf")) -> int:
        """Makes `steps` steps, or as many as fit into the time. Returns the number of steps."""
        deadline = time.monotonic() + seconds
        done = 0
        with self.watcher:
            while done < steps and time.monotonic() < deadline:
                for _ in range(min(self.random.randint(3, 12), steps - done)):
                    self.step()
                    done += 1
                    time.sleep(self.random.choice([0.0, 0.05, 0.3, 1.0]))
                took = self.settle()
                self.say(f"{done} steps; as wanted again after {took:.1f} s")
                if self.watcher.errors:
                    raise LabError("; ".join(self.watcher.errors[:3]))
        return done

    def summary(self) -> str:
        return (
            f"{sum(self.counted.values())} disturbances {dict(sorted(self.counted.items()))}; slowest return "
            f"{self.slowest:.1f} s; a route outlived its manager by {self.watcher.longest:.1f} s at most "
            f"(hold {HOLD} s, restart {RESTART} s); {self.watcher.unknowable} nodes marked that a partition had cut "
            "off while their manager did not run"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lab.chaos", description="Random kills and stops on the lab.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end the disturbing after so long")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run; a new one by default")
    parser.add_argument("--nodes", type=int, default=3, help="partitions are 2-1 with three, 3-1 and 2-2 with four")
    parser.add_argument("--router", default="bird", help="bird, frr, gobgp or openbgpd")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}, router {options.router}", flush=True)
    with Lab(nodes=options.nodes, routers=[options.router], pod_servers=False, second=True) as lab:
        chaos = Chaos(lab, seed, lambda line: print(line, flush=True))
        try:
            chaos.prepare()
            chaos.run(options.steps, options.seconds)
        except LabError as error:
            for name, process in chaos.managers.items():
                print(f"--- {name}\n{process.output()[-3000:]}", file=sys.stderr)
            print(f"seed {seed}: {error}\n{chaos.summary()}", file=sys.stderr)
            return 1
        print(chaos.summary())
    return 0


if __name__ == "__main__":
    sys.exit(main())
