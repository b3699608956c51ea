"""Answers in the kernel: the table, the lease and the counters of the eBPF responder of each interface.

The packet responder stays behind it and sees what the program passes on. Whatever fails here leaves the answers to it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping

from porterlb import bpf, loader
from porterlb.core.ebpf import records
from porterlb.core.ebpf.refusals import Refusal, Step, refusal, sentence
from porterlb.core.layer2.questions import Question
from porterlb.core.observed import Nic

log = logging.getLogger("porterlb.wire")

MOST_READ = 256
"""Questions that are taken from the queue at a time: about 1 ms."""

Outcome = Callable[["KernelTable | None", Refusal | None], None]


def start_loader() -> socket.socket:
    """Starts the loader with the capabilities that this process still has. Returns the socket for requests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        descriptor = theirs.fileno()
        command = [sys.executable, "-m", "porterlb.loader", str(descriptor)]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[descriptor])
    return ours


class KernelTable:
    """The maps of one responder, and the link that keeps it attached. Errors are OSError, except in close()."""

    def __init__(self, link: int, table: int, state: int, asked: int) -> None:
        self._descriptors = [link, table, state, asked]
        self._table = table
        self._asked = asked
        self._memory = bpf.memory(state, records.STATE_SIZE)
        self._until = ctypes.c_uint64.from_buffer(self._memory, records.STATE_UNTIL)
        self._answered = ctypes.c_uint64.from_buffer(self._memory, records.STATE_ANSWERED)

    def renew(self, until: float) -> None:
        """Answers until this time (time.monotonic). One store of 8 bytes, without a system call."""
        self._until.value = int(until * 1e9)

    @property
    def answered(self) -> int:
        """The number of answers since the start."""
        return self._answered.value

    def own(self, entries: Mapping[bytes, bytes]) -> None:
        """Answers for these keys with these entries."""
        if len(entries) == 1:
            ((key, entry),) = entries.items()
            bpf.update(self._table, key, entry)
        elif entries:
            bpf.update_many(self._table, b"".join(entries), b"".join(entries.values()), len(entries))

    def disown(self, key: bytes) -> None:
        with contextlib.suppress(FileNotFoundError):
            bpf.delete(self._table, key)

    def asked(self) -> list[Question]:
        """The next questions that the program has reported."""
        found: list[Question] = []
        with contextlib.suppress(FileNotFoundError):
            while len(found) < MOST_READ:
                found.append(records.reported(bpf.take(self._asked, records.ASKED_SIZE)))
        return found

    def close(self) -> None:
        """Detaches the program."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []
        del self._until, self._answered
        self._memory.close()


class Loader:
    """Requests to the loader; never waits for it. ``required``: the user insists on answers in the kernel."""

    def __init__(self, requests: socket.socket, *, required: bool, loop: asyncio.AbstractEventLoop) -> None:
        requests.setblocking(False)
        self._requests = requests
        self._loop = loop
        self._level = logging.WARNING if required else logging.INFO
        self._waiting: dict[int, Outcome] = {}
        self._number = 0
        self._open = True
        loop.add_reader(requests, self._heard)

    def ask(self, ifindex: int, outcome: Outcome) -> int:
        """Asks for a responder; ``outcome`` is called later. Returns a number for :meth:`forget`."""
        self._number += 1
        self._waiting[self._number] = outcome
        try:
            self._requests.send(loader.REQUEST.pack(self._number, ifindex))
        except OSError:
            self._loop.call_soon(self._end)
        return self._number

    def forget(self, number: int) -> None:
        """The outcome is no longer of interest."""
        self._waiting.pop(number, None)

    def note(self, nic: str, why: Refusal | None, detail: str = "") -> None:
        """Logs who answers on an interface."""
        if why is None:
            log.info("%s: the kernel answers", nic)
        else:
            log.log(self._level, "%s: this process answers, not the kernel: %s%s", nic, sentence(why), detail)

    def close(self) -> None:
        """Ends the loader."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._requests)
            self._requests.close()

    def _heard(self) -> None:
        try:
            data, ancillary, _, _ = self._requests.recvmsg(
                loader.OUTCOME.size, socket.CMSG_SPACE(4 * loader.DESCRIPTORS), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._end()
            return
        descriptors = array.array("i", b"".join(part for _, _, part in ancillary))
        number, step, error = loader.OUTCOME.unpack(data)
        why = refusal(Step(step), error)
        table = None
        if why is None:
            try:
                table = KernelTable(*descriptors)
            except OSError as failure:
                why = Refusal.OTHER
                log.error("the state of the program cannot be read: %s", failure)
        elif why is Refusal.OTHER:
            log.error("the kernel refuses the program (%s): %s", Step(step).name, os.strerror(error))
        if table is None:
            for descriptor in descriptors:
                os.close(descriptor)
        outcome = self._waiting.pop(number, None)
        if outcome is not None:
            outcome(table, why)
        elif table is not None:
            table.close()

    def _end(self) -> None:
        """The loader has ended: attached programs stay."""
        self.close()
        waiting, self._waiting = self._waiting, {}
        for outcome in waiting.values():
            outcome(None, Refusal.NO_LOADER)


class KernelAnswers:
    """The kernel's part of the answers on one interface. ``refusal``: why it does not answer; None: it does.

    Args:
        count: counts events, by name.
    """

    def __init__(self, nic: Nic, requests: Loader, count: Callable[[str, int], None], now: float) -> None:
        self._nic = nic
        self._loader = requests
        self._count = count
        self._entries: dict[bytes, bytes] = {}
        self._table: KernelTable | None = None
        self._until = 0.0
        self._answered = self._read_at = 0
        self._counted_at = now
        self.heard_at = 0.0
        """When the program last answered a question: the link received then."""
        self.refusal: Refusal | None = Refusal.STARTING
        self._request = requests.ask(nic.index, self._loaded)

    def own(self, address: bytes, mac: bytes) -> None:
        key = records.key(address)
        self._entries[key] = entry = records.entry(mac, self._nic.mac)
        if self._table is None:
            return
        try:
            self._table.own({key: entry})
        except OSError as error:
            self._left_out(key, error)

    def disown(self, address: bytes) -> None:
        """User space answers for ``address``, or nobody; does nothing if it was not owned."""
        key = records.key(address)
        if self._entries.pop(key, None) is not None and self._table is not None:
            self._remove(key)

    def renew(self, until: float) -> None:
        self._until = until
        if self._table is not None:
            self._table.renew(until)

    def count(self, now: float) -> None:
        """Notes how many questions were answered since the last call. The link has received then, at the earliest at
        the time of the last call; that time is taken."""
        if self._table is not None and (new := self._table.answered - self._answered):
            self._answered += new
            self.heard_at = max(self.heard_at, self._counted_at)
            for what in ("requests", "answers", "kernel_answers"):
                self._count(what, new)
        self._counted_at = now

    def asked(self) -> list[Question]:
        """Questions that were answered, at most one for each VIP in REPORT_EVERY seconds."""
        if self._table is None or self._answered == self._read_at:
            return []
        found = self._table.asked()
        if len(found) < MOST_READ:
            self._read_at = self._answered
        return found

    def close(self) -> None:
        """Stops answering."""
        self._loader.forget(self._request)
        if self._table is not None:
            self._table.close()
            self._table = None

    def _loaded(self, table: KernelTable | None, why: Refusal | None) -> None:
        if table is not None:
            try:
                table.own(self._entries)
            except OSError as error:
                table.close()
                self._give_up(error)
                return
            table.renew(self._until)
        self._table, self.refusal = table, why
        self._loader.note(self._nic.name, why)

    def _left_out(self, key: bytes, error: OSError) -> None:
        """The table does not take a VIP: user space answers for it. An old entry must not stay."""
        if error.errno not in (errno.E2BIG, errno.ENOMEM):
            self._give_up(error)
            return
        self._count("kernel_table_full", 1)
        self._remove(key)

    def _remove(self, key: bytes) -> None:
        try:
            if self._table is not None:
                self._table.disown(key)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.close()
        self.refusal = Refusal.TABLE_FAILED
        self._loader.note(self._nic.name, self.refusal, f" ({error})")
