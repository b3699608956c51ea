"""All sessions of one BFD process: which ones exist, which one a packet belongs to, and what is due when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from porterlb.core.bfd.packet import Discard, Packet, decode
from porterlb.core.bfd.session import Session
from porterlb.core.bfd.values import ALL_TTL, Address, BfdSession, BfdState, BfdTarget


@dataclass(frozen=True, slots=True)
class Send:
    """A packet to the router of a session."""

    peer: str
    data: bytes


@dataclass(slots=True)
class _Entry:
    target: BfdTarget
    session: Session
    leaving: bool = False  # it only sends AdminDown before it is removed


@dataclass(slots=True)
class BfdSessions:
    """Sessions by peer name. ``chance``: returns a new number from 0.0 to 1.0 with each call."""

    chance: Callable[[], float]
    discarded: dict[str, int] = field(default_factory=dict)
    changed: bool = False
    """Set when a reported state has changed; the caller clears it after reporting."""
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _held: bool = False

    # --- wanted sessions

    def want(self, targets: Iterable[BfdTarget], now: float) -> None:
        """Takes the whole set. Sessions that are no longer in it send AdminDown to their routers and are removed."""
        wanted = {target.peer: target for target in targets}
        for peer, entry in self._entries.items():
            if peer not in wanted and not entry.leaving:
                entry.leaving = True
                entry.session.disable(now)
        for peer, target in wanted.items():
            there = self._entries.get(peer)
            if there is None or not there.target.same_path(target):
                self._entries[peer] = self._begin(target, now)
            else:
                if there.leaving:
                    there.leaving = False
                    if not self._held:
                        there.session.enable(now)
                if there.target.settings != target.settings:
                    there.session.change(target.settings, now, self.chance())
                there.target = target
        self.changed = True
        self._tidy()

    def hold(self, now: float) -> None:
        """The manager or ExaBGP no longer shows a sign of life: all sessions become AdminDown until :meth:`release`."""
        self.changed = True
        self._held = True
        for entry in self._entries.values():
            entry.session.disable(now)

    def release(self, now: float) -> None:
        """Ends :meth:`hold`."""
        self.changed = True
        self._held = False
        for entry in self._entries.values():
            if not entry.leaving:
                entry.session.enable(now)

    @property
    def held(self) -> bool:
        return self._held

    def _begin(self, target: BfdTarget, now: float) -> _Entry:
        session = Session(target.settings, self._discriminator(), now)
        if self._held:
            session.disable(now)
        return _Entry(target, session)

    def _discriminator(self) -> int:
        """A new discriminator: not 0, and not used by another session here (RFC 5880, 6.3)."""
        taken = {entry.session.discriminator for entry in self._entries.values()}
        candidate = 1 + int(self.chance() * 0xFFFFFFFE)
        while candidate in taken:
            candidate = candidate % 0xFFFFFFFF + 1
        return candidate

    # --- events

    def receive(self, data: bytes, source: Address, ttl: int, now: float, *, multihop: bool) -> list[Send]:
        """A datagram arrived on the single-hop or the multihop port. Returns what to send immediately. Never raises."""
        packet = decode(data)
        if isinstance(packet, Discard):
            return self._discard(packet)
        entry = self._find(packet, source, multihop=multihop)
        if entry is None:
            return self._discard(Discard.NO_SESSION)
        if ttl < (entry.target.settings.minimum_ttl if multihop else ALL_TTL):
            return self._discard(Discard.TTL)
        before = entry.session.seen
        packets = entry.session.receive(packet, now, self.chance())
        self.changed = self.changed or entry.session.seen != before
        return self._encoded(entry, packets)

    def wake(self, now: float) -> list[Send]:
        """Handles what is due now. Returns the packets to send."""
        sends: list[Send] = []
        for entry in self._entries.values():
            at = entry.session.next_at
            if at is not None and at <= now:
                before = entry.session.seen
                sends += self._encoded(entry, entry.session.wake(now, self.chance()))
                self.changed = self.changed or entry.session.seen != before
        self._tidy()
        return sends

    @property
    def next_at(self) -> float | None:
        """When :meth:`wake` is due, monotonic seconds, or None."""
        return min((at for entry in self._entries.values() if (at := entry.session.next_at) is not None), default=None)

    # --- current state

    @property
    def targets(self) -> dict[str, BfdTarget]:
        """The targets of all sessions that may still send, by peer."""
        return {peer: entry.target for peer, entry in self._entries.items()}

    @property
    def reports(self) -> Mapping[str, BfdSession]:
        """The reports of the wanted sessions, by peer."""
        return {peer: entry.session.report for peer, entry in self._entries.items() if not entry.leaving}

    @property
    def silent(self) -> bool:
        """Whether all sessions are AdminDown and have told their routers."""
        return all(
            entry.session.state is BfdState.ADMIN_DOWN and entry.session.farewells == 0
            for entry in self._entries.values()
        )

    def _find(self, packet: Packet, source: Address, *, multihop: bool) -> _Entry | None:
        """Finds a session by discriminator, else by address (RFC 5880, 6.8.6); the address must match in any case."""
        for entry in self._entries.values():
            right = entry.target.address == source and entry.target.multihop == multihop
            if right and packet.your_discriminator in (0, entry.session.discriminator):
                return entry
        return None

    def _discard(self, why: Discard) -> list[Send]:
        self.discarded[why] = self.discarded.get(why, 0) + 1
        return []

    def _tidy(self) -> None:
        for peer in [peer for peer, entry in self._entries.items() if entry.leaving and entry.session.farewells == 0]:
            del self._entries[peer]

    @staticmethod
    def _encoded(entry: _Entry, packets: Iterable[Packet]) -> list[Send]:
        return [Send(entry.target.peer, packet.encode()) for packet in packets]
