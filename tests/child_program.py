"""Started by tests/test_child_process.py, with its role as the first argument."""

from __future__ import annotations

import json
import socket
import sys
import time


def main(part: str, beats: int) -> int:
    pipe, heard = socket.socket(fileno=0), socket.socket(fileno=beats)

    def say(**message: object) -> None:
        pipe.sendall(json.dumps(message).encode() + b"\n")

    if part == "dies":
        return 3
    say(part=part)
    if part == "silent":
        time.sleep(60)
    if part == "beaten":
        say(beat=heard.recv(1).decode())
    for line in pipe.makefile():
        if line == "end\n" and part != "stubborn":
            return 0
        say(heard=line.strip())
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2])))
