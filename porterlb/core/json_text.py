"""JSON text of a large value, made in small pieces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_text(value: Mapping[str, Any]) -> str:
    """The same text as ``json.dumps(value, sort_keys=True)``, from any thread.

    The encoder of the standard library blocks every other thread until its whole text is made: 6 MB with 10,000 VIPs.
    This function encodes one entry at a time.
    """
    parts = [f"{json.dumps(key)}: {_entry(entry)}" for key, entry in sorted(value.items())]
    return "{" + ", ".join(parts) + "}"


def _entry(value: object) -> str:
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return "{" + ", ".join([f"{json.dumps(key)}: {_whole(value[key])}" for key in sorted(value)]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([_whole(each) for each in value]) + "]"
    return _whole(value)


def _whole(value: object) -> str:
    return json.dumps(value, sort_keys=True)
