"""Loads and attaches the eBPF responder: ``python -m porterlb.loader FD``, started by the wire process.

It keeps CAP_BPF and CAP_NET_ADMIN, which the wire process gives up. It reads requests from one end of a SOCK_SEQPACKET
pair, each for one interface, and sends the descriptors of the link and of the maps back. It ends with the wire process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from pathlib import Path

from porterlb import bpf
from porterlb.capabilities import Capability, keep_only
from porterlb.core.ebpf import records
from porterlb.core.ebpf.refusals import Step
from porterlb.core.ebpf.responder import responder

REQUEST = struct.Struct("<QI")  # number, interface index
OUTCOME = struct.Struct("<QBi")  # number, step that failed (or DONE), errno
DESCRIPTORS = 4  # link, table, state, queue of questions

MOST_VIPS = 131_072
MOST_WAITING = 4096
"""Questions in the queue: the wire process reads it every 250 ms."""


class Failed(Exception):
    """A step failed with an errno."""

    def __init__(self, step: Step, error: int) -> None:
        super().__init__(step, error)
        self.step = step
        self.error = error


def load(ifindex: int) -> tuple[int, int, int, int]:
    """Attaches a responder with empty maps to an interface: link, table, state, queue. Raises Failed."""
    opened: list[int] = []
    step = Step.MACHINE
    try:
        if not bpf.supported() or sys.byteorder != "little" or _clock_is_shifted():
            raise Failed(step, 0)
        step = Step.CREATE
        late = bpf.ALLOCATE_LATE
        table = bpf.create_map(bpf.HASH, records.KEY_SIZE, records.ENTRY_SIZE, MOST_VIPS, late, "porterlb_vips")
        opened.append(table)
        state = bpf.create_map(bpf.ARRAY, 4, records.STATE_SIZE, 1, bpf.MAPPABLE, "porterlb_state")
        opened.append(state)
        asked = bpf.create_map(bpf.QUEUE, 0, records.ASKED_SIZE, MOST_WAITING, 0, "porterlb_asked")
        opened.append(asked)
        step = Step.LOAD
        program = bpf.load_classifier(responder(table, state, asked), "porterlb", "Apache-2.0")
        step = Step.ATTACH
        try:
            link = bpf.attach(program, ifindex)
        finally:
            os.close(program)  # the link holds the program
    except OSError as error:
        for descriptor in opened:
            os.close(descriptor)
        raise Failed(step, error.errno or 0) from error
    return link, table, state, asked


def _clock_is_shifted() -> bool:
    """Whether CLOCK_MONOTONIC differs from that of the kernel: time_namespaces(7)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/timens_offsets").read_text().splitlines():
            name, *offset = line.split()
            if name in ("monotonic", "1") and any(map(int, offset)):
                return True
    return False


def serve(requests: socket.socket) -> None:
    """Handles requests until the other end is closed."""
    while data := requests.recv(REQUEST.size):
        number, ifindex = REQUEST.unpack(data)
        opened: tuple[int, ...] = ()
        try:
            opened = load(ifindex)
            outcome = OUTCOME.pack(number, Step.DONE, 0)
        except Failed as failure:
            outcome = OUTCOME.pack(number, failure.step, failure.error)
        try:
            socket.send_fds(requests, [outcome], opened)
        finally:
            for descriptor in opened:
                os.close(descriptor)  # else the program would survive the wire process


def main() -> int:
    keep_only(Capability.BPF, Capability.NET_ADMIN)
    with contextlib.suppress(OSError, KeyboardInterrupt):  # the wire process has ended
        serve(socket.socket(fileno=int(sys.argv[1])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
