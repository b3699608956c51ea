"""The API process of ExaBGP: passes its ends of ExaBGP's pipes to the manager, then only watches for signs of life.

ExaBGP starts it (python3 -IS api.py SOCKET SECONDS) with its pipes as descriptors 0 and 1. They are sent to the manager
over the Unix socket (SCM_RIGHTS); from then on the manager talks to ExaBGP directly, without a relay or a copy. The
manager sends a byte regularly. If none arrives for SECONDS, the manager hangs: then the routes are withdrawn, so that
other replicas serve, and ExaBGP is ended. If the socket closes, the manager is gone, and ExaBGP ends by
PR_SET_PDEATHSIG.
"""

import array
import os
import signal
import socket
import sys
import time

GOODBYE = 1.0  # seconds until the withdrawals are sent
PATIENCE = 3.0  # seconds for ExaBGP to end; it ignores SIGTERM if its pipe is full


def main() -> None:
    exabgp = os.getppid()
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    folder, name = os.path.split(sys.argv[1])
    os.chdir(folder)  # the whole path may be longer than the 107 bytes allowed for a socket
    link.connect(name)
    link.sendmsg([b"F"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1]))])
    link.settimeout(float(sys.argv[2]))
    try:
        while link.recv(64):
            pass
    except TimeoutError:
        say_goodbye(exabgp)
    except OSError:
        pass


def say_goodbye(exabgp: int) -> None:
    os.set_blocking(1, False)
    try:
        os.write(1, b"\nclear adj-rib out\n")  # the manager may have stopped in the middle of a line
        time.sleep(GOODBYE)
    except OSError:
        pass
    for what in (signal.SIGTERM, signal.SIGKILL):
        if os.getppid() != exabgp:
            return
        os.kill(exabgp, what)
        time.sleep(PATIENCE)


if __name__ == "__main__":
    main()
