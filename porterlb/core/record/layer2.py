"""Records the events of :class:`porterlb.core.layer2.engine.Layer2` before it processes them.

Everything that its decisions depend on is recorded: the events with their times, and the values that the responders
write into the VIPs. See :mod:`porterlb.core.record.entries` for the format.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from porterlb.core import wire_text
from porterlb.core.desired import DesiredWire
from porterlb.core.layer2.actions import Action
from porterlb.core.layer2.engine import Layer2
from porterlb.core.layer2.probes import Probe
from porterlb.core.layer2.questions import Question
from porterlb.core.layer2.targets import Gateway, TargetKey
from porterlb.core.layer2.vips import Vip
from porterlb.core.model import Address
from porterlb.core.observed import Answering, Nic
from porterlb.core.record import entries
from porterlb.core.record.codec import encode
from porterlb.core.record.decided import Said, decided
from porterlb.core.record.entries import What, entry
from porterlb.core.record.log import Log
from porterlb.core.wire_text import WireConfig

BYTES = 41
"""Size of an empty bytes object and of its place in a list."""


class _Asked(Mapping[bytes, Vip]):
    """The VIPs as the responders see them. It notes each VIP that is looked up, because a host is asking for it."""

    def __init__(self, vips: Mapping[bytes, Vip]) -> None:
        self._vips = vips
        self.noted: set[bytes] = set()

    def get(self, key: bytes, default: Any = None) -> Any:
        vip = self._vips.get(key, default)
        if vip is not None:
            self.noted.add(key)
        return vip

    def __contains__(self, key: object) -> bool:
        return key in self._vips

    def __getitem__(self, key: bytes) -> Vip:
        return self._vips[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._vips)

    def __len__(self) -> int:
        return len(self._vips)


_SAME = tuple(name for name in Vip.__slots__ if name not in ("text", "address", "packed", "served"))
_values = attrgetter("text", *_SAME)


def _taken_apart(vip: Vip) -> tuple[Any, ...]:
    """Reduces a VIP for pickle, in a third of the default time: there may be thousands."""
    served = vip.served
    return _put_together, (_values(vip), (served.next_hop, served.answerer) if served is not None else None)


def _put_together(values: Sequence[Any], served: tuple[str, str] | None) -> Vip:
    vip = Vip(values[0], False)
    for name, value in zip(_SAME, values[1:], strict=True):
        setattr(vip, name, value)
    vip.served = Answering(*served) if served is not None else None
    return vip


_FAST: dict[type, Any] = {Vip: _taken_apart}


class RecordedLayer2(Layer2):
    """A `Layer2` that logs its events.

    Args:
        log: the log for the events.
    """

    def __init__(self, config: WireConfig, now: float, chance: Callable[[], float], log: Log[bytes]) -> None:
        super().__init__(config, now, chance)
        self._log = log
        self._looked = _Asked(self._vips.by_packed)
        self._probes: list[Probe] = []
        self._now = now
        self._said: Said = ()

    @property
    def vips(self) -> Mapping[bytes, Vip]:
        return self._looked

    def _state(self) -> bytes:
        """Everything that the next decision depends on. Pickled: that takes a tenth of the time of JSON, and only this
        process reads it."""
        state = {name: value for name, value in self.__dict__.items() if name not in ("_log", "_looked", "_probes")}
        made = io.BytesIO()
        pickler = pickle.Pickler(made, pickle.HIGHEST_PROTOCOL)
        pickler.dispatch_table = _FAST
        pickler.dump(state)
        return made.getvalue()

    @property
    def _quiet(self) -> bool:
        """Whether a checkpoint delays nothing: no VIP waits for a decision, and no burst of probes is running."""
        return not self._vips.busy and self.nodes.detector.probes.next_at is None

    def _note(self, what: What, now: float, rest: bytes = b"") -> None:
        self._now = now
        if self._looked.noted:
            self._note_asked()
        if self._log.due and (self._quiet or not self._vips.by_packed):
            state = self._state()
            self._log.begin(entry(What.STATE, now, state), len(state))
        self._add(entry(what, now, rest))

    def _add(self, one: bytes) -> None:
        self._log.add(one, len(one) + BYTES)

    def _note_asked(self) -> None:
        """Records what the responders have written into the VIPs since the last event."""
        for packed in sorted(self._looked.noted):
            vip = self._vips.by_packed.get(packed)
            if vip is not None:
                question = json.dumps(encode(vip.question)).encode() if vip.question is not None else b""
                asked = entries.ASKED.pack(vip.asked, len(packed)) + packed
                self._add(entry(What.ASKED, self._now, asked + question))
        self._looked.noted.clear()

    def _other(self, name: str, *arguments: Any) -> None:
        """Records a rare event."""
        self._note(What.OTHER, self._now, json.dumps([name, *arguments], separators=(",", ":")).encode())

    def _decided(self, actions: list[Action]) -> list[Action]:
        if actions:
            rows, self._said = decided(actions, self._said)
            if rows:
                self._add(entry(What.DID, 0.0, json.dumps(rows, separators=(",", ":")).encode()))
        return actions

    # ---- the events, in the order of Layer2

    def step(self, now: float) -> list[Action]:
        self._note(What.STEP, now)
        return self._decided(super().step(now))

    def wake(self, now: float, link_heard: float) -> list[Action]:
        self._note(What.WAKE, now, entries.ONE.pack(link_heard))
        return self._decided(super().wake(now, link_heard))

    def probe(self, now: float, lag: float, link_heard: float) -> list[Action]:
        self._note(What.PROBE, now, entries.TWO.pack(lag, link_heard))
        return self._decided(super().probe(now, lag, link_heard))

    def due(self, usable: Collection[int]) -> list[Probe]:
        nics = sorted(usable)
        self._note(What.PROBED, self._now, struct.pack(f"<{len(nics)}I", *nics))
        self._probes = super().due(usable)
        return self._probes

    def probed(self, sent: Collection[TargetKey]) -> None:
        if len(sent) != len(self._probes):
            left = set(sent)
            lost = [[key.nic, key.address.hex()] for key, _ in self._probes if key not in left]
            self._other("unsent", lost)
        super().probed(sent)

    def hello_tick(self, now: float) -> list[Action]:
        self._note(What.TICK, now)
        return self._decided(super().hello_tick(now))

    def housekeeping(self, now: float, lag: float) -> list[Action]:
        self._note(What.CHORES, now, entries.ONE.pack(lag))
        return self._decided(super().housekeeping(now, lag))

    def beat(self, now: float) -> list[Action]:
        self._note(What.BEAT, now)
        return self._decided(super().beat(now))

    def want_vips(self, rows: Iterable[Sequence[Any]], gone: Collection[str]) -> list[Action]:
        rows, gone = list(rows), list(gone)
        self._other("vips", rows, gone)
        return self._decided(super().want_vips(rows, gone))

    def want(self, wanted: DesiredWire, now: float) -> list[Action]:
        self._now = now
        self._other("want", json.loads(wire_text.state_line(wanted)))
        return self._decided(super().want(wanted, now))

    def want_applied(self, digest: int) -> list[Action]:
        self._other("applied", digest)
        return self._decided(super().want_applied(digest))

    def stop(self, now: float) -> list[Action]:
        self._now = now
        self._other("stop")
        return self._decided(super().stop(now))

    def nics_changed(self, nics: Mapping[int, Nic], now: float) -> list[Action]:
        self._now = now
        self._other("nics", encode(dict(nics)))
        return self._decided(super().nics_changed(nics, now))

    def gateways_found(self, gateways: Iterable[Gateway]) -> list[Action]:
        gateways = list(gateways)
        self._other("gateways", encode(gateways))
        return self._decided(super().gateways_found(gateways))

    def route_found(self, goal: Address, index: int) -> list[Action]:
        self._other("route", encode(goal), index)
        return self._decided(super().route_found(goal, index))

    def interface_failed(self, index: int, trouble: str, now: float) -> list[Action]:
        self._now = now
        self._other("failed", index, trouble)
        return self._decided(super().interface_failed(index, trouble, now))

    def hello(self, data: bytes, now: float) -> list[Action]:
        self._note(What.HELLO, now, data)
        return self._decided(super().hello(data, now))

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> list[Action]:
        self._note(What.HEARD, now, entries.HEARD.pack(nic, mac) + address)
        return self._decided(super().heard(nic, address, mac, now))

    def claimed(self, address: bytes, mac: bytes, now: float) -> None:
        self._note(What.CLAIMED, now, mac + address)
        super().claimed(address, mac, now)

    def asked(self, nic: int, question: Question, now: float) -> bytes:
        self._now = now
        self._other("question", nic, encode(question))
        return super().asked(nic, question, now)

    def announced(self, address: bytes, sent: bool, now: float, *, defence: bool = False) -> None:
        self._note(What.ANNOUNCED, now, bytes((sent + 2 * defence,)) + address)
        super().announced(address, sent, now, defence=defence)
