"""The state of each BGP session, from what ExaBGP says. No input or output here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from porterlb.core import exabgp_text as text
from porterlb.core.desired import Neighbor
from porterlb.core.model import Address
from porterlb.core.observed import SessionState

ADMIN_DOWN = "admin down"


@dataclass(slots=True)
class Sessions:
    """Sessions by peer name. Times in monotonic seconds, given by the caller."""

    states: dict[str, SessionState] = field(default_factory=dict)
    _neighbors: Mapping[str, Neighbor] = field(default_factory=dict)
    _names: dict[Address, str] = field(default_factory=dict)
    _notifications: dict[Address, text.Notification] = field(default_factory=dict)

    def configure(self, neighbors: Mapping[str, Neighbor], refused: Mapping[str, str], now: float) -> None:
        """The whole set of peers: new ones start idle, ones that are gone are forgotten."""
        self._neighbors = neighbors
        self._names = {n.address: name for name, n in neighbors.items() if not n.admin_down and name not in refused}
        for name in self.states.keys() - neighbors.keys():
            del self.states[name]
        for name, neighbor in neighbors.items():
            state = self.states.get(name) or SessionState(name, self._resting(name), now)
            if neighbor.admin_down:
                state = _at(state, ADMIN_DOWN, now)
            elif name in refused:
                state = replace(_at(state, "idle", now), reason=refused[name])
            elif state.state == ADMIN_DOWN or (state.reason and state.state == "idle"):
                state = replace(_at(state, self._resting(name), now), reason="")
            self.states[name] = state

    def hear(self, said: text.Said, now: float) -> list[str]:
        """Takes an event in; returns the peers whose session has just come up or gone down."""
        if isinstance(said, text.Notification):
            self._notifications[said.address] = said
        elif isinstance(said, text.Shown):
            return self._shown(said, now)
        elif isinstance(said, text.Up | text.Down | text.Fsm):
            name = self._names.get(said.address)
            if name is None:
                return []
            state = self.states[name]
            if isinstance(said, text.Up):
                self._notifications.pop(said.address, None)
                self.states[name] = _at(state, "established", now)
                return [name]
            if isinstance(said, text.Down):
                return self._down(name, said, now)
            # Up tells of "established", after what the state machine says; and its end has a reason in Down.
            if not state.up and said.state != "established":
                attempt = said.state in ("opensent", "openconfirm")
                self.states[name] = _at(state, said.state if attempt else self._resting(name), now)
        return []

    def lose_all(self, reason: str, now: float) -> None:
        """ExaBGP is gone, and every session with it."""
        for name, state in self.states.items():
            if name in self._names.values():
                self.states[name] = self._lost(state, reason, now) if state.up else _at(state, "idle", now)
        self._notifications.clear()

    def up(self) -> frozenset[str]:
        return frozenset(name for name, state in self.states.items() if state.up)

    def _down(self, name: str, said: text.Down, now: float) -> list[str]:
        state = self.states[name]
        reason = text.loss(said, self._notifications.pop(said.address, None))
        if state.up:
            self.states[name] = self._lost(state, reason, now)
            return [name]
        # An attempt that came to nothing: of interest only where there is no loss to tell of.
        state = _at(state, self._resting(name), now)
        self.states[name] = replace(state, reason=reason) if said.reason and not state.losses else state
        return []

    def _lost(self, state: SessionState, reason: str, now: float) -> SessionState:
        lost = _at(state, self._resting(state.peer), now)
        return replace(lost, reason=reason, losses=state.losses + 1)

    def _shown(self, said: text.Shown, now: float) -> list[str]:
        """Events are not replayed to a new listener: what was missed is told apart here."""
        changed: list[str] = []
        for address, name in self._names.items():
            state, shown = self.states[name], said.states.get(address, "idle")
            if shown == "established" and not state.up:
                self.states[name] = replace(state, state=shown, since=now - said.duration.get(address, 0.0))
                changed.append(name)
            elif shown != "established" and state.up:
                self.states[name] = self._lost(state, "The session was lost while nobody listened.", now)
                changed.append(name)
        return changed

    def _resting(self, name: str) -> str:
        """Without a TCP connection ExaBGP says idle, active and connect in turn: one RFC 4271 name for each side."""
        neighbor = self._neighbors.get(name)
        return "active" if neighbor is not None and neighbor.passive else "connect"


def _at(state: SessionState, name: str, now: float) -> SessionState:
    return state if state.state == name else replace(state, state=name, since=now)
