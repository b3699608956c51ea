"""One network namespace: creation, removal, and running code inside.

A thread of this process enters the namespace, runs its function and ends. ``ip netns exec`` is not used: it mounts a
new /sys each time and takes ten times as long. Sockets opened inside can be used by any thread afterwards.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

RUN_NETNS = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab could not carry out a request. The text contains the command and the reason."""


def enter(path: Path) -> None:
    """Moves the calling thread into the namespace that is mounted at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(fd, _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, f"{os.strerror(error)} (entering {path})")
    finally:
        os.close(fd)


def run_command(
    argv: list[str], stdin: str | None = None, check: bool = True, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Runs a short command in the namespace of the calling thread. With `check`, raises LabError with its output on
    failure."""
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except FileNotFoundError:
        raise LabError(f"{argv[0]} is not installed; lab/install-packages brings it") from None
    except subprocess.TimeoutExpired:
        raise LabError(f"`{' '.join(argv)}` did not end within {timeout} s") from None
    if check and done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"`{' '.join(argv)}` failed with {done.returncode}: {said}")
    return done


class Namespace:
    """A named network namespace (``/run/netns/NAME``), as managed by ``ip netns``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = RUN_NETNS / name

    def __repr__(self) -> str:
        return f"Namespace({self.name})"

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called by a thread inside the namespace."""
        results: list[T] = []
        errors: list[BaseException] = []

        def inside() -> None:
            try:
                enter(self.path)
                results.append(function())
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=inside, name=f"in-{self.name}", daemon=True)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def run(
        self, argv: list[str], stdin: str | None = None, check: bool = True, timeout: float = 30.0
    ) -> subprocess.CompletedProcess[str]:
        """Runs a short command inside and waits for it."""
        return self.call(lambda: run_command(argv, stdin, check, timeout))

    def ip(self, *lines: str) -> None:
        """Runs several ``ip`` commands in one process, e.g. ``ns.ip("link set eth0 up", "route add ...")``."""
        self.run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def nft(self, ruleset: str) -> None:
        """One nftables transaction: applied completely or not at all."""
        self.run(["nft", "-f", "-"], ruleset)

    def sysctl(self, values: Mapping[str, str | int]) -> None:
        """Sets kernel settings below /proc/sys, e.g. ``{"net/ipv4/ip_forward": 1}``; ``*`` means every interface."""

        def write() -> None:
            for key, value in values.items():
                for path in Path("/proc/sys").glob(key) if "*" in key else [Path("/proc/sys", key)]:
                    path.write_text(str(value))

        self.call(write)

    def read(self, path: str) -> str:
        """The text of a file as seen inside the namespace, e.g. ``/proc/sys/net/ipv4/ip_forward``."""
        return self.call(lambda: Path(path).read_text())


def create(names: Iterable[str], links: Iterable[str] = ()) -> None:
    """Creates namespaces, then links (``ip link add`` arguments), in one ``ip`` process."""
    lines = [f"netns add {name}" for name in names] + [f"link add {link}" for link in links]
    run_command(["ip", "-batch", "-"], "\n".join(lines) + "\n")


def delete(names: Iterable[str]) -> None:
    """Removes namespaces with everything in them. Missing namespaces are ignored."""
    lines = [f"netns del {name}" for name in names if (RUN_NETNS / name).exists()]
    if lines:
        run_command(["ip", "-force", "-batch", "-"], "\n".join(lines) + "\n", check=False)


def with_prefix(prefix: str) -> list[str]:
    """Names of the existing namespaces that start with `prefix`."""
    if not RUN_NETNS.is_dir():
        return []
    return sorted(entry.name for entry in RUN_NETNS.iterdir() if entry.name.startswith(prefix))


def processes_in(names: Iterable[str]) -> list[int]:
    """PIDs of all processes whose network namespace is one of `names`."""
    wanted = set()
    for name in names:
        try:
            stat = (RUN_NETNS / name).stat()
        except FileNotFoundError:
            continue
        wanted.add((stat.st_dev, stat.st_ino))
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "ns/net").stat()
        except OSError:  # ended in the meantime, or a zombie, which has left its namespace
            continue
        if (stat.st_dev, stat.st_ino) in wanted and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
