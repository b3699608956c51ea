"""Who had an address last: it is kept for that Service as long as others can be given another one.

By uid, then by namespace and name, for a Service that is deleted and made anew is the same one to its user. The memory
does not belong to an Eip, so it outlives one that is deleted and made anew under another name. It is bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from porterlb.core.model import Service, ServiceKey

REMEMBERED = 16_384
"""Freed addresses; some 5 MB."""


@dataclass(frozen=True, slots=True)
class Freed:
    """``at``: when, in monotonic seconds."""

    uid: str
    key: ServiceKey
    at: float


_Index = dict[object, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class LastHolders:
    """The last holder of each freed address (a code of :mod:`porterlb.core.allocation.pool`), the oldest first."""

    freed: Mapping[int, Freed] = field(default_factory=dict)
    _codes: Mapping[object, tuple[int, ...]] = field(default_factory=dict)  # by uid (str) and by ServiceKey

    def updated(self, freed: Mapping[int, Freed], taken: Iterable[int]) -> LastHolders:
        """With addresses that were freed, and without those that somebody has again."""
        gone = [code for code in taken if code in self.freed and code not in freed]
        if not freed and not gone:
            return self
        found, codes = dict(self.freed), dict(self._codes)
        for code in (*gone, *freed):
            _drop(found, codes, code)
        for code, entry in freed.items():
            found[code] = entry
            for name in _names(entry):
                codes[name] = (*codes.get(name, ()), code)
        for code in list(found)[: max(0, len(found) - REMEMBERED)]:
            _drop(found, codes, code)
        return LastHolders(found, codes)

    def of(self, service: Service) -> tuple[int, ...]:
        """What the Service had last: by its uid first, then by its name; of each, the latest first."""
        by_uid = self._codes.get(service.uid, ()) if service.uid else ()
        return tuple(dict.fromkeys((*by_uid[::-1], *self._codes.get(service.key, ())[::-1])))


def _names(entry: Freed) -> tuple[object, ...]:
    return (entry.key, entry.uid) if entry.uid else (entry.key,)


def _drop(found: dict[int, Freed], codes: _Index, code: int) -> None:
    entry = found.pop(code, None)
    for name in _names(entry) if entry else ():
        left = tuple(other for other in codes[name] if other != code)
        if left:
            codes[name] = left
        else:
            del codes[name]
