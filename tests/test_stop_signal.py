"""SIGTERM while the manager starts."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import asyncio, os, signal
own = os.getpid()
os.getpid = lambda: {pid} or own
from porterlb import stop_signal
stop_signal.hold()
os.kill(own, signal.SIGTERM)
async def main():
    stop = asyncio.Event()
    stop_signal.follow(stop, asyncio.get_running_loop())
    await asyncio.wait_for(stop.wait(), 5)
    print("stopped in order", signal.pthread_sigmask(signal.SIG_BLOCK, ()))
asyncio.run(main())
"""


@pytest.mark.parametrize(("pid", "code", "printed"), [(1, 0, "stopped in order set()\n"), (0, -15, "")])
def test_the_first_process_of_a_container_keeps_an_early_sigterm(pid: int, code: int, printed: str) -> None:
    """The kernel would discard it. Any other process ends, as usual."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(pid=pid)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout) == (code, printed), done.stderr
