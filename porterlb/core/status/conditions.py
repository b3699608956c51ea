"""Conditions of the Kubernetes API (KEP-1623): a type, a status, a machine-readable reason and a sentence for users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from porterlb.core.problems import Problem

Condition = dict[str, Any]

TRUE = "True"
FALSE = "False"
UNKNOWN = "Unknown"

LONGEST = 1024
"""Maximum length of a message in characters; longer ones are cut. The API's own limit is 32768."""


def condition(
    old: Iterable[Mapping[str, Any]],
    type_: str,
    status: str,
    reason: str,
    message: str,
    now: str,
    generation: int = 0,
) -> Condition:
    """A condition; ``lastTransitionTime`` is set to ``now`` (RFC 3339) only if ``status`` differs from ``old``.

    ``generation``: metadata.generation of the checked object; 0: omitted.
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
    """The conditions in an object's status; tolerates missing and invalid values."""
    found = (status or {}).get("conditions")
    return [c for c in found if isinstance(c, Mapping)] if isinstance(found, list | tuple) else []


def sentences(problems: Iterable[Problem]) -> str:
    """All problems as one text: one sentence each."""
    return " ".join(text if text.endswith((".", "!", "?")) else f"{text}." for text in map(str, problems))
