"""The actions of one event, in order, and the counters that are reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from porterlb.core.layer2.actions import (
    Action,
    CloseInterface,
    DropInterface,
    FindRoute,
    Note,
    NoteKind,
    OpenInterface,
    Report,
)


class ActionList:
    def __init__(self) -> None:
        self._actions: list[Action] = []
        self.counters: dict[str, int] = {}

    def add(self, *actions: Action) -> None:
        self._actions += actions

    @property
    def waiting(self) -> bool:
        """Whether there are actions to take."""
        return bool(self._actions)

    def report(self, at_once: bool = False, **fields: Any) -> None:
        """Reports the complete values of these fields of WireReport; ``at_once``: not batched with later fields."""
        self._actions.append(Report(fields, at_once))

    def note(self, kind: NoteKind, subject: str = "") -> None:
        """Writes a line to the log."""
        self._actions.append(Note(kind, subject))

    def count(self, name: str, by: int) -> None:
        if by:
            self.counters[name] = self.counters.get(name, 0) + by

    def take(self, opened: Sequence[OpenInterface] = (), found: Sequence[FindRoute] = ()) -> list[Action]:
        """Returns the collected actions and clears the list.

        Interfaces are closed, then opened, before they are used. Log lines and reports come last: a report makes the
        manager plan, and the manager may compete for the CPU.
        """
        actions, self._actions = self._actions, []
        if len(actions) + len(opened) + len(found) < 2:
            return [*opened, *actions, *found]
        closing, told, rest = [], [], []
        for action in actions:
            if isinstance(action, CloseInterface | DropInterface):
                closing.append(action)
            elif isinstance(action, Report | Note):
                told.append(action)
            else:
                rest.append(action)
        return [*closing, *opened, *rest, *found, *told]
