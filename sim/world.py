"""The virtual clock, the queue of events, and the processes that the events belong to."""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

from sim.loop import SimLoop

Action = Callable[..., Any]


SPINNING = 50_000
"""Events at one moment that count as an endless loop: a day of a stopped process causes fewer."""


class Spinning(Exception):
    """Something asks endlessly to be called again at once."""


class Process:
    """One process of a node. Its events wait while it is stopped, and are lost once it has ended.

    ``clock``: offset of its monotonic time from the world's time. ``children`` get SIGTERM when it ends.
    """

    def __init__(self, world: World, name: str, node: str, clock: float) -> None:
        self.world = world
        self.name = name
        self.node = node
        self.clock = clock
        self.random = random.Random(f"{world.seed}/{name}/{world.now}")
        self.alive = True
        self.stopped = False
        self.code: int | None = None
        self.begins = world.now  # when its main coroutine begins
        self.manager: Any = None  # the manager that runs in it
        self.loop = SimLoop(self)  # type: ignore[abstract]
        self.handlers: dict[int, tuple[Action, tuple[Any, ...]]] = {}
        self.children: list[Process] = []
        self.on_end: list[Action] = []
        self._late: list[tuple[int, Action, tuple[Any, ...]]] = []
        world.processes.append(self)

    def deliver(self, kind: int, do: Action, arguments: tuple[Any, ...]) -> None:
        """Delivers one event of this process, at its time. ``kind``: 0 an arrival, 1 a timer."""
        if not self.alive:
            return
        if self.stopped:
            self._late.append((kind, do, arguments))
            return
        self.loop.turn(do, arguments)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stopped = True

    def resume(self) -> None:
        """SIGCONT: arrivals are read first, then the timers run, as in an event loop."""
        if not self.stopped or not self.alive:
            return
        self.stopped = False
        late, self._late = self._late, []
        for kind, do, arguments in sorted(late, key=lambda one: one[0]):
            self.world.at(self.world.now, do, *arguments, process=self, kind=kind)

    def signal(self, number: int) -> None:
        """Calls the process's handler of a signal; without a handler, ends the process."""
        if number in self.handlers and self.alive:
            do, arguments = self.handlers[number]
            self.world.at(self.world.now, do, *arguments, process=self, kind=0)
        elif number not in self.handlers:
            self.end(-number)

    def end(self, code: int) -> None:
        """The process is gone; nothing of it runs any longer."""
        if not self.alive:
            return
        self.alive = False
        self.code = code
        self._late.clear()
        for child in self.children:
            self.world.after(0.001, child.signal, 15)
        for do in self.on_end:
            do()


class World:
    """Runs events in the order of their times; events of the same time in the order in which they were created."""

    def __init__(self, seed: int | str) -> None:
        self.seed = seed
        self.now = 0.0
        self.random = random.Random(f"{seed}/world")
        self.processes: list[Process] = []
        self.current: Process | None = None
        self.events = 0
        self.after_event: Action = lambda: None
        self.dirty = False
        """Something that a promise depends on may have changed."""
        self._queue: list[tuple[float, int, Process | None, int, Action, tuple[Any, ...]]] = []
        self._count = itertools.count()
        self.said: deque[tuple[float, str, str]] = deque(maxlen=20000)

    def at(self, when: float, do: Action, *arguments: Any, process: Process | None = None, kind: int = 1) -> None:
        heapq.heappush(self._queue, (max(when, self.now), next(self._count), process, kind, do, arguments))

    def after(self, seconds: float, do: Action, *arguments: Any, process: Process | None = None, kind: int = 1) -> None:
        heapq.heappush(self._queue, (self.now + seconds, next(self._count), process, kind, do, arguments))

    def say(self, who: str, text: str) -> None:
        """Adds a line to the timeline."""
        self.said.append((self.now, who, text))

    def run(self, until: float) -> None:
        queue, spinning, pop = self._queue, 0, heapq.heappop
        while queue and queue[0][0] <= until:
            at, _, process, kind, do, arguments = pop(queue)
            spinning = spinning + 1 if at == self.now else 0
            if spinning > SPINNING:
                raise Spinning(f"time does not go on at {at}: {do} of {process.name if process else 'the world'}")
            self.now = at
            self.events += 1
            if process is None:
                do(*arguments)
            elif process.alive and not process.stopped:
                process.loop.turn(do, arguments)  # as deliver()
            else:
                process.deliver(kind, do, arguments)
            if self.dirty:
                self.dirty = False
                self.after_event()
        self.now = until
