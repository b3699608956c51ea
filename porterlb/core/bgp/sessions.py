"""The state of each BGP session, from the events of ExaBGP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from porterlb.core import exabgp_text as text
from porterlb.core.bfd.values import BfdSession, BfdTarget, Diagnostic
from porterlb.core.bgp.config import Arranged
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.negotiated import Negotiated
from porterlb.core.bgp.reasons import Loss, LossKind, Trouble
from porterlb.core.bgp.rules import FAMILIES
from porterlb.core.desired import Path, SessionConfig
from porterlb.core.model import Address
from porterlb.core.observed import SessionState
from porterlb.core.scope import unscoped

ADMIN_DOWN = "admin down"

SETTLING = 1.0
"""Seconds. FRR (8.4) restarts its BFD session when it accepts a BGP connection, and sends Down: measured about 0.1 s
before ExaBGP reports that the session is established. If this Down arrives slightly after that, it must not end the new
session."""


@dataclass(slots=True)
class Sessions:
    """Sessions by peer name. Times: monotonic seconds, as arguments."""

    states: dict[str, SessionState] = field(default_factory=dict)
    _wanted: Mapping[str, SessionConfig] = field(default_factory=dict)
    _names: dict[Address, str] = field(default_factory=dict)
    _notifications: dict[Address, text.Notification] = field(default_factory=dict)
    _opened: dict[Address, Negotiated] = field(default_factory=dict)  # for sessions not established yet
    torn: set[str] = field(default_factory=set)
    """Peers whose session counts as lost because of BFD, while ExaBGP still has it."""
    unseen: set[str] = field(default_factory=set)
    """New peers, until ExaBGP has shown its sessions. It may have had the session all along, if the peer was removed
    and came back before a reload, and it reports no event for that."""

    def configure(self, wanted: Mapping[str, SessionConfig], arranged: Arranged, now: float) -> None:
        """Sets all peers: new ones start without a connection, removed ones are dropped."""
        changed = {name for name, config in wanted.items() if self._wanted.get(name, config) != config}
        self._wanted = wanted
        # ExaBGP reports link-local addresses without their interface.
        self._names = {unscoped(session.address): name for name, session in arranged.config.sessions.items()}
        for name in self.states.keys() - wanted.keys():
            del self.states[name]
            self.torn.discard(name)
        self.unseen = (self.unseen | wanted.keys() - self.states.keys()) & wanted.keys()
        for name, config in wanted.items():
            state = self.states.get(name) or SessionState(name, self._resting(name), now)
            refusal = arranged.refused.get(name)
            if config.admin_down:
                state = _at(state, ADMIN_DOWN, now)
            elif refusal is not None:
                state = _at(state, "idle", now)
            elif state.state == ADMIN_DOWN or state.refusal is not None:
                state = _at(state, self._resting(name), now)
            attempt = None if name in changed else state.attempt
            self.states[name] = replace(state, refusal=refusal, limit=arranged.limited.get(name), attempt=attempt)

    def hear(self, said: text.Said, now: float) -> list[str]:
        """Processes an event; returns the peers whose session has just come up or gone down."""
        if isinstance(said, text.Notification):
            self._notifications[said.address] = said
        elif isinstance(said, text.Opened):
            self._opened[said.address] = said.negotiated
        elif isinstance(said, text.Shown):
            return self._shown(said, now)
        elif isinstance(said, text.Up | text.Down | text.Fsm):
            name = self._names.get(said.address)
            if name is None:
                return []
            state = self.states[name]
            if isinstance(said, text.Up):
                self.torn.discard(name)
                self._notifications.pop(said.address, None)
                negotiated = self._opened.pop(said.address, state.negotiated)
                self.states[name] = replace(_at(state, "established", now), attempt=None, negotiated=negotiated)
                return [name]
            if isinstance(said, text.Down):
                return self._down(name, said, now)
            # Up reports "established" after this event does; Down reports its end, with a reason.
            if not state.up and said.state != "established":
                attempt = said.state in ("opensent", "openconfirm")
                self.states[name] = _at(state, said.state if attempt else self._resting(name), now)
        return []

    def hear_bfd(self, found: Mapping[str, BfdSession], now: float) -> frozenset[str]:
        """Takes the BFD sessions by peer name. Returns the peers whose established BGP session is lost because of BFD.

        It is no failure if the router has switched BFD off, or if BFD was never up (RFC 5882, 4).
        """
        lost = set()
        for name, state in self.states.items():
            before, bfd = state.bfd, found.get(name)
            if bfd == before:
                continue
            self.states[name] = replace(state, bfd=bfd)
            failed = before is not None and bfd is not None and bfd.failures > before.failures
            if failed and bfd is not None and state.up and not _begins_anew(bfd, now - state.since):
                loss = Loss(LossKind.BFD, bfd.diagnostic, local=True)
                self.states[name] = self._lost(self.states[name], loss, now)
                lost.add(name)
        self.torn |= lost
        return frozenset(lost)

    def waiting_for_bfd(self, targets: Mapping[str, BfdTarget]) -> frozenset[str]:
        """Strict peers whose session must not be opened yet. An established session stays if the BFD process or the
        router ends BFD without a failure."""
        found = set()
        for name, target in targets.items():
            state = self.states.get(name)
            permitted = state is not None and (state.up or (state.bfd is not None and state.bfd.permits_bgp))
            if target.settings.strict and not permitted:
                found.add(name)
        return frozenset(found)

    def lose_all(self, trouble: Trouble, now: float) -> None:
        """ExaBGP has ended, and every session with it."""
        for name, state in self.states.items():
            if name in self._names.values():
                loss = Loss(LossKind.SPEAKER, trouble=trouble, local=True)
                self.states[name] = self._lost(state, loss, now) if state.up else _at(state, "idle", now)
        self._notifications.clear()
        self._opened.clear()
        self.torn.clear()

    def fits(self, path: Path) -> bool:
        """Whether a path can be announced to its peer, as last negotiated: one of several paths needs add-path, and an
        IPv4 route with an IPv6 next hop RFC 8950. ExaBGP itself would send such a route in any case."""
        state = self.states.get(path.peer)
        agreed = state.negotiated if state else None
        if path.extended and not (agreed is not None and agreed.extended_next_hop):
            return False
        return not path.path_id or agreed is None or path.version in agreed.add_path

    def unfit(self, name: str, difference: Difference) -> bool:
        """Whether ExaBGP has routes of a peer that its session cannot carry: paths that it cannot distinguish, or IPv4
        routes with an IPv6 next hop."""
        agreed = self.states[name].negotiated
        if agreed is None:
            return False
        if not agreed.extended_next_hop and difference.has_extended(name):
            return True
        return any(difference.has_path_ids(name, version) for version in FAMILIES if version not in agreed.add_path)

    def up(self) -> frozenset[str]:
        return frozenset(name for name, state in self.states.items() if state.up)

    def _down(self, name: str, said: text.Down, now: float) -> list[str]:
        state = self.states[name]
        loss = text.loss(said, self._notifications.pop(said.address, None))
        if name in self.torn:  # the loss was reported already, with its reason
            self.torn.discard(name)
            return []
        if state.up:
            self.states[name] = self._lost(state, loss, now)
            return [name]
        state = _at(state, self._resting(name), now)
        if said.reason and loss.kind is not LossKind.REMOVED:  # otherwise it only reports that we stopped trying
            state = replace(state, attempt=loss)
        self.states[name] = state
        return []

    def _lost(self, state: SessionState, loss: Loss, now: float) -> SessionState:
        lost = _at(state, self._resting(state.peer), now)
        return replace(lost, loss=loss, losses=state.losses + 1, attempt=None)

    def _shown(self, said: text.Shown, now: float) -> list[str]:
        """Detects missed events from the list of sessions: ExaBGP does not replay events to a new listener."""
        changed: list[str] = []
        self.unseen.clear()
        for address, name in self._names.items():
            state, shown = self.states[name], said.states.get(address, "idle")
            if name in self.torn:
                if shown != "established":
                    self.torn.discard(name)
            elif shown == "established" and not state.up:
                since = now - said.duration.get(address, 0.0)
                negotiated = said.negotiated.get(address, state.negotiated)
                self.states[name] = replace(state, state=shown, since=since, attempt=None, negotiated=negotiated)
                changed.append(name)
            elif shown != "established" and state.up:
                self.states[name] = self._lost(state, Loss(LossKind.UNHEARD), now)
                changed.append(name)
        return changed

    def _resting(self, name: str) -> str:
        """The state without a TCP connection, as one RFC 4271 name per side: ExaBGP alternates between idle, active and
        connect."""
        config = self._wanted.get(name)
        return "active" if config is not None and config.passive else "connect"


def _begins_anew(bfd: BfdSession, age: float) -> bool:
    """Whether the router only restarted its BFD session with the BGP session. ``age``: seconds of the BGP session."""
    return bfd.diagnostic == Diagnostic.NEIGHBOR_DOWN and age < SETTLING


def _at(state: SessionState, name: str, now: float) -> SessionState:
    return state if state.state == name else replace(state, state=name, since=now)
