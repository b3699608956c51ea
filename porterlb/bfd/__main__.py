"""``python -m porterlb.bfd``: started by the manager, with one end of a stream socket as its standard input."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys

from porterlb import logs
from porterlb.bfd.process import BfdProcess
from porterlb.capabilities import keep_only

_PR_SET_PDEATHSIG = 1


def main() -> int:
    keep_only()
    parent = os.getppid()
    # When the manager ends, even if it is killed, we get SIGTERM, so that the routers are told.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return 0
    try:
        log_format, silence_after, beat = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
        pipe, beats = socket.socket(fileno=os.dup(0)), socket.socket(fileno=beat)
    except (IndexError, ValueError, OSError):
        print("porterlb.bfd is started by `porterlb manager`, not by hand.", file=sys.stderr)
        return 2
    woken, wake = socket.socketpair()
    wake.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        logs.set_up(log_format)
        process = BfdProcess(pipe, beats, woken, silence_after)
        gc.freeze()
        process.run()
    except (OSError, RuntimeError) as error:
        print(f"porterlb.bfd: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
