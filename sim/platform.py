"""Replaces what the loaded modules of porterlb use of the operating system.

Clocks, random numbers, sockets, subprocesses and the API become simulated ones; every decision, loop and protocol above
them is the production code. The calling process is known from the event that runs (:attr:`World.current`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import random
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import porterlb.app
import porterlb.child_process
import porterlb.wire.__main__
import porterlb.wire.hello_socket
import porterlb.wire.netlink
import porterlb.wire.packet
import porterlb.wire.prober
import porterlb.wire.process
from porterlb.core.hello import codec
from porterlb.core.layer2 import questions
from porterlb.core.layer2.arp import parse_arp
from porterlb.core.layer2.ndp import parse_ndp
from porterlb.core.model import Address
from porterlb.core.wire_text import WireConfig
from porterlb.edge import life_signs, proxy_start
from porterlb.edge.recording import Recording
from porterlb.pulse import Pulse
from porterlb.wire import packet, reply_listener
from porterlb.wire.recording import Recording as WireRecording
from porterlb.wire.responder import PacketResponder
from sim import bgp, sockets
from sim.child import Child
from sim.clock import Chance, Clock, Dates, Secrets, Stand
from sim.recordings import Recorded
from sim.segment import ADVERTISEMENT, SOLICITATION
from sim.world import Process, World

if TYPE_CHECKING:
    from sim.cluster import Site

_FILTERS = {
    **{str(packet.arp_program(operation)): operation for operation in (1, 2)},
    **{str(packet.ndp_program(kind)): kind for kind in (SOLICITATION, ADVERTISEMENT)},
}


class Host:
    """The world and the site that the replaced functions use. One at a time."""

    site: Site

    @classmethod
    def process(cls) -> Process:
        process = cls.site.world.current
        assert process is not None, "only a process asks"
        return process

    @classmethod
    def now(cls) -> float:
        """Monotonic seconds of the calling process."""
        process = cls.site.world.current
        return cls.site.world.now + (process.clock if process is not None else 0.0)


# ---- the network of a node


def _open_socket(nic: str, ethertype: int, program: packet.Program) -> Any:
    process = Host.process()
    port = Host.site.segment.ports[process.node]
    return sockets.RawSocket(process, port, _FILTERS.get(str(program), 0))


def _route(address: Address) -> tuple[int, Address | None]:
    site = Host.site
    if not site.segment.ports[Host.process().node].link or (address.version == 6 and not site.segment.ipv6):
        return 0, None
    return 2, site.gateway if address.version == 4 else ip_address(site.gateway_port.address6)


class _NicTable(sockets.Readable):
    """Replaces the table that netlink keeps."""

    def __init__(self) -> None:
        super().__init__(Host.process())
        self.port = Host.site.segment.ports[Host.process().node]
        self.port.tables.append(self)
        self.returned: set[int] = set()

    def update(self) -> None:
        self.queue.clear()

    @property
    def nics(self) -> Any:
        return {2: self.port.nic}


class _Groups:
    """Multicast groups: the switch sends multicast to all ports."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def join(self, address: bytes) -> None: ...
    def leave(self, address: bytes) -> None: ...
    def rejoin(self) -> None: ...
    def close(self) -> None: ...


class _Responder(PacketResponder):
    """The production responder; the promises read what it owns, and are notified of each change."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.process = Host.process()
        Host.site.responders.append(self)

    @property
    def owns(self) -> dict[bytes, bytes]:
        """The MAC by VIP."""
        return self._macs

    def own(self, address: bytes, mac: bytes) -> None:
        super().own(address, mac)
        Host.site.world.dirty = True

    def disown(self, address: bytes) -> None:
        super().disown(address)
        Host.site.world.dirty = True

    def close(self) -> None:
        super().close()
        Host.site.responders.remove(self)
        Host.site.world.dirty = True


async def _answers(address: Address) -> bool:
    """Replaces the TCP connection to a node: its kernel answers, whatever its processes do."""
    site, own = Host.site, Host.process().node
    found = site.segment.by_address.get(str(address))
    if found is not None and site.linked(own, found.name) and not site.segment.loses(own, found.name):
        await asyncio.sleep(0.0005)
        return True
    await asyncio.sleep(life_signs.TIMEOUT)
    return False


async def _no_proxy(address: Address, port: int, path: str) -> bool:
    """No node's kube-proxy can be asked here."""
    return False


def _udp(family: int, kind: int) -> Any:
    if family == socket.AF_INET6:
        raise OSError(97, "no IPv6 here")
    return sockets.Datagram(Host.process(), Host.site.segment.ports[Host.process().node])


# ---- subprocesses of the manager


_serve: Any = porterlb.wire.__main__._serve


async def _create_wire(*argv: str, stdin: int, pass_fds: tuple[int, ...], **more: Any) -> Child:
    """Starts the wire process, within a fraction of a second."""
    parent = Host.process()
    world, streams = parent.world, sockets.world_streams(parent.world)
    pipe, beats = streams[stdin], streams[pass_fds[0]]
    child = Process(world, f"{parent.node}/wire", parent.node, parent.clock)
    parent.children.append(child)
    for stream in (pipe, beats):
        stream.users += 1
        stream.owner = child

    def ended() -> None:
        for stream in (pipe, beats):
            stream.close()
        Host.site.wire_ended(child)

    child.on_end.append(ended)
    world.say(child.name, "is started")
    Host.site.wires[parent.node] = child
    start = 0.1 + 0.3 * parent.random.random()
    child.begins = world.now + start
    world.after(start, run_main, child, _serve(pipe, beats, None, required=False), process=child)
    return Child(parent, child)


def run_main(process: Process, main: Any) -> None:
    """In the process: runs its main coroutine; the process ends with it."""

    def over(task: asyncio.Task[Any]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            process.world.say(process.name, f"ends with {error!r}")
            process.loop.failed.append(f"main: {error!r}")
        process.end(0 if error is None else 1)

    task = process.loop.create_task(main, name="main")
    task.add_done_callback(over)


class _Writer:
    def __init__(self, stream: sockets.Stream) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self._stream.send(data)

    async def drain(self) -> None:
        pass

    def close(self) -> None:
        self._stream.close()


async def _open_connection(*, sock: sockets.Stream, limit: int) -> tuple[asyncio.StreamReader, _Writer]:
    reader = asyncio.StreamReader(limit=limit, loop=asyncio.get_running_loop())

    def readable() -> None:
        while sock.queue:
            data = sock.recv(0)
            if data:
                reader.feed_data(data)
            else:
                reader.feed_eof()

    asyncio.get_running_loop().add_reader(sock, readable)
    return reader, _Writer(sock)


class _Pulse(Pulse):
    """Beats from the event loop: in the simulator a thread stops with its process, and nothing else delays it."""

    async def run(self) -> None:
        while True:
            for beat in self._beats:
                with contextlib.suppress(Exception):
                    beat()
            await asyncio.sleep(self._every)


class _Http:
    """The web server: it gets no requests here."""

    def __init__(self, host: str, port: int, **more: Any) -> None:
        self.port = port

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def changed(self) -> None: ...

    async def run(self) -> None:
        await asyncio.Event().wait()


class _Kernel:
    """The settings of the node's kernel: nothing is read."""

    def __init__(self, *arguments: Any, **more: Any) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    async def run(self) -> None:
        await asyncio.Event().wait()


@contextlib.contextmanager
def _workplace() -> Iterator[Path]:
    yield Path("/nonexistent")


class _ManagerRecording(Recording):
    """The production class, kept for the end of the run."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        if self.log is not None:
            Host.site.recorded.append(Recorded(self._settings, self.log))


class _WireRecording(WireRecording):
    """The production class, kept with the newest manager of its node."""

    def __init__(self, config: WireConfig, *arguments: Any) -> None:
        super().__init__(config, *arguments)
        of_node = [one for one in Host.site.recorded if one.settings.node == config.node]
        of_node[-1].wires.append((config.key, self.log))


def substitute() -> None:
    """Replaces everything; call it once per Python process."""
    clock, chance, tokens = Clock(Host), Chance(Host), Secrets(Host)
    for name, module in list(sys.modules.items()):
        if not name.startswith("porterlb"):
            continue
        space = vars(module)
        for real, fake in ((time, clock), (random, chance), (secrets, tokens)):
            for at in [at for at, value in space.items() if value is real]:
                space[at] = fake
        for thing in list(space.values()):
            members = vars(thing).values() if isinstance(thing, type) else (thing,)
            for function in members:
                if isinstance(function, FunctionType):
                    _defaults(function, clock)
    _remember()
    app: Any = porterlb.app
    app.Manager.__init__ = _noted(app.Manager.__init__)
    app.datetime = Dates(Host)
    app.HttpServer, app.Pulse, app.workplace = _Http, _Pulse, _workplace
    app.Host, app.Recording = _Kernel, _ManagerRecording
    bgp.install(Host)
    app.open_cluster = lambda *arguments, **more: Host.site.client(Host.process())
    app.keep_only = app.collect_seldom = lambda *arguments, **more: None
    wire: Any = porterlb.wire.process
    wire.NicTable, wire.SolicitedNodeGroups = _NicTable, _Groups
    wire.Recording = _WireRecording
    wire.gc = Stand(gc, freeze=lambda: None)
    main: Any = porterlb.wire.__main__
    main.gc = wire.gc
    interfaces: Any = sys.modules["porterlb.wire.interfaces"]
    interfaces.PacketResponder = _Responder
    packets: Any = porterlb.wire.packet
    packets.open_socket, packets.enlarge_buffer = _open_socket, lambda opened, size: None
    packets.open_counter = _open_socket
    packets.dropped = packets.arrived = lambda opened: 0
    packets.change_filter = lambda opened, program: None  # all questions are read here
    netlink: Any = porterlb.wire.netlink
    netlink.route = _route
    hellos: Any = porterlb.wire.hello_socket
    hellos.socket = Stand(socket, socket=_udp)
    child: Any = porterlb.child_process
    child.socket = Stand(socket, socketpair=lambda: sockets.pair(Host.site.world, Host.process()))
    child.asyncio = Stand(asyncio, create_subprocess_exec=_create_wire, open_connection=_open_connection)
    signs: Any = life_signs
    signs.answers = _answers
    proxies: Any = proxy_start
    proxies.healthy = _no_proxy


def _remember() -> None:
    """Caches pure functions that each receiver calls with the same bytes: a frame or signature is read once."""
    verified: Any = codec.verified
    codec.verified = lru_cache(1024)(verified)
    signing: Any = codec
    signing.hmac = Stand(hmac, digest=lru_cache(1024)(hmac.digest))  # the receiver's is the sender's
    parsed, parsed6 = lru_cache(4096)(parse_arp), lru_cache(4096)(parse_ndp)
    for module in (questions, reply_listener):
        vars(module)["parse_arp"], vars(module)["parse_ndp"] = parsed, parsed6


def _noted(plain: Any) -> Any:
    """Stores each manager in its process, because the promises read the managers."""

    def begin(self: Any, *arguments: Any, **more: Any) -> None:
        plain(self, *arguments, **more)
        Host.process().manager = self

    return begin


def _defaults(function: FunctionType, clock: Clock) -> None:
    fakes = {time.monotonic: clock.monotonic, time.time: clock.time}
    if function.__defaults__:
        function.__defaults__ = tuple([_fake(value, fakes) for value in function.__defaults__])
    named = function.__kwdefaults__
    for name in list(named or ()):
        assert named is not None
        named[name] = _fake(named[name], fakes)


def _fake(value: Any, fakes: dict[Any, Any]) -> Any:
    return (
        fakes[value] if callable(value) and getattr(value, "__module__", None) == "time" and value in fakes else value
    )


__all__ = ["Host", "World", "run_main", "substitute"]
