"""Which sessions ExaBGP is configured with, where it listens, and which peers are left out and why.

ExaBGP finds the local address of a session that it opens, but it must be given the address to listen on. If it cannot
listen on one address, it exits and all sessions end. Therefore this module checks beforehand what the node allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from porterlb.core.bgp.reasons import Refusal, RefusalKind
from porterlb.core.desired import DesiredBgp, SessionConfig
from porterlb.core.model import Address
from porterlb.core.scope import scope_of, unscoped

Listener = tuple[Address, int]
"""A local address (unspecified: all of its IP version) and a TCP port."""


@dataclass(frozen=True, slots=True)
class Local:
    """What the node allows now.

    ``sources``: by peer address, the local address that the kernel uses towards it; None: there is no route.
    ``absent``: configured local addresses that the node does not have. ``interfaces``: by name and IP version, the
    address of a configured interface; None: there is none. ``link_local``: by name, the link-local address of an
    interface towards a router with such an address. ``listeners``: where other processes listen. ``first_port``: the
    lowest TCP port that ExaBGP may listen on.
    """

    sources: Mapping[Address, Address | None] = field(default_factory=dict)
    absent: frozenset[Address] = frozenset()
    interfaces: Mapping[tuple[str, int], Address | None] = field(default_factory=dict)
    link_local: Mapping[str, Address | None] = field(default_factory=dict)
    listeners: frozenset[Listener] = frozenset()
    first_port: int = 1

    def taken(self, address: Address, port: int) -> bool:
        return any(p == port and (a == address or _covers(a, address)) for a, p in self.listeners)


def _covers(listening: Address, address: Address) -> bool:
    # A socket for all IPv6 addresses usually accepts IPv4 as well.
    return listening.is_unspecified and listening.version >= address.version


@dataclass(frozen=True, slots=True)
class Config:
    """The configuration of ExaBGP; an equal one needs no reload. ``listen``: TCP port by peer name."""

    sessions: Mapping[str, SessionConfig] = field(default_factory=dict)
    listen: Mapping[str, int] = field(default_factory=dict)

    @property
    def listeners(self) -> frozenset[Listener]:
        """Where ExaBGP itself listens with this configuration."""
        found = ((self.sessions[name].local_address, port) for name, port in self.listen.items())
        return frozenset((address, port) for address, port in found if address is not None)


@dataclass(frozen=True, slots=True)
class Arranged:
    """``refused``: peers that are left out. ``limited``: configured peers for which ExaBGP cannot listen."""

    config: Config = Config()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    limited: Mapping[str, Refusal] = field(default_factory=dict)


def arrange(desired: DesiredBgp, local: Local, waiting: Set[str] = frozenset()) -> Arranged:
    """Decides which peers to configure. A peer that cannot work here is refused without effect on the others. A peer
    for which ExaBGP cannot listen is still configured if ExaBGP can open its session.

    ``waiting``: peers whose session must not be opened before BFD is up.
    """
    sessions: dict[str, SessionConfig] = {}
    listen: dict[str, int] = {}
    refused: dict[str, Refusal] = {}
    limited: dict[str, Refusal] = {}
    taken: dict[Address, str] = {}
    for name, wanted in sorted(desired.sessions.items()):
        session = wanted
        if session.admin_down:
            continue
        bare = unscoped(session.address)
        if bare in taken:
            refused[name] = Refusal(RefusalKind.SAME_ADDRESS, bare, other=taken[bare])
            continue
        if session.local_address is not None and session.local_address in local.absent:
            refused[name] = Refusal(RefusalKind.ADDRESS_ABSENT, session.local_address)
            continue
        if session.interface:
            source = local.interfaces.get((session.interface, session.address.version))
            if source is None:
                refused[name] = Refusal(RefusalKind.INTERFACE_ABSENT, session.address, other=session.interface)
                continue
            session = replace(session, local_address=source, interface="")
        if scope := scope_of(session.address):
            source = local.link_local.get(scope)
            if source is None:
                refused[name] = Refusal(RefusalKind.INTERFACE_ABSENT, session.address, other=scope)
                continue
            session = replace(session, local_address=source)
        if name in waiting:
            refused[name] = Refusal(RefusalKind.BFD_NOT_UP)
            continue
        port = desired.listen_port if not scope else 0  # ExaBGP cannot listen on a link-local address
        address = session.local_address
        if port and address is None:
            address = local.sources.get(session.address)
        obstacle = _obstacle(desired, session, address, port, local) if port or session.passive else None
        if obstacle is not None and session.passive:
            refused[name] = obstacle
            continue
        taken[bare] = name
        if obstacle is not None and obstacle.kind in _TOLD:
            limited[name] = obstacle
        if port and obstacle is None:
            sessions[name] = replace(session, local_address=address)
            listen[name] = port
        else:
            sessions[name] = session
    return Arranged(Config(sessions, listen), refused, limited)


_TOLD = frozenset({RefusalKind.PORT_TAKEN, RefusalKind.PORT_PRIVILEGED})
"""Obstacles that are reported for a peer that still works: ExaBGP should listen for it, but does not."""


def _obstacle(
    desired: DesiredBgp, session: SessionConfig, address: Address | None, port: int, local: Local
) -> Refusal | None:
    """Why ExaBGP cannot listen for the peer."""
    if not port:
        return Refusal(RefusalKind.NO_LISTEN_PORT)
    if address is None:
        return Refusal(RefusalKind.NO_ROUTE, session.address)
    if desired.listen_addresses and address not in desired.listen_addresses:
        return Refusal(RefusalKind.NOT_LISTENING, address)
    if port < local.first_port:
        return Refusal(RefusalKind.PORT_PRIVILEGED, address, port)
    if local.taken(address, port):
        return Refusal(RefusalKind.PORT_TAKEN, address, port)
    return None
