"""Which sessions ExaBGP is configured with, what it listens on, and which peers are kept out and why.

ExaBGP finds the local address of a session that it opens by itself, but cannot listen without knowing it. It ends, with
all its sessions, when it cannot listen on one address: so what the node does not allow is found out before.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace

from porterlb.core.bgp.reasons import Refusal, RefusalKind
from porterlb.core.desired import DesiredBgp, SessionConfig
from porterlb.core.model import Address

Listener = tuple[Address, int]
"""A local address (unspecified: all of its IP version) and a TCP port."""


@dataclass(frozen=True, slots=True)
class Local:
    """What the node allows now.

    ``sources``: by peer address, the local address that the kernel uses towards it; None: there is no route.
    ``absent``: local addresses that are asked for and that the node does not have. ``interfaces``: by name and IP
    version, the address of an interface that is asked for; None: there is none. ``listeners``: where another
    process listens. ``first_port``: the lowest TCP port that ExaBGP may listen on.
    """

    sources: Mapping[Address, Address | None] = field(default_factory=dict)
    absent: frozenset[Address] = frozenset()
    interfaces: Mapping[tuple[str, int], Address | None] = field(default_factory=dict)
    listeners: frozenset[Listener] = frozenset()
    first_port: int = 1

    def taken(self, address: Address, port: int) -> bool:
        return any(p == port and (a == address or _covers(a, address)) for a, p in self.listeners)


def _covers(listening: Address, address: Address) -> bool:
    # A socket for all IPv6 addresses mostly takes IPv4 as well.
    return listening.is_unspecified and listening.version >= address.version


@dataclass(frozen=True, slots=True)
class Config:
    """What ExaBGP is told; two that are equal need no reload. ``listen``: TCP port by peer name."""

    sessions: Mapping[str, SessionConfig] = field(default_factory=dict)
    listen: Mapping[str, int] = field(default_factory=dict)

    @property
    def listeners(self) -> frozenset[Listener]:
        """Where ExaBGP itself listens with it."""
        found = ((self.sessions[name].local_address, port) for name, port in self.listen.items())
        return frozenset((address, port) for address, port in found if address is not None)


@dataclass(frozen=True, slots=True)
class Arranged:
    """``refused``: peers that are kept out. ``limited``: peers that are in it, but cannot be listened for."""

    config: Config = Config()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    limited: Mapping[str, Refusal] = field(default_factory=dict)


def arrange(desired: DesiredBgp, local: Local, waiting: Set[str] = frozenset()) -> Arranged:
    """Sorts the peers: one that cannot work here is refused alone, and one that can at least open its session does.

    ``waiting``: peers whose session is not to be opened before BFD is up.
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
        if session.address in taken:
            refused[name] = Refusal(RefusalKind.SAME_ADDRESS, session.address, other=taken[session.address])
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
        if name in waiting:
            refused[name] = Refusal(RefusalKind.BFD_NOT_UP)
            continue
        port = desired.listen_port
        address = session.local_address
        if port and address is None:
            address = local.sources.get(session.address)
        obstacle = _obstacle(desired, session, address, port, local) if port or session.passive else None
        if obstacle is not None and session.passive:
            refused[name] = obstacle
            continue
        taken[session.address] = name
        if obstacle is not None and obstacle.kind in _TOLD:
            limited[name] = obstacle
        if port and obstacle is None:
            sessions[name] = replace(session, local_address=address)
            listen[name] = port
        else:
            sessions[name] = session
    return Arranged(Config(sessions, listen), refused, limited)


_TOLD = frozenset({RefusalKind.PORT_TAKEN, RefusalKind.PORT_PRIVILEGED})
"""What the user wants to know of a peer that works all the same: it was asked to listen, and does not."""


def _obstacle(
    desired: DesiredBgp, session: SessionConfig, address: Address | None, port: int, local: Local
) -> Refusal | None:
    """Why the peer cannot be listened for."""
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
