"""A simulated ExaBGP 5: the commands and events of its API as text, sessions with the routers, and its API process.

As the real one, it acknowledges a command before it sends a route, announces its routes again when a session returns,
sends no automatic End-of-RIB, closes its connections without a NOTIFICATION when it ends, and replays no event.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from porterlb.core.bgp.config import Config
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.desired import SessionConfig
from sim.connection import Connection, Message
from sim.router import Key, Route
from sim.sockets import Stream, pair

if TYPE_CHECKING:
    from sim.bgp import Listener
    from sim.cluster import Site
    from sim.world import Process

_ROUTE = re.compile(
    r"neighbor (?P<peer>\S+) (?P<verb>announce|withdraw) attributes (?:path-information (?P<id>\d+) )?"
    r"next-hop (?P<hop>\S+)(?P<rest>.*?) nlri (?P<prefixes>.+)"
)
_END = re.compile(r"neighbor (\S+) announce eor ipv([46]) unicast")
_CLEAR = re.compile(r"(?:neighbor (\S+) )?clear adj-rib out")
_TEARDOWN = re.compile(r"neighbor (\S+) teardown (\d+)")
SHUTDOWN = "65535:0"

BACK_OFF, LONGEST = 1.2, 60.0
"""The growth of the time between two attempts to connect, and its limit in seconds."""
HELPER = 0.03
"""Seconds until the API process runs again."""
GOODBYE = 1.0
"""Seconds from the withdrawal to the end if the manager is silent (exabgp/api.py)."""


@dataclass
class Peer:
    """One neighbor of ExaBGP. ``routes``: what the API announced, by prefix and path identifier."""

    config: SessionConfig
    state: str = "idle"
    routes: dict[Key, Route] = field(default_factory=dict)
    connection: Connection | None = None
    negotiated: Negotiated | None = None
    heard: float = 0.0
    since: float = 0.0
    updates: int = 0
    wait: float = 1.0
    busy: float = 0.0  # until when it sends what came before
    turn: int = 0  # of its timers

    @property
    def address(self) -> str:
        return str(self.config.address)


class Exabgp:
    """Runs in a process of its own. ``read``: returns the configuration file."""

    def __init__(self, process: Process, site: Site, listener: Listener, files: dict[str, Any]) -> None:
        self.process, self.site, self.listener, self.files = process, site, listener, files
        self.world = process.world
        self.peers: dict[str, Peer] = {}
        self._pipe: Stream | None = None
        self._link: Stream | None = None
        self._buffer = b""
        self._free = 0.0  # when the last command is done
        self._beaten = 0.0
        process.on_end.append(self._ended)

    def start(self) -> None:
        """In the process."""
        self._load()
        self._helper()

    def _after(self, seconds: float, do: Any, *arguments: Any) -> None:
        self.world.after(seconds, do, *arguments, process=self.process)

    def _ended(self) -> None:
        """The kernel closes its connections."""
        self._close_helper()
        for peer in self.peers.values():
            if peer.connection is not None:
                peer.connection.up.push("fin")

    # ---- the API process

    def _helper(self) -> None:
        """The API process starts, and hands its descriptors over to the manager."""
        if self.listener.closed:
            return
        manager = self.listener.process
        self._pipe, theirs = pair(self.world, self.process)
        self._link, link = pair(self.world, self.process)
        for stream in (theirs, link):
            stream.owner = manager
        theirs.users = 2  # the manager has two descriptors: one to read, one to write
        self._buffer = b""
        self.process.loop.add_reader(self._pipe, self._readable, self._pipe)
        self.process.loop.add_reader(self._link, self._beat, self._link)
        self._beaten = self.world.now
        self.world.after(1.0, self._watch, self._link)
        self.world.at(self.world.now, self.listener.arrived, link, theirs, process=manager, kind=0)

    def _close_helper(self) -> None:
        for stream in (self._pipe, self._link):
            if stream is not None:
                self.process.loop.remove_reader(stream)
                stream.close()
        self._pipe = self._link = None

    def kill_helper(self) -> None:
        """The API process is killed; ExaBGP starts it again."""
        self._close_helper()
        self._after(HELPER, self._helper)

    def _beat(self, link: Stream) -> None:
        if link.recv(64):
            self._beaten = self.world.now

    def _watch(self, link: Stream) -> None:
        """In the world, because the API process is another process: ends ExaBGP if the manager is silent."""
        if self._link is not link or not self.process.alive:
            return
        if self.world.now - self._beaten < self.files["exabgp.conf"][1]:
            self.world.after(0.5, self._watch, link)
            return
        self.world.say(self.process.name, "the manager is silent: withdraws everything")
        self._after(0.001, self._clear_all)
        self.world.after(GOODBYE, self.process.end, -15)

    def _say(self, **event: Any) -> None:
        if self._pipe is not None:
            self._write(json.dumps(event).encode())

    def _write(self, line: bytes) -> None:
        if self._pipe is not None:
            try:
                self._pipe.send(line + b"\n")
            except OSError:
                self._pipe.close()
                self._pipe = None

    # ---- commands

    def _readable(self, pipe: Stream) -> None:
        data = pipe.recv(0)
        if not data:
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._free = max(self._free, self.world.now) + 0.0005 + 0.001 * self.process.random.random()
            self._after(self._free - self.world.now, self._execute, pipe, line.decode())

    def _execute(self, pipe: Stream, line: str) -> None:
        done = self._do(line.strip())
        if self._pipe is pipe:
            self._write(b"done" if done else b"error")

    def _do(self, line: str) -> bool:
        if line.startswith("#") or line == "version":
            return True
        if line == "show neighbor json":
            self._write(json.dumps([self._shown(peer) for peer in self.peers.values()]).encode())
            return True
        if line == "reload":
            self._after(0.03, self._load)
            return True
        if match := _ROUTE.fullmatch(line):
            return self._route(match)
        if match := _END.fullmatch(line):
            peer = self.peers.get(match[1])
            if peer is not None and peer.state == "established":
                self._in_order(peer, self._end_of_rib, peer, peer.connection, int(match[2]))
            return peer is not None
        if match := _CLEAR.fullmatch(line):
            for peer in self.peers.values():
                if match[1] in (None, peer.address):
                    self._clear(peer)
            return True
        if match := _TEARDOWN.fullmatch(line):
            peer = self.peers.get(match[1])
            if peer is not None and peer.connection is not None:
                peer.connection.up.push("notification", 6, int(match[2]))
                self._down(peer, f"notification sent (6,{match[2]})")
            return peer is not None
        raise AssertionError(f"the simulated ExaBGP does not know {line!r}")

    def _route(self, match: re.Match[str]) -> bool:
        peer = self.peers.get(match["peer"])
        if peer is None:
            return False
        prefixes, path_id = tuple(match["prefixes"].split()), int(match["id"] or 0)
        route = Route(match["hop"], SHUTDOWN in match["rest"]) if match["verb"] == "announce" else None
        for prefix in prefixes:
            if route is None:
                peer.routes.pop((prefix, path_id), None)
            else:
                peer.routes[prefix, path_id] = route
        self._send(peer, prefixes, path_id, route)
        return True

    def _send(self, peer: Peer, prefixes: tuple[str, ...], path_id: int, route: Route | None) -> None:
        agreed, connection = peer.negotiated, peer.connection
        if peer.state != "established" or agreed is None or connection is None:
            return
        version = 6 if ":" in prefixes[0] else 4
        if version in agreed.families:
            path_id = path_id if version in agreed.add_path else 0
            self._in_order(peer, self._update, peer, connection, prefixes, path_id, route)

    def _in_order(self, peer: Peer, do: Any, *arguments: Any) -> None:
        """Sends something after everything that was given before."""
        peer.busy = max(peer.busy, self.world.now + 0.0005 + 0.002 * self.process.random.random())
        self._after(peer.busy - self.world.now, do, *arguments)

    def _update(self, peer: Peer, connection: Connection, *content: Any) -> None:
        if peer.connection is connection:
            peer.updates += 1
            connection.up.push("update", *content)

    def _end_of_rib(self, peer: Peer, connection: Connection, version: int) -> None:
        if peer.connection is connection:
            connection.up.push("end", version)

    def _clear(self, peer: Peer) -> None:
        for prefix, path_id in list(peer.routes):
            self._send(peer, (prefix,), path_id, None)
        peer.routes.clear()

    def _clear_all(self) -> None:
        for peer in self.peers.values():
            self._clear(peer)

    def _shown(self, peer: Peer) -> dict[str, Any]:
        up, agreed = peer.state == "established", peer.negotiated
        both = {"graceful-restart": bool(agreed and agreed.graceful_restart), "asn4": True, "route-refresh": True}
        return {
            "peer": {
                "address": peer.address,
                "id": agreed.router_id if agreed else "",
                "as": peer.config.peer_as,
                "hold": agreed.hold_time if agreed else 0,
                "capabilities": both,
            },
            "local": {
                "hold": peer.config.hold_time,
                "capabilities": both,
                "add-path": {f"ipv{v} unicast": v in (agreed.add_path if agreed else ()) for v in (4, 6)},
            },
            "fsm": peer.state.upper(),
            "state": "up" if up else "down",
            "duration": self.world.now - peer.since if up else 0,
            "messages": {"sent": {"update": peer.updates}},
            "families": [f"ipv{version} unicast" for version in (agreed.families if agreed else ())],
        }

    # ---- sessions

    def _load(self) -> None:
        """Reads the configuration. Peers that are the same in it are not touched."""
        config: Config = self.files["exabgp.conf"][0]
        wanted = {str(session.address): session for session in config.sessions.values()}
        for address, peer in list(self.peers.items()):
            if wanted.get(address) == peer.config:
                continue
            if peer.connection is not None:
                peer.connection.up.push("notification", 6, 3)
                self._down(peer, "stop, message")
            peer.turn += 1
            del self.peers[address]
        for address, session in wanted.items():
            if address not in self.peers:
                peer = self.peers[address] = Peer(session)
                self._after(0.01 + 0.02 * self.process.random.random(), self._connect, peer, peer.turn)

    def _connect(self, peer: Peer, turn: int) -> None:
        if peer.turn != turn or peer.connection is not None:
            return
        router = self.site.router_at(peer.address)
        if router is None or not router.reachable(self.process.node):
            self._again(peer)
            return
        peer.turn += 1
        peer.heard = self.world.now
        peer.connection = Connection(router, self.site.segment.ports[self.process.node], self.process, self._hear)
        self._state(peer, "opensent")
        peer.connection.up.push("open", peer.config)
        self._after(peer.config.hold_time, self._hold, peer, peer.connection)

    def _again(self, peer: Peer) -> None:
        peer.turn += 1
        self._after(peer.config.connect_retry or peer.wait, self._connect, peer, peer.turn)
        peer.wait = min(LONGEST, peer.wait * BACK_OFF)

    def _hear(self, connection: Connection, message: Message) -> None:
        peer = self.peers.get(connection.router.port.address)
        if peer is None or peer.connection is not connection:
            return
        peer.heard = self.world.now
        match message[0]:
            case "open":
                peer.negotiated = message[1]
                self._say(type="negotiated", neighbor={**_of(peer), "negotiated": self._told(message[1])})
                self._state(peer, "openconfirm")
                self._keepalive(peer, connection)
            case "keepalive" if peer.state == "openconfirm":
                self._establish(peer)
            case "notification":
                code, subcode = message[1:]
                said = {"code": code, "subcode": subcode, "message": ""}
                self._say(type="notification", neighbor={**_of(peer), "direction": "receive", "notification": said})
                self._down(peer, f"notification received ({code},{subcode})")
            case "fin":
                self._down(peer, "peer reset, message [closed by the remote end]")
            case "reset":
                self._down(peer, "peer reset, message [ECONNRESET]")

    def _told(self, agreed: Negotiated) -> dict[str, Any]:
        return {
            "families": [f"ipv{version} unicast" for version in agreed.families],
            "add_path": {"send": [f"ipv{version} unicast" for version in agreed.add_path]},
            "hold_time": agreed.hold_time,
            "graceful_restart": agreed.graceful_restart,
            "asn4": True,
            "refresh": "normal",
            "peer_id": agreed.router_id,
            "peer_as": agreed.peer_as,
        }

    def _establish(self, peer: Peer) -> None:
        peer.since, peer.wait = self.world.now, 1.0
        self._state(peer, "established")
        self._say(type="state", neighbor={**_of(peer), "state": "up"})
        for (prefix, path_id), route in peer.routes.items():
            self._send(peer, (prefix,), path_id, route)

    def _keepalive(self, peer: Peer, connection: Connection) -> None:
        if peer.connection is connection:
            connection.up.push("keepalive")
            self._after(peer.config.hold_time / 3, self._keepalive, peer, connection)

    def _hold(self, peer: Peer, connection: Connection) -> None:
        if peer.connection is not connection:
            return
        left = peer.heard + peer.config.hold_time - self.world.now
        if left > 1e-6:
            self._after(left, self._hold, peer, connection)
            return
        connection.up.push("notification", 4, 0)
        self._down(peer, "notification sent (4,0)")

    def _down(self, peer: Peer, reason: str) -> None:
        if peer.connection is not None and not reason.startswith("notification"):
            peer.connection.up.push("fin")
        peer.connection = peer.negotiated = None
        self._say(type="state", neighbor={**_of(peer), "state": "down", "reason": reason})
        self._state(peer, "idle")
        self._again(peer)

    def _state(self, peer: Peer, state: str) -> None:
        peer.state = state
        self._say(type="fsm", neighbor={**_of(peer), "state": state.upper()})


def _of(peer: Peer) -> dict[str, Any]:
    return {"address": {"peer": peer.address}}
