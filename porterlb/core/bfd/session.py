"""One BFD session in asynchronous mode (RFC 5880, 6.8): no echo, no authentication, no demand mode of our own.

Time in monotonic seconds and ``chance`` (a random number, 0.0 to 1.0) are arguments; intervals are in microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from porterlb.core.bfd.packet import Packet
from porterlb.core.bfd.values import BfdSession, BfdSettings, BfdState, Diagnostic

SLOW = 1_000_000
"""Minimum microseconds between two packets while the session is not Up (RFC 5880, 6.8.3)."""

FAREWELLS = 3
"""Copies of the AdminDown packet: two of them may be lost."""

FAREWELL_PAUSE = 0.02
"""Seconds between these copies."""

_NEXT = {
    # (our state, state of the neighbour): the next state (RFC 5880, 6.8.6)
    (BfdState.DOWN, BfdState.DOWN): BfdState.INIT,
    (BfdState.DOWN, BfdState.INIT): BfdState.UP,
    (BfdState.INIT, BfdState.INIT): BfdState.UP,
    (BfdState.INIT, BfdState.UP): BfdState.UP,
    (BfdState.INIT, BfdState.ADMIN_DOWN): BfdState.DOWN,
    (BfdState.UP, BfdState.DOWN): BfdState.DOWN,
    (BfdState.UP, BfdState.ADMIN_DOWN): BfdState.DOWN,
}


@dataclass(slots=True)
class Session:
    """The variables of RFC 5880, 6.8.1. ``next_at`` says when :meth:`wake` is due."""

    settings: BfdSettings
    discriminator: int
    send_at: float | None
    state: BfdState = BfdState.DOWN
    diagnostic: int = Diagnostic.NONE
    detect_at: float | None = None
    failures: int = 0
    transitions: int = 0
    remote_state: BfdState = BfdState.DOWN
    remote_diagnostic: int = Diagnostic.NONE
    remote_discriminator: int = 0
    heard: bool = False
    farewells: int = 0
    _remote_min_transmit: int = 0
    _remote_min_receive: int = 1
    _remote_multiplier: int = 0
    _remote_demand: bool = False
    _polling: bool = False
    _transmit: int = field(init=False)  # in use; the advertised value may already be longer (6.8.3)
    _receive: int = field(init=False)  # in use; the advertised value may already be shorter

    def __post_init__(self) -> None:
        self._transmit, self._receive = self._min_transmit, self._min_receive
        if self.settings.passive:
            self.send_at = None

    @property
    def next_at(self) -> float | None:
        """When something is due, monotonic seconds, or None."""
        return min((at for at in (self.send_at, self.detect_at) if at is not None), default=None)

    @property
    def seen(self) -> tuple[object, ...]:
        """The values whose change is reported immediately."""
        return (self.state, self.remote_state, self.heard, self.transitions, self._transmit, self._remote_min_receive)

    @property
    def report(self) -> BfdSession:
        return BfdSession(
            self.state,
            self.diagnostic,
            self.remote_state,
            self.remote_diagnostic,
            self.heard,
            self._interval or 0,
            self._detection_time,
            self.failures,
            self.transitions,
        )

    # --- events

    def receive(self, packet: Packet, now: float, chance: float) -> tuple[Packet, ...]:
        """A packet for this session arrived. Returns the packets to send immediately."""
        interval = self._interval
        self.remote_discriminator = packet.my_discriminator
        self.remote_state, self.remote_diagnostic = packet.state, packet.diagnostic
        self._remote_demand, self._remote_multiplier = packet.demand, packet.multiplier
        self._remote_min_transmit, self._remote_min_receive = packet.min_transmit, packet.min_receive
        self.heard = True
        if packet.final:
            self._polling = False
            self._transmit, self._receive = self._min_transmit, self._min_receive
        if self.state is BfdState.ADMIN_DOWN:
            return ()
        before = self.state
        after = _NEXT.get((self.state, packet.state), self.state)
        if after is not before:
            if after is BfdState.DOWN:
                self.diagnostic = Diagnostic.NEIGHBOR_DOWN
            self._become(after)
        self.detect_at = now + self._detection_time / 1e6
        if packet.poll:
            return (self._sent(now, chance, final=True),)
        if after is not before:
            return (self._sent(now, chance),)
        if self._interval != interval:
            self._sooner(now, chance)
        return ()

    def wake(self, now: float, chance: float) -> tuple[Packet, ...]:
        """Handles what is due. Returns the packets to send now. Call it only after all received packets are processed:
        a late caller must not count as a failure of the router."""
        if self.detect_at is not None and now >= self.detect_at:
            self._expire(now)
        if self.send_at is None or now < self.send_at:
            return ()
        packet = self._sent(now, chance)
        if self.farewells > 0:
            self.farewells -= 1
            if self.farewells > 0:
                self.send_at = now + FAREWELL_PAUSE
        return (packet,)

    def change(self, settings: BfdSettings, now: float, chance: float) -> None:
        """Applies other settings to the running session, by a poll sequence while it is Up (6.8.3)."""
        self.settings = settings
        if self.state is BfdState.UP:
            self._polling = True
            self._transmit = min(self._transmit, self._min_transmit)
            self._receive = max(self._receive, self._min_receive)
            self._sooner(now, chance)
        else:
            self._transmit, self._receive = self._min_transmit, self._min_receive
            if self.send_at is None and self.state is BfdState.DOWN and not settings.passive:
                self.send_at = now

    def disable(self, now: float) -> None:
        """Sets the session administratively down (6.8.16): the router is told, and its packets have no effect."""
        if self.state is BfdState.ADMIN_DOWN:
            return
        told = self.state is not BfdState.DOWN or self.heard
        self.diagnostic = Diagnostic.ADMIN_DOWN
        self._become(BfdState.ADMIN_DOWN)
        self.detect_at = None
        self.farewells = FAREWELLS if told else 0
        self.send_at = now if told else None

    def enable(self, now: float) -> None:
        """Ends AdminDown: the session starts again."""
        if self.state is not BfdState.ADMIN_DOWN:
            return
        self.diagnostic = Diagnostic.NONE
        self._forget_neighbour()
        self._become(BfdState.DOWN)
        self.farewells = 0
        self.send_at = None if self.settings.passive else now

    # --- rules

    @property
    def _min_transmit(self) -> int:
        """The advertised value: never below SLOW while the session is not Up (6.8.3)."""
        wanted = self.settings.min_transmit * 1000
        return wanted if self.state is BfdState.UP else max(SLOW, wanted)

    @property
    def _min_receive(self) -> int:
        return self.settings.min_receive * 1000

    @property
    def _interval(self) -> int | None:
        """Microseconds between two packets, without jitter (6.8.7); None: no periodic packets are sent."""
        if self._remote_min_receive == 0 or (self.settings.passive and self.remote_discriminator == 0):
            return None
        both_up = self.state is BfdState.UP and self.remote_state is BfdState.UP
        if self._remote_demand and both_up and not self._polling:
            return None
        return max(self._transmit, self._remote_min_receive)

    @property
    def _detection_time(self) -> int:
        """Microseconds (6.8.4)."""
        return self._remote_multiplier * max(self._receive, self._remote_min_transmit)

    def _become(self, state: BfdState) -> None:
        before, self.state = self.state, state
        if BfdState.UP in (before, state):
            self.transitions += 1
        if before is BfdState.UP and state is BfdState.DOWN and self.remote_state is not BfdState.ADMIN_DOWN:
            self.failures += 1
        # The intervals in use change immediately: on the transition to Up the transmit interval can only shrink, and
        # while the session is not Up the intervals may grow immediately.
        self._polling = state is BfdState.UP
        if state is BfdState.UP:
            self.diagnostic = Diagnostic.NONE
        self._transmit, self._receive = self._min_transmit, self._min_receive

    def _expire(self, now: float) -> None:
        """Nothing was received for the detection time (6.8.4)."""
        self.detect_at = None
        self._forget_neighbour()
        if self.state in (BfdState.INIT, BfdState.UP):
            self.diagnostic = Diagnostic.DETECTION_EXPIRED
            self._become(BfdState.DOWN)
            self.send_at = now  # to inform a router that still receives our packets

    def _forget_neighbour(self) -> None:
        self.remote_discriminator = 0
        self.remote_state, self.remote_diagnostic = BfdState.DOWN, Diagnostic.NONE
        self._remote_min_receive, self._remote_demand = 1, False

    def _jittered(self, interval: int, chance: float) -> float:
        """Seconds: 75 to 100 % of the interval (6.8.7; a multiplier of 1 needs other limits and is not allowed)."""
        return interval / 1e6 * (0.75 + 0.25 * chance)

    def _sooner(self, now: float, chance: float) -> None:
        """The interval may have changed: a shorter one takes effect immediately."""
        interval = self._interval
        if interval is None:
            self.send_at = None
            return
        at = now + self._jittered(interval, chance)
        self.send_at = at if self.send_at is None else min(self.send_at, at)

    def _sent(self, now: float, chance: float, *, final: bool = False) -> Packet:
        interval = self._interval
        if not final or self.send_at is None:  # an answer to a poll does not move the periodic packets
            self.send_at = now + self._jittered(interval, chance) if interval is not None else None
        else:
            self._sooner(now, chance)
        return Packet(
            self.state,
            self.discriminator,
            self.remote_discriminator,
            self.settings.detect_multiplier,
            self._min_transmit,
            self._min_receive,
            self.diagnostic,
            poll=self._polling and not final,
            final=final,
        )
