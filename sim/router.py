"""A simulated router: sessions with a hold timer, what each neighbor announced, graceful restart, and its routes.

It follows BIRD where routers differ: all next hops of equal preference are used (ECMP), and with graceful restart the
routes of a neighbor stay when its connection ends without a NOTIFICATION (RFC 4724), but not after the hold time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.desired import SessionConfig
from sim.connection import Connection, Message
from sim.segment import NeighbourCache, Segment

AS = 64500
HOLD = 9
"""Seconds; the smaller one of both sides counts."""
CEASE = 6
ADMIN_SHUTDOWN, ADMIN_RESET, REJECTED, COLLISION = 2, 4, 5, 7
"""Subcodes of Cease (RFC 4486)."""


class Route(NamedTuple):
    """``low``: with the community GRACEFUL_SHUTDOWN, which gives it the lowest preference (RFC 8326)."""

    next_hop: str
    low: bool = False


Key = tuple[str, int]
"""Prefix and path identifier (0 without add-path)."""


@dataclass
class Session:
    """``since``: when it was established; None: not yet. ``heard``: when the last message came."""

    connection: Connection
    negotiated: Negotiated
    restart: int
    heard: float
    since: float | None = None


@dataclass
class Neighbor:
    """What the router has of one node. ``stale``: kept from before the session was lost."""

    routes: dict[Key, Route] = field(default_factory=dict)
    stale: set[Key] = field(default_factory=set)
    lost: int = 0  # how often its session was lost


class Router:
    """``refuses``: nodes whose sessions are shut down here. ``filters``: nodes whose BGP packets are dropped."""

    def __init__(self, segment: Segment, name: str, number: int, *, add_path: bool, families: tuple[int, ...]) -> None:
        self.world = segment.world
        self.name = name
        self.port = segment.plug(name, number)
        self.port.cache = self.cache = NeighbourCache(self.port)
        self.add_path = add_path
        self.families = families
        self.refuses: set[str] = set()
        self.filters: set[str] = set()
        self.sessions: dict[str, Session] = {}
        self.neighbors: dict[str, Neighbor] = {}
        self._used: dict[str, tuple[str, ...]] = {}

    # ---- what it forwards

    def hops(self, prefix: str) -> tuple[str, ...]:
        """The addresses of the next hops that it uses for a prefix; empty: no route."""
        return self._used.get(prefix, ())

    def prefixes(self) -> set[str]:
        return set(self._used)

    def _choose(self, prefix: str) -> tuple[str, ...]:
        found = [route for one in self.neighbors.values() for key, route in one.routes.items() if key[0] == prefix]
        best = [route for route in found if not route.low] or found
        return tuple(sorted({route.next_hop for route in best}))

    def _changed(self, prefixes: set[str]) -> None:
        for prefix in sorted(prefixes):
            hops = self._choose(prefix)
            if hops == self.hops(prefix):
                continue
            self._used.pop(prefix, None)
            if hops:
                self._used[prefix] = hops
            self.world.dirty = True
            self.world.say(self.name, f"{prefix} goes to {', '.join(hops) or 'nowhere'}")

    def established(self, node: str) -> float | None:
        """Since when a session is established; None: it is not."""
        session = self.sessions.get(node)
        return session.since if session is not None else None

    def reachable(self, node: str) -> bool:
        """Whether BGP packets pass between the router and a node."""
        segment, name = self.port.segment, self.name
        ports = segment.ports
        up = ports[node].up and self.port.up and node not in self.filters
        return up and segment.passes(node, name) and segment.passes(name, node)

    # ---- faults

    def power(self, on: bool) -> None:
        """Without power, it forgets everything, and tells nobody."""
        self.port.powered = on
        self.world.dirty = True
        if not on:
            self.sessions.clear()
            self.neighbors.clear()
            self._used.clear()
            for address in list(self.cache._turn):
                self.cache.quiet(address)

    def cease(self, node: str, subcode: int) -> None:
        """Ends a session with a NOTIFICATION."""
        session = self.sessions.get(node)
        if session is not None:
            session.connection.down.push("notification", CEASE, subcode)
            self._lost(node, "is ended here", graceful=False)

    # ---- sessions

    def receive(self, connection: Connection, message: Message) -> None:
        if not self.port.powered:
            return
        kind, node = message[0], connection.node
        session = self.sessions.get(node)
        if kind == "open":
            self._opens(connection, message[1])
            return
        if session is None or session.connection is not connection:
            if kind not in ("reset", "fin", "notification"):
                connection.down.push("reset")
            return
        session.heard = self.world.now
        match kind:
            case "keepalive":
                if session.since is None:
                    self._establish(node, session)
            case "update":
                self._update(node, *message[1:])
            case "end":
                self._end_of_rib(node, message[1])
            case "notification":
                self._lost(node, f"is ended by the node ({message[1]}, {message[2]})", graceful=False)
            case "fin" | "reset":
                self._lost(node, "is closed", graceful=True)

    def _opens(self, connection: Connection, config: SessionConfig) -> None:
        node = connection.node
        old = self.sessions.get(node)
        if node in self.refuses:
            connection.down.push("notification", CEASE, REJECTED)
            return
        if old is not None:
            if old.since is not None and not old.negotiated.graceful_restart:
                connection.down.push("notification", CEASE, COLLISION)
                return
            self._lost(node, "is replaced", graceful=True)
        families = tuple(version for version in config.families if version in self.families)
        paths = families if self.add_path and config.add_path else ()
        negotiated = Negotiated(
            families,
            paths,
            min(HOLD, config.hold_time),
            graceful_restart=bool(config.graceful_restart),
            route_refresh=True,
            router_id=self.port.address,
            peer_as=AS,
        )
        session = Session(connection, negotiated, config.graceful_restart, self.world.now)
        self.sessions[node] = session
        connection.down.push("open", negotiated)
        self.world.after(negotiated.hold_time, self._hold, node, session)

    def _establish(self, node: str, session: Session) -> None:
        session.since = self.world.now
        self.world.dirty = True
        self.world.say(self.name, f"session with {node} is established")
        if not session.negotiated.graceful_restart:
            self._drop_stale(node)
        self._keepalive(node, session)

    def _keepalive(self, node: str, session: Session) -> None:
        if self.sessions.get(node) is session:
            session.connection.down.push("keepalive")
            self.world.after(session.negotiated.hold_time / 3, self._keepalive, node, session)

    def _hold(self, node: str, session: Session) -> None:
        if self.sessions.get(node) is not session:
            return
        left = session.heard + session.negotiated.hold_time - self.world.now
        if left > 1e-6:
            self.world.after(left, self._hold, node, session)
            return
        session.connection.down.push("notification", 4, 0)
        self._lost(node, "is lost: the hold time is over", graceful=False)

    def _lost(self, node: str, why: str, *, graceful: bool) -> None:
        session = self.sessions.pop(node)
        if session.since is None:
            return
        self.world.dirty = True
        self.world.say(self.name, f"session with {node} {why}")
        neighbor = self.neighbors.setdefault(node, Neighbor())
        neighbor.lost += 1
        neighbor.stale = set(neighbor.routes)
        if graceful and session.negotiated.graceful_restart:
            self.world.after(session.restart, self._give_up, node, neighbor, neighbor.lost)
        else:
            self._drop_stale(node)

    def _give_up(self, node: str, neighbor: Neighbor, lost: int) -> None:
        """The restart time is over."""
        if self.neighbors.get(node) is neighbor and neighbor.lost == lost and self.established(node) is None:
            self._drop_stale(node)

    def _drop_stale(self, node: str, version: int = 0) -> None:
        neighbor = self.neighbors.setdefault(node, Neighbor())
        gone = {key for key in neighbor.stale if not version or (":" in key[0]) is (version == 6)}
        neighbor.stale -= gone
        for key in gone:
            neighbor.routes.pop(key, None)
        self._changed({prefix for prefix, _ in gone})

    # ---- routes

    def _update(self, node: str, prefixes: tuple[str, ...], path_id: int, route: Route | None) -> None:
        """``route``: None for a withdrawal."""
        neighbor = self.neighbors.setdefault(node, Neighbor())
        for prefix in prefixes:
            key = (prefix, path_id)
            neighbor.stale.discard(key)
            if route is None:
                neighbor.routes.pop(key, None)
            else:
                neighbor.routes[key] = route
        self._changed(set(prefixes))

    def _end_of_rib(self, node: str, version: int) -> None:
        self._drop_stale(node, version)

    def state(self) -> dict[str, Any]:
        """All of its routes, for a comparison."""
        return {node: dict(neighbor.routes) for node, neighbor in sorted(self.neighbors.items()) if neighbor.routes}
