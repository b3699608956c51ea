"""A client of the VIPs: on the segment, or outside, behind the router."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from dataclasses import dataclass, field

from lab import frames
from lab.attempts import Knocking
from lab.host import Host
from lab.netns import LabError
from lab.stream import Stream


class Client(Host):
    """A machine that sends requests: streams of datagrams, HTTP, long-lived connections, ARP requests, NDP
    solicitations."""

    def stream(
        self,
        targets: list[str] | str,
        *,
        interval: float = 0.001,
        flows: int = 1,
        port: int = 7,
        duration: float = 120.0,
    ) -> Stream:
        """``with client.stream([vip]) as s: ...`` then ``s.report()``. See `lab.stream`."""
        chosen = [targets] if isinstance(targets, str) else targets
        return Stream(self, chosen, interval=interval, flows=flows, port=port, duration=duration)

    def attempts(
        self, vip: str, *, port: int = 80, interval: float = 0.04, timeout: float = 1.0, duration: float = 180.0
    ) -> Knocking:
        """``with client.attempts(vip) as a: ...`` then ``a.report()``: new TCP connections. See `lab.attempts`."""
        return Knocking(self, vip, port, interval, timeout, duration)

    def pods_answering(self, vip: str, requests: int = 20, port: int = 80) -> dict[str, int]:
        """The pods that answer `requests` HTTP requests (each a new connection), with the number of answers of each
        pod."""
        found: dict[str, int] = {}
        for _ in range(requests):
            name = self.http_get(vip, port)
            found[name] = found.get(name, 0) + 1
        return found

    def reaches(self, vip: str, port: int = 80, timeout: float = 1.0) -> bool:
        """Whether one HTTP request is answered in time."""
        try:
            self.http_get(vip, port, timeout)
        except LabError:
            return False
        return True

    def who_has(self, address: str, timeout: float = 0.3, questions: int = 1) -> set[str]:
        """The MACs that answer for an address on the segment (ARP or NDP, by the family)."""
        return {answer.mac for answer in frames.who_has(self, address, timeout, questions)}

    def answers(self, address: str, timeout: float = 0.3, questions: int = 1) -> list[frames.Answer]:
        """Like `who_has`, with the sender of each answer and its delay."""
        return frames.who_has(self, address, timeout, questions)

    def capture(self, expression: str = "", interface: str = "eth0") -> frames.Capture:
        """``with client.capture("arp") as c: ...`` then ``c.frames()`` or ``c.summaries()``."""
        return frames.Capture(self, expression, interface)

    def connections(self, vip: str, count: int, port: int = 7, heartbeat: float = 0.1) -> Connections:
        """Opens `count` TCP connections to the echo service and keeps them busy."""
        return Connections(self, vip, count, port, heartbeat)


@dataclass
class _Connection:
    sock: socket.socket
    pod: str = ""
    reset: str = ""
    echoed: int = 0
    last_echo: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class ConnectionsReport:
    """`reset` connections were closed or reset by the other side; `silent` ones got no echo in the last second."""

    opened: int
    reset: int
    silent: int
    pods: dict[str, int]
    reasons: tuple[str, ...]


class Connections:
    """Long-lived TCP connections; each echoes one byte every `heartbeat` seconds. A context manager."""

    def __init__(self, client: Client, vip: str, count: int, port: int, heartbeat: float) -> None:
        family = socket.AF_INET6 if ":" in vip else socket.AF_INET

        def connect() -> list[socket.socket]:
            return [_connect(family, vip, port) for _ in range(count)]

        self._connections = [_Connection(sock) for sock in client.ns.call(connect)]
        self._heartbeat = heartbeat
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-connections", daemon=True)
        self._thread.start()

    def __enter__(self) -> Connections:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join(10.0)
        for connection in self._connections:
            connection.sock.close()

    def report(self) -> ConnectionsReport:
        """The current state."""
        now = time.monotonic()
        pods: dict[str, int] = {}
        for connection in self._connections:
            pods[connection.pod] = pods.get(connection.pod, 0) + 1
        broken = [connection for connection in self._connections if connection.reset]
        silent = [c for c in self._connections if not c.reset and now - c.last_echo > 1.0 + self._heartbeat]
        reasons = tuple(sorted({connection.reset for connection in broken}))
        return ConnectionsReport(len(self._connections), len(broken), len(silent), pods, reasons)

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        for connection in self._connections:
            connection.sock.setblocking(False)
            selector.register(connection.sock, selectors.EVENT_READ, connection)
        due = time.monotonic()
        while not self._end.is_set():
            if time.monotonic() >= due:
                due += self._heartbeat
                for connection in self._connections:
                    self._beat(connection)
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                self._read(key.data)
                if key.data.reset:
                    selector.unregister(key.fileobj)
        selector.close()

    def _beat(self, connection: _Connection) -> None:
        if connection.reset:
            return
        try:
            connection.sock.send(b".")
        except BlockingIOError:
            return
        except OSError as error:
            connection.reset = type(error).__name__

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            connection.reset = type(error).__name__
            return
        if not data:
            connection.reset = "closed"
            return
        if not connection.pod:  # the server's greeting is its name and a newline
            name, _, data = data.partition(b"\n")
            connection.pod = name.decode()
        connection.echoed += len(data)
        connection.last_echo = time.monotonic()


def _connect(family: int, vip: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(3.0)
    try:
        sock.connect((vip, port))
    except OSError as error:
        sock.close()
        raise LabError(f"connecting to {vip} port {port}: {error!r}") from None
    return sock
