"""Conditions of the Kubernetes API (KEP-1623): a type, a status, a reason for machines and a sentence for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from porterlb.core.problems import Problem

Condition = dict[str, Any]

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"

LONGEST = 1024
"""Of a message, in characters: what is longer is cut; the API's own limit is 32768."""


def condition(
    old: Iterable[Mapping[str, Any]],
    type_: str,
    status: str,
    reason: str,
    message: str,
    now: str,
    generation: int = 0,
) -> Condition:
    """A condition; ``lastTransitionTime`` moves to ``now`` (RFC 3339) only where ``status`` differs from ``old``.

    ``generation``: metadata.generation of the object that was judged; 0: not told.
    """
    before = find(old, type_)
    same = before is not None and before.get("status") == status and before.get("lastTransitionTime")
    fresh: Condition = {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message if len(message) <= LONGEST else message[: LONGEST - 1] + "…",
        "lastTransitionTime": before["lastTransitionTime"] if before is not None and same else now,
    }
    if generation:
        fresh["observedGeneration"] = generation
    return fresh


def find(conditions: Iterable[Mapping[str, Any]], type_: str) -> Mapping[str, Any] | None:
    """The condition of that type, or None."""
    return next((c for c in conditions if isinstance(c, Mapping) and c.get("type") == type_), None)


def of(status: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """The conditions in an object's status, however empty or odd it is."""
    found = (status or {}).get("conditions")
    return [c for c in found if isinstance(c, Mapping)] if isinstance(found, list | tuple) else []


def sentences(problems: Iterable[Problem]) -> str:
    """All problems as one text: each a sentence of its own."""
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in map(str, problems))
