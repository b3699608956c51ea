"""The decisions of Layer 2 as JSON rows, which a replay compares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from porterlb.core.hello import Hello
from porterlb.core.layer2 import actions as act
from porterlb.core.layer2.actions import Action
from porterlb.core.record.plain import plain

Said = tuple[object, ...]
"""The parts of our last hello that are decisions."""

_NAMED = ("fresh", "votes")
"""Fields of reports of which only the names are recorded: the rest arrived by hello."""


_TOLD = frozenset(
    (
        "dead",
        "dead_on",
        "alone",
        "probed",
        "fresh",
        "doubt",
        "rivals",
        "claimed",
        "clear",
        "notices",
        "applied",
        "votes",
    )
)


def decided(actions: Iterable[Action], said: Said) -> tuple[list[list[Any]], Said]:
    """The decisions in ``actions`` as JSON rows, without counters and repetitions; and the decisions in our hello."""
    rows: list[list[Any]] = []
    for action in actions:
        match action:
            case act.Say(hello):
                if (now := _said(hello)) != said:
                    said = now
                    rows.append(["say", *now])
            case act.Own(index, address, mac, by_asker):
                rows.append(["own", index, address.hex(), mac.hex(), *(["by asker"] if by_asker else [])])
            case act.Served(vip, answering):
                rows.append(["served", vip, answering.next_hop, answering.answerer])
            case act.Announce(index, address, defence):
                rows.append(["announce", index, address.hex(), defence])
            case act.Disown(index, address) | act.Join(index, address) | act.Leave(index, address):
                rows.append([type(action).__name__.lower(), index, address.hex()])
            case act.Tell(index, address, mac, _, at, _):
                rows.append(["tell", index, address.hex(), mac.hex(), at.hex()])
            case act.AnswerLate(index, address, _):
                rows.append(["late", index, address.hex()])
            case act.CheckAddress(index, checked):
                rows.append(["check", index, str(checked)])
            case act.OpenInterface(nic):
                rows.append(["open", nic.index])
            case act.CloseInterface(index) | act.DropInterface(index):
                rows.append([("drop" if isinstance(action, act.DropInterface) else "close"), index])
            case act.SendProbes(probes):
                rows.append(["burst", len(probes)])
            case act.Note(kind, subject):
                rows.append(["note", kind.name, subject])
            case act.Report(fields, _):
                rows += [["report", name, _reported(name, value)] for name, value in fields.items() if name in _TOLD]
            case act.SetHelloPeers(members):
                rows.append(["peers", *sorted(members)])
            case act.FindRoute(goal):
                rows.append(["find", str(goal)])
            case act.End():
                rows.append(["end"])
            case act.FindGateways() | act.Settled():
                pass
    return rows, said


def _said(hello: Hello) -> tuple[object, ...]:
    return (hello.goodbye, hello.answers, sorted(hello.dead))


def _reported(name: str, value: Any) -> Any:
    return sorted(value) if name in _NAMED else plain(value)
