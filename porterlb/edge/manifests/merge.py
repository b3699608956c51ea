"""Field ownership as in server-side apply (KEP-555), as far as status needs it.

Each owner's fields are stored separately. Applying takes the applied fields from the other owners (force) and gives up
fields that the owner had and no longer names. A list of mappings that have a ``type`` (conditions) is merged by type;
every other list is one value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Owners = Mapping[str, Mapping[str, Any]]


def applied(owners: Owners, owner: str, fields: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The owners' fields after ``owner`` has applied ``fields``; owners without any fields are left out."""
    result: dict[str, dict[str, Any]] = {}
    for other, own in owners.items():
        if other != owner:
            kept = _without(own, fields)
            if kept:
                result[other] = kept
    if fields:
        result[owner] = dict(fields)
    return result


def merged(owners: Owners, base: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All owners' fields combined, on top of ``base``; no two owners have the same field."""
    result: dict[str, Any] = dict(base or {})
    for owner in sorted(owners):
        result = _onto(result, owners[owner])
    return result


def _is_map_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(e, Mapping) and "type" in e for e in value)


def _onto(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for name, value in top.items():
        old = result.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            result[name] = _onto(old, value)
        elif _is_map_list(old) and _is_map_list(value):
            by_type: dict[str, Any] = {str(entry["type"]): entry for entry in (old or ())}
            for entry in value:
                by_type[entry["type"]] = _onto(by_type.get(entry["type"], {}), entry)
            result[name] = [by_type[type_] for type_ in sorted(by_type)]
        else:
            result[name] = value
    return result


def _without(own: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` without every leaf that ``taken`` has."""
    result = {}
    for name, value in own.items():
        if name not in taken:
            result[name] = value
            continue
        other = taken[name]
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            rest: Any = _without(value, other)
        elif _is_map_list(value) and _is_map_list(other):
            rest = _entries_without(value, {entry["type"]: entry for entry in other})
        else:
            continue
        if rest:
            result[name] = rest
    return result


def _entries_without(own: list[Mapping[str, Any]], taken: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    kept = []
    for entry in own:
        rest = _without(entry, taken.get(entry["type"], {}))
        rest.pop("type", None)
        if rest:
            kept.append({"type": entry["type"], **rest})
    return kept
