"""Real routers in network namespaces for the tests of the BGP speaker.

One node and any number of routers on one bridge. The test's thread enters the node's namespace, and the ExaBGP that
it starts runs there. Everything is removed at the end, also after a failure.
"""

from __future__ import annotations

import ctypes
import os
import re
import secrets
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000
NODE4, NODE6 = "10.99.0.1", "fd99::1"
LOCAL_AS = 64500

Table = dict[str, set[str]]  # next hops by prefix


def run(*argv: str, check: bool = True, seconds: float = 20) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode:
        raise AssertionError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout


def tool(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/lib/frr")
    if path is None:
        pytest.fail(f"{name} is missing: run lab/install-packages")
    return path


class Segment:
    """A bridge with a node on it (10.99.0.1, fd99::1); routers N get 10.99.0.N and fd99::N."""

    def __init__(self) -> None:
        self.name = f"plb{secrets.token_hex(3)}"
        self.namespaces: list[str] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self.node = self._namespace("n")
        self.ip("-n", self.node, "link", "add", "br0", "type", "bridge")
        self._address(self.node, "br0", NODE4, NODE6)

    @staticmethod
    def ip(*argv: str) -> str:
        return run(tool("ip"), *argv)

    def _namespace(self, suffix: str) -> str:
        name = self.name + suffix
        self.ip("netns", "add", name)
        self.namespaces.append(name)
        self.ip("-n", name, "link", "set", "lo", "up")
        return name

    def _address(self, namespace: str, link: str, v4: str, v6: str) -> None:
        self.ip("-n", namespace, "addr", "add", f"{v4}/24", "dev", link)
        self.ip("-n", namespace, "addr", "add", f"{v6}/64", "dev", link, "nodad")
        self.ip("-n", namespace, "link", "set", link, "up")

    def router(self, number: int) -> str:
        """A namespace for one more router; returns its name."""
        name = self._namespace(f"r{number}")
        port = f"p{number}"
        self.ip("-n", self.node, "link", "add", port, "type", "veth", "peer", "eth0", "netns", name)
        self.ip("-n", self.node, "link", "set", port, "master", "br0", "up")
        self._address(name, "eth0", f"10.99.0.{number}", f"fd99::{number}")
        return name

    def cut(self, number: int, *, up: bool = False) -> None:
        """Disconnects the router without notice: the bridge port forwards nothing."""
        self.ip("-n", self.node, "link", "set", f"p{number}", "master" if up else "nomaster", *(["br0"] if up else []))

    def spawn(self, namespace: str, *argv: str, log: Path | None = None) -> subprocess.Popen[bytes]:
        with (log or Path(os.devnull)).open("wb") as output:
            process = subprocess.Popen(
                [tool("nsenter"), f"--net=/run/netns/{namespace}", "--", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(5)
        for name in self.namespaces:
            run(tool("ip"), "netns", "del", name, check=False)


@contextmanager
def segment() -> Iterator[Segment]:
    """A segment, with this thread in the node's namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    made = Segment()
    try:
        there = os.open(f"/run/netns/{made.node}", os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(there)
        yield made
    finally:
        libc.setns(home, CLONE_NEWNET)
        os.close(home)
        made.close()


class Bird:
    """BIRD as the router, one passive BGP protocol named ``node``; its table is the reference."""

    def __init__(
        self,
        net: Segment,
        number: int,
        folder: Path,
        *,
        asn: int = 64600,
        options: str = "",
        channel: str = "",
        v6_session: bool = False,
        graceful: bool = False,
        protocols: str = "",
    ) -> None:
        self.folder = folder / f"bird{number}"
        self.folder.mkdir()
        self.number, self.asn = number, asn
        self.namespace = net.router(number)
        self.address = f"fd99::{number}" if v6_session else f"10.99.0.{number}"
        self._net = net
        self.socket = self.folder / "ctl"
        peer, local = (NODE6, self.address) if v6_session else (NODE4, self.address)
        keep = "graceful restart on;" if graceful else "graceful restart off;"
        self.configuration = f"""
router id 10.99.0.{number};
protocol device {{}}
protocol direct connected {{ ipv4; ipv6; }}
protocol bgp node {{
    local {local} as {asn};
    neighbor {peer} as {LOCAL_AS if asn != LOCAL_AS else asn};
    {keep}
    {options}
    ipv4 {{ import all; export none; {channel} }};
    ipv6 {{ import all; export none; {channel} }};
}}
{protocols}
"""
        self.start()

    def start(self) -> None:
        (self.folder / "conf").write_text(self.configuration)
        self.process = self._net.spawn(
            self.namespace,
            tool("bird"),
            "-f",
            "-c",
            str(self.folder / "conf"),
            "-s",
            str(self.socket),
            log=self.folder / "log",
        )
        until(lambda: self.socket.exists() and "Daemon is up" in self.ctl("show", "status", check=False))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self.socket.unlink(missing_ok=True)

    def reconfigure(self, configuration: str) -> None:
        self.configuration = configuration
        (self.folder / "conf").write_text(configuration)
        self.ctl("configure")

    def ctl(self, *words: str, check: bool = True) -> str:
        return run(tool("birdc"), "-s", str(self.socket), *words, check=check)

    def table(self) -> Table:
        """Next hops by prefix, including all paths."""
        found: Table = {}
        prefix = ""
        for line in self.ctl("show", "route", "protocol", "node").splitlines():
            if match := re.match(r"([0-9a-f.:]+/\d+)\s+unicast", line):
                prefix = match[1]
                found.setdefault(prefix, set())
            elif match := re.match(r"\s+via ([0-9a-f.:]+) on", line):
                found[prefix].add(match[1])
        return found

    def count(self) -> int:
        """The number of routes from the node, for both families."""
        matches = re.findall(r"(\d+) of \d+ routes for", self.ctl("show", "route", "protocol", "node", "count"))
        return sum(map(int, matches[:-1] if len(matches) > 1 else matches))

    def session(self) -> str:
        """BIRD's information about the session, with its start time."""
        return next(line for line in self.ctl("show", "protocols").splitlines() if line.startswith("node"))

    def attributes(self, prefix: str) -> str:
        return self.ctl("show", "route", prefix, "all")


class Script:
    """A scripted peer: accepts one session on 127.0.0.5, then ends it as ``end`` says.

    For behavior that a real router cannot produce on demand: a TCP reset, a close without a message, odd messages.
    """

    ADDRESS = "127.0.0.5"
    MARKER = b"\xff" * 16

    def __init__(self, end: bytes | None, *, reset: bool = False) -> None:
        """``end``: the body of the NOTIFICATION to send, or None to close; ``reset``: with RST instead of FIN."""
        self.end, self.reset = end, reset
        self.established = threading.Event()
        self.go = threading.Event()
        self.listener = socket.create_server((self.ADDRESS, 0))
        self.port = int(self.listener.getsockname()[1])
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @classmethod
    def message(cls, kind: int, body: bytes = b"") -> bytes:
        return cls.MARKER + struct.pack("!HB", 19 + len(body), kind) + body

    def _serve(self) -> None:
        connection, _ = self.listener.accept()
        capabilities = bytes.fromhex("020601040001000102064104") + struct.pack("!I", 64600)
        opening = struct.pack("!BHHIB", 4, 64600, 90, 0x0A630005, len(capabilities)) + capabilities
        connection.sendall(self.message(1, opening))
        connection.sendall(self.message(4))
        connection.settimeout(10)
        connection.recv(4096)
        self.established.set()
        self.go.wait(20)
        if self.end is not None:
            connection.sendall(self.message(3, self.end))
        with suppress(TimeoutError):  # unread data would turn FIN into RST
            connection.settimeout(0.2)
            while connection.recv(4096):
                pass
        if self.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        self.listener.close()


def until(condition: Callable[[], object], seconds: float = 20.0, step: float = 0.02) -> None:
    """Waits in the foreground; fails when the condition does not become true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(step)
