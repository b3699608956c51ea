"""All sessions of one BFD process: which exist, to which a packet belongs, and what is due when."""

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
    leaving: bool = False  # it only says AdminDown any more


@dataclass(slots=True)
class BfdSessions:
    """Sessions by peer name. ``chance``: a number from 0.0 to 1.0, another one each time."""

    chance: Callable[[], float]
    discarded: dict[str, int] = field(default_factory=dict)
    changed: bool = False
    """Set when a state has changed that is reported; whoever has reported it clears it."""
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _held: bool = False

    # --- what is wanted

    def want(self, targets: Iterable[BfdTarget], now: float) -> None:
        """The whole set. Sessions that are not in it any more tell their routers AdminDown, then they are gone."""
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
        """Nobody vouches for the node's routing any more: all sessions become AdminDown until :meth:`release`."""
        self.changed = True
        self._held = True
        for entry in self._entries.values():
            entry.session.disable(now)

    def release(self, now: float) -> None:
        """The end of :meth:`hold`."""
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
        """Not 0, and of no other session here (RFC 5880, 6.3)."""
        taken = {entry.session.discriminator for entry in self._entries.values()}
        candidate = 1 + int(self.chance() * 0xFFFFFFFE)
        while candidate in taken:
            candidate = candidate % 0xFFFFFFFF + 1
        return candidate

    # --- what happens

    def receive(self, data: bytes, source: Address, ttl: int, now: float, *, multihop: bool) -> list[Send]:
        """A datagram from the single-hop or the multihop port; what is to be sent at once. Never raises."""
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
        """What is due now."""
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

    # --- what is

    @property
    def targets(self) -> dict[str, BfdTarget]:
        """Of all sessions that may still send, by peer."""
        return {peer: entry.target for peer, entry in self._entries.items()}

    @property
    def reports(self) -> Mapping[str, BfdSession]:
        """Of the wanted sessions."""
        return {peer: entry.session.report for peer, entry in self._entries.items() if not entry.leaving}

    @property
    def silent(self) -> bool:
        """Whether every router has been told AdminDown that is to be."""
        return all(
            entry.session.state is BfdState.ADMIN_DOWN and entry.session.farewells == 0
            for entry in self._entries.values()
        )

    def _find(self, packet: Packet, source: Address, *, multihop: bool) -> _Entry | None:
        """By discriminator, else by address (RFC 5880, 6.8.6); the address has to be right in any case."""
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
