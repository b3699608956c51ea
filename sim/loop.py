"""An asyncio event loop on the virtual clock: one for each simulated process.

It has only what PorterLB uses. Callbacks that are ready run at once; timers go into the world's queue, where they wait
while the process is stopped.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from sim.sockets import world_streams

if TYPE_CHECKING:
    from sim.world import Process


LATE = 1e-7
"""Seconds by which a timer is late, so that rounding never makes it early: its caller expects the time to be over."""


SPINNING = 100_000
"""Callbacks in one turn that count as an endless loop."""


class Handle:
    """The handle of a callback, with the methods of asyncio's handles."""

    __slots__ = ("_arguments", "_callback", "_context", "_when", "done")

    def __init__(
        self, when: float, callback: Callable[..., Any], arguments: tuple[Any, ...], context: contextvars.Context | None
    ) -> None:
        self._when = when
        self._callback: Callable[..., Any] | None = callback
        self._arguments = arguments
        self._context = context
        self.done = False

    def when(self) -> float:
        return self._when

    def cancel(self) -> None:
        self._callback = None
        self._arguments = ()

    def cancelled(self) -> bool:
        return self._callback is None

    @property
    def told(self) -> str:
        return repr(self._callback)

    def run(self) -> None:
        callback = self._callback
        if callback is None:
            return
        if self._context is None:
            callback(*self._arguments)
        else:
            self._context.run(callback, *self._arguments)


class SimLoop(asyncio.AbstractEventLoop):
    """``failed``: exceptions of callbacks, and of tasks that were never awaited."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._world = process.world
        self._clock = process.clock
        self._ready: deque[Handle] = deque()
        self._running = False
        self.readers: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.failed: list[str] = []

    # ---- time and callbacks

    def time(self) -> float:
        return self._world.now + self._clock

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        handle = Handle(0.0, callback, args, context)
        self._ready.append(handle)
        if not self._running:
            self._world.at(self._world.now, _nothing, process=self._process, kind=0)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        return self.call_at(self._world.now + self._clock + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:  # type: ignore[override]
        handle = Handle(when, callback, args, context)
        self._world.at(when - self._clock + LATE, handle.run, process=self._process)
        return handle

    def turn(self, do: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        """Runs one event of the process, and everything that it makes ready."""
        world = self._world
        assert world.current is None, "one process at a time"
        events._set_running_loop(self)
        world.current, self._running = self._process, True
        try:
            try:
                do(*arguments)
            except (KeyboardInterrupt, SystemExit, AssertionError):
                raise
            except Exception as error:
                self._failed(error)
            if self._ready:
                self._run_ready()
        finally:
            self._running = False
            world.current = None
            events._set_running_loop(None)

    def _run_ready(self) -> None:
        ready, process = self._ready, self._process
        turns = 0
        while ready and process.alive:
            turns += 1
            if turns > SPINNING:
                raise AssertionError(f"{process.name} turns without end: {ready[0].told}")
            try:
                ready.popleft().run()
            except (KeyboardInterrupt, SystemExit, AssertionError):
                raise
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.call_exception_handler({"message": "a callback has failed", "exception": error})

    # ---- what asyncio requires of a loop

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Coroutine[Any, Any, Any], *, name: Any = None, context: Any = None) -> Any:  # type: ignore[override]
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return not self._process.alive

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._process.alive:
            return  # its tasks ended with it
        text = f"{context.get('message')}: {context.get('exception')!r}"
        self.failed.append(text)
        self._world.say(self._process.name, text)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        self.call_exception_handler(context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Runs at once: in the simulator a thread takes no time."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    # ---- sockets and signals

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        fd = self._stream(fd)
        self.readers[id(fd)] = (callback, args)
        if getattr(fd, "waiting", False):
            self.call_soon(fd.readable)

    def remove_reader(self, fd: Any) -> Any:
        return self.readers.pop(id(self._stream(fd)), None) is not None

    def _stream(self, fd: Any) -> Any:
        """The stream with this number; anything else is its own descriptor."""
        return world_streams(self._world).get(fd, fd) if isinstance(fd, int) else fd

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        raise NotImplementedError

    def remove_writer(self, fd: Any) -> Any:
        return False

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:  # type: ignore[override]
        self._process.handlers[int(sig)] = (callback, args)


def _nothing() -> None:
    pass
