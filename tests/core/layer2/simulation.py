"""Replicas on segments, in memory: the real liveness code on a virtual clock, with loss, filters and power cuts.

A seed makes a run reproducible. Times are in seconds; a frame or a datagram takes 0.2 ms.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable
from ipaddress import ip_interface

from porterlb.core.hello import GATEWAY, Hello
from porterlb.core.layer2.failure_detector import FailureDetector, Step, Timing
from porterlb.core.layer2.targets import Target, TargetKey
from porterlb.core.layer2.verdict import Place
from porterlb.core.observed import Nic

DEFAULT = Timing()
FAST = Timing(probe_interval=0.02, probe_misses=2, hello_interval=0.02, hello_fresh=0.06)
FLIGHT = 0.0002

Link = Callable[[str, str, int], bool]
"""Whether a frame from one node to another on a segment arrives."""


def _everything(sender: str, receiver: str, segment: int) -> bool:
    return True


class Replica:
    """One node: its kernel answers ARP while it has power; its replica judges the other nodes."""

    def __init__(self, world: World, name: str, timing: Timing, segments: Iterable[int], gateway: bool) -> None:
        self.world = world
        self.name = name
        self.powered = True
        self.timing = timing
        self.detector = FailureDetector(name, timing)
        self.up = dict.fromkeys(segments, True)
        self.gateway = gateway
        self.runs = True
        self.deaths: list[tuple[float, Place]] = []
        self.sequence = 0
        self._heard: dict[str, float] = {}
        self._dead: frozenset[Place] = frozenset()
        self._wake = 0

    @property
    def dead(self) -> set[tuple[str, int]]:
        return {(place.node, place.nic) for place in self.detector.judgement.dead}

    def configure(self) -> None:
        number = self.world.numbers[self.name]
        self.detector.set_nics(
            {
                s: Nic(f"eth{s}", s, bytes([2, 0, 0, 0, s, number]), up, (ip_interface(f"10.77.{s}.{number}/24"),))
                for s, up in self.up.items()
            }
        )
        targets = [
            Target(name, TargetKey(s, bytes([10, 77, s, self.world.numbers[name]])), s == 0, self.up[s])
            for name in self.world.names
            for s in self.world.segments_of[name]
            if name != self.name and s in self.up
        ]
        if self.gateway:
            targets.append(Target(GATEWAY, TargetKey(0, bytes([10, 77, 0, 254])), False, self.up[0]))
        self.detector.set_targets(targets, self.world.replicas.keys())

    def tick(self, now: float) -> None:
        self.detector.tick(now, 0.0)
        for probe in list(self.detector.due(lambda nic: self.up.get(nic, False))):
            self.detector.sent(probe.key)
            self._probe(probe.key)
        self.step(now)

    def hello_time(self, now: float) -> None:
        for name, at in list(self._heard.items()):
            if now >= at + self.timing.hello_fresh:
                del self._heard[name]
                self.detector.left(name)
        self.say(now)

    def say(self, now: float) -> None:
        self.sequence += 1
        hello = Hello(self.name, 1, self.sequence, segments=self.detector.speak(now, self.up))
        for other in self.world.replicas.values():
            if other is not self and self.world.hellos(self.name, other.name, 0) and not self.world.lost():
                self.world.after(FLIGHT, other.hears, hello)

    def hears(self, hello: Hello, now: float) -> None:
        if self.powered and self.runs:
            self._heard[hello.node] = now
            if self.detector.said(hello, now):
                self.step(now)

    def step(self, now: float) -> None:
        step: Step = self.detector.step(now, self.world.evidence(self.name, now))
        for probe in step.probes:
            self._probe(probe.key)
        if step.say:
            self.say(now)
        if step.changed:
            dead = self.detector.judgement.dead
            self.deaths += [(now, place) for place in sorted(dead - self._dead)]
            self._dead = dead
        if step.next_at is not None:
            self._wake += 1
            self.world.at(max(now, step.next_at), self._woken, self._wake)

    def _woken(self, number: int, now: float) -> None:
        if self.powered and self.runs and number == self._wake:
            self.step(now)

    def _probe(self, key: TargetKey) -> None:
        world, segment = self.world, key.nic
        node = world.node_at(key.address)
        if not self.up.get(segment, False) or not world.arp(self.name, node, segment) or world.lost():
            return
        if not world.answers(node, segment) or not world.arp(node, self.name, segment) or world.lost():
            return
        world.after(2 * FLIGHT, self._answered, key, node)

    def _answered(self, key: TargetKey, node: str, now: float) -> None:
        if not self.powered or not self.runs:
            return
        heard = self.detector.heard(*key, bytes([2, 0, 0, 0, key.nic, self.world.numbers[node]]), now)
        if heard is not None and heard.cleared:
            self.step(now)


class World:
    """``loss``: the probability for each frame and datagram, independently. ``extra``: nodes without a replica."""

    def __init__(
        self,
        *names: str,
        timing: Timing = DEFAULT,
        loss: float = 0.0,
        seed: int = 1,
        gateway: bool = False,
        extra: tuple[str, ...] = (),
        segments: tuple[int, ...] = (0,),
    ) -> None:
        self.now = 1000.0
        self.loss = loss
        self.arp: Link = _everything
        self.hellos: Link = _everything
        self.evidence: Callable[[str, float], float] = lambda name, now: 0.0
        self.names = (*names, *extra)
        self.numbers = {name: place for place, name in enumerate((*self.names, GATEWAY), 1)}
        self.numbers[GATEWAY] = 254
        self.segments_of = dict.fromkeys(self.names, segments)
        self.off: set[str] = set()
        self._random = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = itertools.count()
        self.replicas: dict[str, Replica] = {}
        for name in names:
            self.replicas[name] = Replica(self, name, timing, segments, gateway)
        for replica in self.replicas.values():
            replica.configure()
            for interval, do in ((timing.probe_interval, replica.tick), (timing.hello_interval, replica.hello_time)):
                self.after(self._random.uniform(0.0, interval), self._every, interval, do, replica)

    def lost(self) -> bool:
        return self._random.random() < self.loss

    def node_at(self, address: bytes) -> str:
        return next(name for name, number in self.numbers.items() if number == address[3])

    def answers(self, node: str, segment: int) -> bool:
        """The kernel of a node answers, whatever the state of its processes."""
        replica = self.replicas.get(node)
        return node not in self.off and (replica is None or replica.up.get(segment, False))

    def power_off(self, name: str) -> None:
        self.off.add(name)
        if name in self.replicas:
            self.replicas[name].powered = False

    def power_on(self, name: str) -> None:
        self.off.discard(name)
        if name in self.replicas:
            self.replicas[name].powered = True

    def set_up(self, name: str, segment: int, up: bool) -> None:
        """Sets the carrier of an interface."""
        replica = self.replicas[name]
        replica.up[segment] = up
        replica.configure()
        replica.step(self.now)

    def at(self, when: float, do: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._queue, (when, next(self._count), do, arguments))

    def after(self, seconds: float, do: Callable[..., None], *arguments: object) -> None:
        self.at(self.now + seconds, do, *arguments)

    def _every(self, interval: float, do: Callable[[float], None], replica: Replica, now: float) -> None:
        if replica.powered and replica.runs:
            do(now)
        self.at(now + interval, self._every, interval, do, replica)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            self.now, _, do, arguments = heapq.heappop(self._queue)
            do(*arguments, self.now)
        self.now = end

    def until(self, true: Callable[[], bool], patience: float = 2.0) -> float:
        """Runs until a condition holds, and returns the elapsed time. Raises AssertionError after the time limit."""
        begun = self.now
        while not true():
            assert self.now - begun < patience, "it does not happen"
            self.run(0.0005)
        return self.now - begun

    @property
    def deaths(self) -> list[tuple[float, str, str, int]]:
        """Every declared death: when, by which node, of which node, on which segment."""
        return sorted(
            (at, replica.name, place.node, place.nic)
            for replica in self.replicas.values()
            for at, place in replica.deaths
        )
