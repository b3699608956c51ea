"""Runs a recording through the code of this release: the decisions of the reconcile loop and of the wire process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

from porterlb import checkpoint
from porterlb.cluster import KINDS, Cluster
from porterlb.core.desired import DesiredBgp, DesiredWire
from porterlb.core.known import Known
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import WireReport
from porterlb.core.plan import Plan
from porterlb.core.record import file, plans
from porterlb.core.record.codec import SECRET_TEXT, NotRecordable, decode
from porterlb.core.record.layer2_replay import Layer2Replay
from porterlb.core.record.manager import ManagerLog
from porterlb.reconcile import Planning, Reconciler
from porterlb.settings import Settings

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReplayedLine:
    """One line of a recording, replayed. ``did``: the decision now; ``differs``: whether it is not the recorded one.

    ``known``: after a plan of the manager, what it knows; ``before``: the previous plan.
    """

    line: Line
    did: Any = None
    differs: bool = False
    known: Known | None = None
    before: Plan | None = None


class _Nobody:
    """The speakers of a replay: they do nothing."""

    def want(self, wanted: DesiredBgp | DesiredWire, token: int = 0) -> None:
        pass


class _Decisions(ManagerLog):
    """Takes only the decisions."""

    def __init__(self) -> None:
        super().__init__(0)
        self.did: plans.Did | None = None

    def planned(self, at: float, before: Plan | None, made: Plan, wire: DesiredWire, token: int) -> None:
        self.did = plans.did(plans.changes(before, made, wire, token))


class ManagerReplay:
    """Replays the lines of a manager, given in order. Lines before the first ``state`` are left out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop: Reconciler | None = None
        self._log = _Decisions()
        self._now = 0.0
        self._planning: Planning | None = None
        self._failed = ""
        self._wire = WireReport()

    @property
    def known(self) -> Known | None:
        return self._loop.known if self._loop is not None else None

    def take(self, line: Line) -> Any:
        """Returns the decision that follows from this line, or None."""
        self._now = line["at"]
        if line["what"] == "state":
            self._begin(line)
            return None
        if self._loop is None:
            return None
        try:
            found = _TAKE[line["what"]](self, self._loop, line)
            return json.loads(file.dumps(found)) if found is not None else None
        except NotRecordable:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            what = line["what"][:40]
            raise NotRecordable(f"the event {what!r} cannot be replayed: {type(error).__name__}: {error}") from error

    def _begin(self, line: Line) -> None:
        def nothing(*_: Any) -> None:
            pass

        self._planning = None
        self._loop = Reconciler(
            self._settings,
            cast(Cluster, None),  # the loop that watches it does not run
            _Nobody(),
            _Nobody(),
            nothing,
            nothing,
            nothing,
            nothing,
            nothing,
            log=self._log,
            clock=lambda: self._now,
        )
        more = {name: decode(value) for name, value in line["more"].items()}
        checkpoint.restore(self._loop, line["raw"], decode(line["kept"]), decode(line["plan"]), more)
        self._wire = self._loop.inputs.wire_report

    def wire(self, loop: Reconciler, line: Line) -> None:
        report = {name: decode(value) for name, value in line["report"].items()}
        self._wire = replace(self._wire, **report)
        loop.on_wire(self._wire)

    def begin(self, loop: Reconciler, line: Line) -> None:
        self._failed = ""
        try:
            self._planning = loop.begin_plan(self._now)
        except Exception as error:  # as it may have failed in the recording
            self._planning, self._failed = None, type(error).__name__

    def planned(self, loop: Reconciler, line: Line) -> Any:
        """A plan is complete, or has failed."""
        planning, self._planning = self._planning, None
        if planning is None:
            return {"failed": self._failed} if self._failed else None
        try:
            while (made := loop.step_plan(planning)) is None:
                pass
            loop.end_plan(planning, made)
        except Exception as error:
            return {"failed": type(error).__name__}
        return self._log.did


def _object(_: ManagerReplay, loop: Reconciler, line: Line) -> None:
    loop.objects.change(line["kind"], line["object"])


def _gone(_: ManagerReplay, loop: Reconciler, line: Line) -> None:
    key = ObjectKey(*line["key"])
    loop.objects.delete(key.kind, key.namespace, key.name)


_TAKE: Mapping[str, Callable[[ManagerReplay, Reconciler, Line], Any]] = {
    "object": _object,
    "gone": _gone,
    "synced": lambda _, loop, line: loop.on_synced(KINDS[line["value"]]),
    "outage": lambda _, loop, line: loop.on_outage(line["value"]),
    "bgp": lambda _, loop, line: loop.on_bgp(decode(line["report"])),
    "wire": ManagerReplay.wire,
    "leader": lambda _, loop, line: loop.on_leader(line["value"]),
    "bounded": lambda _, loop, line: loop.on_bounded(line["value"]),
    "passwords": lambda _, loop, line: loop.on_passwords(dict.fromkeys(line["peers"], SECRET_TEXT)),
    "members": lambda _, loop, line: loop.on_members(decode(line["members"])),
    "named": lambda _, loop, __: loop.on_named(),
    "challenge": lambda _, loop, __: loop.on_challenge(),
    "delivering": lambda _, loop, line: loop.on_delivering(decode(line["hops"])),
    "proxies": lambda _, loop, line: loop.on_proxies(frozenset(line["nodes"])),
    "begin": ManagerReplay.begin,
    "planned": ManagerReplay.planned,
    "failed": ManagerReplay.planned,
}


def replayed(texts: Iterable[str]) -> tuple[Line, Iterator[ReplayedLine]]:
    """The header of a recording, and each of its lines with the decision of this release.

    Raises NotARecording, and NotRecordable while the lines are read.
    """
    header, lines = file.read(texts)
    return header, _steps(lines, settings_of(header))


def settings_of(header: Line) -> Settings:
    """The settings of the recorded manager; those that this release does not know are left out."""
    known = {found.name for found in fields(Settings)}
    given = header.get("settings")
    if not isinstance(given, dict):
        raise file.NotARecording("its header has no settings")
    return Settings(**{name: value for name, value in given.items() if name in known})


def _steps(lines: Iterable[Line], settings: Settings) -> Iterator[ReplayedLine]:
    manager, wire = ManagerReplay(settings), Layer2Replay()
    for line in lines:
        if line["by"] == file.WIRE:
            rows = json.loads(json.dumps(wire.take(line)))
            yield ReplayedLine(line, rows or None, rows != line.get("did", []))
        elif line["what"] in ("planned", "failed"):
            before = manager.known.plan if manager.known is not None else None
            did = manager.take(line)
            yield ReplayedLine(line, did, did is not None and did != _recorded(line), manager.known, before)
        else:
            manager.take(line)
            yield ReplayedLine(line)


def _recorded(line: Line) -> Any:
    return line.get("did", {"failed": line.get("value")})
