"""How deep a JSON value may be nested.

Code that walks a value recurses, and Python ends a deep recursion with an error. Therefore the depth is limited once,
where values come in. A part that is nested deeper is replaced by a text: the object is kept, and the parser of that
field reports a wrong type.
"""

from __future__ import annotations

import re
from typing import Any

MOST = 50
"""Levels. A Kubernetes object has about 15. copy.deepcopy takes three Python frames per level, out of 1,000."""

TOO_DEEP = f"(nested deeper than {MOST} levels)"
"""The text that replaces a value that is nested too deeply."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def limited(value: Any, most: int = MOST) -> Any:
    """The value without objects and lists nested deeper than ``most`` levels; the same value if there are none."""
    if isinstance(value, dict):
        if most <= 0:
            return TOO_DEEP
        kept = {key: limited(item, most - 1) if isinstance(item, dict | list) else item for key, item in value.items()}
        return value if all(kept[key] is item for key, item in value.items()) else kept
    if isinstance(value, list):
        if most <= 0:
            return TOO_DEEP
        items = [limited(item, most - 1) if isinstance(item, dict | list) else item for item in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value


def shallow(text: str, most: int) -> str:
    """JSON text without the objects and lists nested deeper than ``most`` levels. Does not recurse.

    Text that is not JSON is returned unchanged: the decoder reports the error.
    """
    parts: list[str] = []
    depth, kept = 0, 0
    for token in _TOKEN.finditer(text):
        sign = token.group()
        if sign in "[{":
            depth += 1
            if depth == most + 1:
                parts.append(text[kept : token.start()])
        elif sign in "]}":
            if depth == most + 1:
                parts.append(f'"{TOO_DEEP}"')
                kept = token.end()
            depth -= 1
    return "".join([*parts, text[kept:]]) if depth <= most else text
