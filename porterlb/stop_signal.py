"""SIGTERM and SIGINT of the manager, from its first moment."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

_FIRST_PROCESS = 1


def hold() -> None:
    """In a container, keeps SIGTERM pending until :func:`follow`.

    The first process of a container does not get signals that it has no handler for: the kernel discards them. A pod
    that is deleted while its manager starts would run until the kubelet kills it, 30 s later; routers would then keep
    its routes for the restart time. The kernel does not discard a signal that is blocked. The chart blocks it before
    Python starts (``env --block-signal``).
    """
    if os.getpid() == _FIRST_PROCESS:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def follow(stop: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    """Sets ``stop`` when a signal arrives, or has arrived already."""
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
