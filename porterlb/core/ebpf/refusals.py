"""Why the kernel does not answer on an interface: values, and the sentences for them."""

from __future__ import annotations

import enum
import errno
from collections.abc import Mapping


class Step(enum.IntEnum):
    """What the loader does for an interface, in this order. DONE: the program is attached."""

    DONE = 0
    MACHINE = 1  # the machine and the clock are suitable
    CREATE = 2  # the maps
    LOAD = 3  # the program
    ATTACH = 4


class Refusal(enum.StrEnum):
    """Why user space answers on an interface although the kernel should."""

    STARTING = "starting"
    NO_CAPABILITY = "no_capability"
    OLD_KERNEL = "old_kernel"
    UNSUITABLE = "unsuitable"
    NO_LOADER = "no_loader"
    TABLE_FAILED = "table_failed"
    OTHER = "other"


_SENTENCES: Mapping[Refusal, str] = {
    Refusal.STARTING: "the program is being loaded",
    Refusal.NO_CAPABILITY: (
        "the kernel refuses eBPF programs: add the capabilities BPF and NET_ADMIN (the chart value layer2.answers does)"
    ),
    Refusal.OLD_KERNEL: "the kernel has no tcx: it needs Linux 6.6 or later",
    Refusal.UNSUITABLE: "the processor type is not supported, or the process runs in a time namespace",
    Refusal.NO_LOADER: "the process that loads the program has ended; see its message in the log",
    Refusal.TABLE_FAILED: "the kernel refused a change of the table of VIPs",
    Refusal.OTHER: "the kernel refuses the program; see the log",
}


def refusal(step: Step, error: int) -> Refusal | None:
    """Why a step of the loader failed; None: every step is done. ``error``: the errno."""
    if step is Step.DONE:
        return None
    if step is Step.MACHINE:
        return Refusal.UNSUITABLE
    if error == errno.EPERM:  # EACCES would be a program that the verifier refuses
        return Refusal.NO_CAPABILITY
    if error == errno.ENOSYS or (step is Step.ATTACH and error == errno.EINVAL):
        return Refusal.OLD_KERNEL
    return Refusal.OTHER


def sentence(why: Refusal) -> str:
    return _SENTENCES[why]
