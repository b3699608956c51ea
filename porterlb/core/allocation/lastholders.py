"""The last holder of each free address. The address is kept for that Service while other Services can get another one.

Looked up by uid, then by namespace and name, because a Service that is deleted and created again is the same one to its
user. The memory does not belong to an Eip, so it survives the deletion of an Eip and its creation under another name.
Its size is limited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from porterlb.core.model import Service, ServiceKey

REMEMBERED = 16_384
"""Maximum number of freed addresses; about 5 MB."""


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
        """With addresses that were freed, and without those that a Service has again."""
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
        """The addresses that the Service last had: by its uid first, then by its name; in each group, the latest
        first."""
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
