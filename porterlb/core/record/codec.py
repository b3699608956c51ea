"""Values and state machines of the core as JSON, and back.

One codec for everything: dataclasses, enums, named tuples, addresses, containers, and objects of classes in
``porterlb.core``, including references between them. No class needs its own code, so a new field is recorded without a
change here. :func:`decode` creates objects of these classes only and calls none of their code, so untrusted files can
be read.

Secrets are never written: text in an attribute named ``password``, bytes in one named ``key`` or ``_key``.

A value that is not a JSON scalar becomes a list that begins with a letter: ``l`` list, ``t`` tuple, ``d`` dict,
``m`` persistent mapping, ``s`` set, ``f`` frozenset, ``p`` persistent set, ``q`` deque, ``b`` bytes, ``n`` named tuple,
``e`` enum, ``a`` address, ``x`` float that is not a JSON number, ``c`` counter, ``z`` secret, ``o`` object, ``r``
reference to an earlier object.
"""

from __future__ import annotations

import enum
import importlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

from porterlb.core.doctor.redact import without
from porterlb.core.persistent import PersistentMap, PersistentSet

MOST = 60
"""Maximum levels of nesting. The engine of Layer 2, the deepest value, has about 15."""

SECRET_TEXT = "(redacted)"  # noqa: S105  # not a secret
SECRET_KEY = b"(redacted redacted redacted key)"
"""Replacements for secrets in decoded values. The key can sign and verify like any other key."""

_CORE = "porterlb.core."
_ADDRESSES: Mapping[str, Callable[[str], Any]] = {
    cls.__name__: cls for cls in (IPv4Address, IPv6Address, IPv4Network, IPv6Network, IPv4Interface, IPv6Interface)
}
_PLAIN = (str, int, bool, type(None))


class NotRecordable(ValueError):
    """A value that cannot be recorded, or data that is not part of a recording."""


def encode(value: Any, secrets: Collection[str] = ()) -> Any:
    """The value as JSON. Raises NotRecordable for functions, open files and the like, and for more than MOST levels.

    ``secrets``: these are also removed from sentences and from attributes named ``text`` (output of other programs).
    """
    return _Encoder(secrets).encode(value, 0)


def decode(data: Any) -> Any:
    """The value that was encoded. Raises NotRecordable if ``data`` is not an encoded value."""
    try:
        return _Decoder().decode(data, 0)
    except NotRecordable:
        raise
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ImportError) as error:
        raise NotRecordable(f"not a recorded value: {type(error).__name__}: {error}") from None


def attributes(value: object) -> dict[str, Any]:
    """The attributes of an object, in ``__dict__`` and in slots, by name."""
    found = dict(getattr(value, "__dict__", ()))
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def is_secret(name: str, value: object) -> bool:
    """Whether an attribute is a secret and must never be recorded."""
    return bool(value) and (
        (name == "password" and isinstance(value, str)) or (name in ("key", "_key") and isinstance(value, bytes))
    )


class _Encoder:
    def __init__(self, secrets: Collection[str] = ()) -> None:
        self._secrets = secrets
        self._numbers: dict[int, int] = {}  # by id
        self._kept: list[object] = []  # keeps the objects alive: an id may be reused after its object is deleted

    def encode(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return without(value, self._secrets) if self._secrets and kind is str and " " in value else value
        if kind is float:
            return value if math.isfinite(value) else ["x", repr(value)]
        if depth > MOST:
            raise NotRecordable(f"a value is nested deeper than {MOST} levels")
        if isinstance(value, enum.Enum):
            return ["e", _name(kind), value.name]
        if kind.__name__ in _ADDRESSES and kind.__module__ == "ipaddress":
            return ["a", kind.__name__, str(value)]
        if isinstance(value, bytes | bytearray):
            return ["b", value.hex()]
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return ["n", _name(kind), *self._all(value, depth)]
        for letter, of in (("t", tuple), ("l", list), ("f", frozenset), ("s", set), ("q", deque)):
            if isinstance(value, of):
                return [letter, *self._all(value, depth)]
        if isinstance(value, Mapping):
            pairs = [(self.encode(key, depth + 1), self.encode(item, depth + 1)) for key, item in value.items()]
            return ["d" if kind is dict else "m", *itertools.chain.from_iterable(pairs)]
        if isinstance(value, AbstractSet):
            return ["p", *self._all(value, depth)]
        if isinstance(value, itertools.count):
            return ["c", value.__reduce__()[1][0]]
        if kind.__module__.startswith(_CORE):
            return self._object(value, depth)
        raise NotRecordable(f"a {kind.__module__}.{kind.__qualname__} cannot be recorded")

    def _all(self, values: Iterable[Any], depth: int) -> list[Any]:
        return [self.encode(value, depth + 1) for value in values]

    def _object(self, value: object, depth: int) -> list[Any]:
        number = self._numbers.get(id(value))
        if number is not None:
            return ["r", number]
        number = self._numbers[id(value)] = len(self._kept)
        self._kept.append(value)
        parts: list[Any] = []
        for name, item in attributes(value).items():
            if is_secret(name, item):
                parts += (name, ["z", type(item).__name__])
            elif name == "text" and isinstance(item, str):
                parts += (name, without(item, self._secrets))
            else:
                parts += (name, self.encode(item, depth + 1))
        return ["o", number, _name(type(value)), *parts]


class _Decoder:
    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}
        self._letters: Mapping[str, Callable[[list[Any], int], Any]] = {
            "l": self._all,
            "t": lambda parts, depth: tuple(self._all(parts, depth)),
            "f": lambda parts, depth: frozenset(self._all(parts, depth)),
            "s": lambda parts, depth: set(self._all(parts, depth)),
            "q": lambda parts, depth: deque(self._all(parts, depth)),
            "p": lambda parts, depth: PersistentSet(self._all(parts, depth)),
            "d": self._pairs,
            "m": lambda parts, depth: PersistentMap(self._pairs(parts, depth)),
            "b": lambda parts, _: bytes.fromhex(parts[0]),
            "n": lambda parts, depth: _class(parts[0], tuple)._make(self._all(parts[1:], depth)),
            "e": lambda parts, _: _class(parts[0], enum.Enum)[parts[1]],
            "a": lambda parts, _: _ADDRESSES[parts[0]](parts[1]),
            "x": lambda parts, _: float(parts[0]),
            "c": lambda parts, _: itertools.count(parts[0]),
            "z": lambda parts, _: SECRET_KEY if parts[0] == "bytes" else SECRET_TEXT,
            "o": self._object,
            "r": lambda parts, _: self._objects[parts[0]],
        }

    def decode(self, data: Any, depth: int) -> Any:
        if not isinstance(data, list):
            if isinstance(data, (*_PLAIN, float)):
                return data
            raise NotRecordable("not a recorded value")
        if depth > MOST:
            raise NotRecordable(f"a value is nested deeper than {MOST} levels")
        return self._letters[data[0]](data[1:], depth)

    def _all(self, parts: list[Any], depth: int) -> list[Any]:
        return [self.decode(part, depth + 1) for part in parts]

    def _pairs(self, parts: list[Any], depth: int) -> dict[Any, Any]:
        found = self._all(parts, depth)
        return dict(zip(found[::2], found[1::2], strict=True))

    def _object(self, parts: list[Any], depth: int) -> Any:
        """Creates the object empty first: its contents may refer to it."""
        number, name, *rest = parts
        made = self._objects[number] = object.__new__(_class(name, object))
        for attribute, item in zip(rest[::2], rest[1::2], strict=True):
            object.__setattr__(made, attribute, self.decode(item, depth + 1))
        return made


def _name(cls: type) -> str:
    if not cls.__module__.startswith(_CORE):
        raise NotRecordable(f"a {cls.__module__}.{cls.__qualname__} cannot be recorded")
    return f"{cls.__module__.removeprefix(_CORE)}:{cls.__qualname__}"


def _class(name: str, base: type) -> Any:
    """The class of that name in porterlb.core; classes that are only imported there are refused."""
    module, _, qualified = name.partition(":")
    found: Any = importlib.import_module(f"{_CORE}{module}")
    for part in qualified.split("."):
        found = getattr(found, part)
    if not isinstance(found, type) or not issubclass(found, base) or found.__module__ != f"{_CORE}{module}":
        raise NotRecordable(f"{name} is no class of a recording")
    return found
