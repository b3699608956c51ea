"""The inputs and reports of BFD sessions: plain values.

Intervals are in microseconds, as in the packets, except in :class:`BfdSettings`: milliseconds, as users configure them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address

SINGLE_HOP_PORT = 3784
"""UDP (RFC 5881, 4)."""
MULTIHOP_PORT = 4784
"""UDP (RFC 5883, 5)."""
FIRST_SOURCE_PORT, LAST_SOURCE_PORT = 49152, 65535
"""Source ports (RFC 5881, 4)."""
ALL_TTL = 255
"""TTL or hop limit of every packet sent, and of every single-hop packet accepted (RFC 5881, 5; RFC 5082)."""

MIN_INTERVAL, MAX_INTERVAL = 50, 60_000
"""Milliseconds. Below 50 ms, scheduler pauses of a busy node would end sessions."""
MIN_MULTIPLIER, MAX_MULTIPLIER = 2, 255


class BfdState(enum.IntEnum):
    """Session state (RFC 5880, 4.1)."""

    ADMIN_DOWN = 0
    DOWN = 1
    INIT = 2
    UP = 3


class Diagnostic(enum.IntEnum):
    """Why a session last changed its state (RFC 5880, 4.1)."""

    NONE = 0
    DETECTION_EXPIRED = 1
    ECHO_FAILED = 2
    NEIGHBOR_DOWN = 3
    FORWARDING_RESET = 4
    PATH_DOWN = 5
    CONCATENATED_DOWN = 6
    ADMIN_DOWN = 7
    REVERSE_CONCATENATED_DOWN = 8


@dataclass(frozen=True, slots=True)
class BfdSettings:
    """BgpPeer.spec.bfd, enabled. Intervals in milliseconds.

    ``passive``: send nothing before the router has sent a packet. ``minimum_ttl``: for accepted multihop packets.
    ``strict``: no BGP session is opened before BFD is up.
    """

    detect_multiplier: int = 3
    min_transmit: int = 300
    min_receive: int = 300
    passive: bool = False
    minimum_ttl: int = 254
    strict: bool = False


@dataclass(frozen=True, slots=True)
class BfdTarget:
    """One wanted session of the BFD process. ``local_address`` None: the routing table selects the address, or it is
    the address of ``interface``."""

    peer: str
    address: Address
    local_address: Address | None = None
    multihop: bool = False
    settings: BfdSettings = BfdSettings()
    interface: str = ""

    @property
    def port(self) -> int:
        return MULTIHOP_PORT if self.multihop else SINGLE_HOP_PORT

    def same_path(self, other: BfdTarget) -> bool:
        """Whether a running session can be used for ``other``: at most their settings differ."""
        return (self.address, self.local_address, self.multihop) == (
            other.address,
            other.local_address,
            other.multihop,
        )


class ObstacleKind(enum.StrEnum):
    """Why a session is not possible on this node."""

    PORT_TAKEN = "port_taken"  # port
    NO_ROUTE = "no_route"
    ADDRESS_ABSENT = "address_absent"
    NOT_RUNNING = "not_running"  # text: why the BFD process does not run
    OTHER = "other"  # text: error of the operating system


@dataclass(frozen=True, slots=True)
class Obstacle:
    """The fields depend on the kind."""

    kind: ObstacleKind
    port: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class BfdSession:
    """The state of one session. Intervals in microseconds.

    ``diagnostic``: why our side last left Up, or NONE. ``failures``: how often it left Up because the router or the
    path failed; ``transitions``: how often it came up or left Up. Both count since the manager started.
    """

    state: BfdState = BfdState.DOWN
    diagnostic: int = Diagnostic.NONE
    remote_state: BfdState = BfdState.DOWN
    remote_diagnostic: int = Diagnostic.NONE
    heard: bool = False
    transmit_interval: int = 0
    detection_time: int = 0
    failures: int = 0
    transitions: int = 0
    obstacle: Obstacle | None = None

    @property
    def up(self) -> bool:
        return self.state is BfdState.UP

    @property
    def permits_bgp(self) -> bool:
        """Whether a strict peer may open its BGP session: BFD is up, or switched off on the router (RFC 5882)."""
        return self.up or (self.heard and self.remote_state is BfdState.ADMIN_DOWN)


@dataclass(frozen=True, slots=True)
class BfdReport:
    """All sessions of the BFD process, by peer name. ``discarded``: packets by reason."""

    sessions: Mapping[str, BfdSession] = field(default_factory=dict)
    discarded: Mapping[str, int] = field(default_factory=dict)
