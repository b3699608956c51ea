"""Reads a JSON object field by field. No value is misread, and no field is silently ignored.

Every getter accepts any JSON value and never raises: a wrong value becomes a problem with the field's path, and the
default is returned. :meth:`Fields.done` reports fields that were never read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from porterlb.core.problems import Problem, Reason

_DIGITS = re.compile(r"[0-9]{1,20}")
_SHOWN = 60  # characters of a wrong value that a message repeats


def show(value: object) -> str:
    """A JSON value for a message: one line, not too long."""
    if isinstance(value, str):
        text = value if len(value) <= _SHOWN else value[:_SHOWN] + "..."
        return json.dumps(text)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int):
        return str(value) if abs(value) < 10**_SHOWN else "a very large number"
    if isinstance(value, float):
        return repr(value)
    return "a list" if isinstance(value, list | tuple) else "an object"


def plain(name: object) -> str:
    """The name of a field or annotation for a path: unchanged if it is one readable line."""
    return name[:253] if isinstance(name, str) and name.isprintable() else show(name)


class Fields:
    """One JSON object and its path. ``problems`` is shared with the objects inside."""

    def __init__(self, value: Mapping[str, Any], path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems
        self._value = value
        self._known: set[str] = set()

    def at(self, name: str) -> str:
        """The path of a field."""
        return f"{self.path}.{plain(name)}" if self.path else plain(name)

    def has(self, name: str) -> bool:
        """Whether the field is present and not null; it must still be read."""
        return self._value.get(name) is not None

    def raw(self, name: str) -> Any:
        """The unparsed field, None if it is absent."""
        self._known.add(name)
        return self._value.get(name)

    def wrong(self, name: str, message: str, reason: Reason = Reason.INVALID_FIELD, *, fatal: bool = True) -> None:
        """Records a problem with a field."""
        self.problems.append(Problem(reason, message, self.at(name) if name else self.path, fatal))

    def missing(self, name: str, what: str) -> None:
        """Records that a required field is missing."""
        self.wrong(name, f"is missing: {what}.", Reason.MISSING_FIELD)

    def text(self, name: str, default: str = "") -> str:
        """A string, without surrounding white space."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, str):
            return value.strip()
        self.wrong(name, f"{show(value)} is not a string.")
        return default

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.wrong(name, f"{show(value)} is neither true nor false.")
        return default

    def number(self, name: str, default: int, least: int, most: int, *, digits: bool = False) -> int:
        """An integer from ``least`` to ``most``; ``digits``: also as a string of digits."""
        value = self.raw(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if digits and isinstance(value, str):
            if not value.strip():
                return default
            value = int(value) if _DIGITS.fullmatch(value.strip()) else value
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(name, f"{show(value)} is not a whole number.")
            return default
        if not least <= value <= most:
            self.wrong(name, f"{show(value)} is out of range: it must be {least} to {most}.")
            return default
        return value

    def object(self, name: str) -> Fields:
        """An object; an empty one if it is absent."""
        value = self.raw(name)
        if value is not None and not isinstance(value, Mapping):
            self.wrong(name, f"{show(value)} is not an object.")
            value = None
        return Fields(value or {}, self.at(name), self.problems)

    def items(self, name: str) -> list[tuple[str, Any]]:
        """A list: its items, each with its own path."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.wrong(name, f"{show(value)} is not a list.")
            return []
        return [(f"{self.at(name)}[{index}]", item) for index, item in enumerate(value)]

    def objects(self, name: str) -> list[Fields]:
        """A list of objects; other items become problems."""
        found = []
        for path, item in self.items(name):
            if isinstance(item, Mapping):
                found.append(Fields(item, path, self.problems))
            else:
                self.problems.append(Problem(Reason.INVALID_FIELD, f"{show(item)} is not an object.", path))
        return found

    def texts(self, name: str) -> list[str]:
        """A list of non-empty strings; other items become problems."""
        found = []
        for path, item in self.items(name):
            if isinstance(item, str) and item.strip():
                found.append(item.strip())
            else:
                self.problems.append(Problem(Reason.INVALID_FIELD, f"{show(item)} is not a name.", path))
        return found

    def unsupported(self, names: Iterable[str], why: str = "is not supported and has no effect") -> None:
        """Fields that other products know but that have no effect here: a warning if one of them is set."""
        for name in names:
            if self.raw(name) not in (None, False, 0, "", [], {}):
                self.wrong(name, f"{why}.", Reason.UNSUPPORTED_FIELD, fatal=False)

    def done(self, hints: Mapping[str, str] = MappingProxyType({})) -> None:
        """Warns of fields that were never read. ``hints``: what to write instead, by field."""
        for name in self._value:
            if name not in self._known:
                hint = f": {hints[name]}." if name in hints else "."
                message = f"is not a known field and has no effect{hint}"
                self.wrong(plain(name), message, Reason.UNSUPPORTED_FIELD, fatal=False)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is an object, else an empty one: for kinds that the API server has validated."""
    return value if isinstance(value, Mapping) else {}


def entries(value: object) -> list[Mapping[str, Any]]:
    """The objects in a value that should be a list of them."""
    return [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list | tuple) else []
