"""Decisions as readable JSON: names for enums, text for addresses, sorted lists for sets.

The result does not depend on the order of sets and mappings, so equal values give the same text.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from porterlb.core.record.codec import MOST, NotRecordable, attributes, is_secret


def plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON. Secrets are left out, as in :mod:`porterlb.core.record.codec`."""
    if depth > MOST:
        raise NotRecordable(f"a value is nested deeper than {MOST} levels")
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name.lower()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {text(key): plain(item, depth + 1) for key, item in sorted(value.items(), key=_by_key)}
    if isinstance(value, AbstractSet):
        return sorted((plain(item, depth + 1) for item in value), key=canonical)
    if type(value).__module__ == "ipaddress" or _named(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    parts = attributes(value)
    return {name: plain(item, depth + 1) for name, item in sorted(parts.items()) if not is_secret(name, item)}


def text(key: Any) -> str:
    """A key of a mapping as text."""
    shown = plain(key)
    return shown if isinstance(shown, str) else canonical(shown)


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _named(value: Any) -> bool:
    """Whether it is a tuple with its own text form, such as the key of a Service."""
    return isinstance(value, tuple) and type(value).__str__ is not object.__str__


def _by_key(pair: tuple[Any, Any]) -> str:
    return text(pair[0])
