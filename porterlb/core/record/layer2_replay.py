"""Runs the events of a recorded wire process through :class:`porterlb.core.layer2.engine.Layer2` again."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from porterlb.core import wire_text
from porterlb.core.layer2.actions import Action
from porterlb.core.layer2.engine import Layer2
from porterlb.core.layer2.targets import TargetKey
from porterlb.core.record.codec import SECRET_KEY, NotRecordable, decode
from porterlb.core.record.decided import Said, decided
from porterlb.core.record.entries import Line

Row = list[Any]


class Layer2Replay:
    """Takes the lines of :func:`porterlb.core.record.entries.lines` in order, first a ``state``."""

    def __init__(self) -> None:
        self._layer2: Layer2 | None = None
        self._said: Said = ()

    def take(self, line: Line) -> list[Row]:
        """The decisions on this line. Raises NotRecordable for an invalid line."""
        try:
            return self._take(line)
        except NotRecordable:
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            what = str(line.get("what"))[:40]
            raise NotRecordable(f"the event {what!r} cannot be replayed: {type(error).__name__}: {error}") from error

    def _take(self, line: Line) -> list[Row]:
        if line["what"] == "state":
            state = decode(line["state"])
            self._said = state.pop("_said")
            state.pop("_now")
            self._layer2 = Layer2.__new__(Layer2)
            self._layer2.__dict__.update(state)
            return []
        if self._layer2 is None:
            return []  # before the first state: there is no basis for decisions
        actions = _APPLY[line["what"]](self._layer2, line, line["at"])
        rows, self._said = decided(actions or [], self._said)
        return rows


def _hello(layer2: Layer2, line: Line, now: float) -> list[Action]:
    if "refused" in line:
        return layer2.hello(bytes.fromhex(line["refused"]), now)
    signed = bytes.fromhex(line["signed"])
    return layer2.hello(signed + hmac.digest(SECRET_KEY, signed, sha256), now)


def _probed(layer2: Layer2, line: Line, now: float) -> None:
    due = layer2.due(frozenset(line["nics"]))
    layer2.probed([probe.key for probe in due])


def _unsent(layer2: Layer2, line: Line, now: float) -> None:
    """Corrects probes that could not be sent."""
    for nic, address in line["with"][0]:
        layer2.nodes.detector.probes.findings[TargetKey(nic, bytes.fromhex(address))].target.misses -= 1


def _asked(layer2: Layer2, line: Line, now: float) -> None:
    vip = layer2.vips.get(bytes.fromhex(line["address"]))
    if vip is not None:
        vip.asked = decode(line["last"])
        vip.question = decode(line["question"])


def _question(layer2: Layer2, line: Line, now: float) -> None:
    nic, question = line["with"]
    layer2.asked(nic, decode(question), now)


def _claimed(layer2: Layer2, line: Line, now: float) -> None:
    layer2.claimed(bytes.fromhex(line["address"]), bytes.fromhex(line["mac"]), now)


def _announced(layer2: Layer2, line: Line, now: float) -> None:
    layer2.announced(bytes.fromhex(line["address"]), line["sent"], now, defence=line["defence"])


_APPLY: Mapping[str, Callable[[Layer2, Line, float], list[Action] | None]] = {
    "probe": lambda layer2, line, now: layer2.probe(now, line["lag"], line["link"]),
    "probed": _probed,
    "unsent": _unsent,
    "tick": lambda layer2, _, now: layer2.hello_tick(now),
    "chores": lambda layer2, line, now: layer2.housekeeping(now, line["lag"]),
    "wake": lambda layer2, line, now: layer2.wake(now, line["link"]),
    "step": lambda layer2, _, now: layer2.step(now),
    "beat": lambda layer2, _, now: layer2.beat(now),
    "hello": _hello,
    "heard": lambda layer2, line, now: layer2.heard(
        line["nic"], bytes.fromhex(line["address"]), bytes.fromhex(line["mac"]), now
    ),
    "claimed": _claimed,
    "announced": _announced,
    "asked": _asked,
    "question": _question,
    "vips": lambda layer2, line, _: layer2.want_vips(*line["with"]),
    "want": lambda layer2, line, now: layer2.want(wire_text.read_state(line["with"][0]), now),
    "applied": lambda layer2, line, _: layer2.want_applied(*line["with"]),
    "stop": lambda layer2, _, now: layer2.stop(now),
    "nics": lambda layer2, line, now: layer2.nics_changed(decode(line["with"][0]), now),
    "gateways": lambda layer2, line, _: layer2.gateways_found(decode(line["with"][0])),
    "route": lambda layer2, line, _: layer2.route_found(decode(line["with"][0]), line["with"][1]),
    "failed": lambda layer2, line, now: layer2.interface_failed(line["with"][0], line["with"][1], now),
}
