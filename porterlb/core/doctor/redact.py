"""Removes secrets from the content of a bug report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

REDACTED = "(redacted)"

SECRET_NAME = re.compile(r"password|passwd|secret|token|credential|private.?key|api.?key", re.IGNORECASE)
"""Matches the names of fields that contain secrets."""
_COPIES = ("kubectl.kubernetes.io/last-applied-configuration", "managedFields")
"""Text copies of the complete object, including secrets."""

SHORTEST = 3
"""Minimum length in characters: removing a shorter secret would destroy most texts. No kept field contains such a
password."""


def redacted(value: Any) -> Any:
    """The same JSON value without fields whose name indicates a secret. References (mappings with names) stay."""
    if isinstance(value, Mapping):
        return {name: _field(str(name), part) for name, part in value.items() if name not in _COPIES}
    if isinstance(value, list | tuple):
        return [redacted(part) for part in value]
    return value


def _field(name: str, value: Any) -> Any:
    if SECRET_NAME.search(name) and not isinstance(value, Mapping | bool | int | None):
        return REDACTED
    return redacted(value)


def secrets_in(values: Iterable[Any]) -> frozenset[str]:
    """Every text that :func:`redacted` removes from these values. These texts must be removed from logs too."""
    found: set[str] = set()
    waiting: list[tuple[str, Any]] = [("", value) for value in values]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [(str(key), part) for key, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(name, part) for part in value]
        elif isinstance(value, str) and SECRET_NAME.search(name) and len(value) >= SHORTEST:
            found.add(value)
    return frozenset(found)


def without(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets. The longest is removed first, because one may be part of another."""
    for secret in sorted(secrets, key=lambda found: (-len(found), found)):
        text = text.replace(secret, REDACTED)
    return text
