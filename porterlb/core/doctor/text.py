"""Lists in findings: short, and in one order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

SHOWN = 4
"""Names in a sentence; of the others only their number is given."""


def some(names: Iterable[object]) -> str:
    """``a, b, c and 7 more``."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{', '.join(listed[:SHOWN])}{more}"


def grouped(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each text with the names that have it; empty texts are left out."""
    names: dict[str, list[str]] = {}
    for name, text in sorted(texts.items()):
        if text:
            names.setdefault(text, []).append(name)
    for text, found in sorted(names.items()):
        yield text, some(found)


def sentence(text: str) -> str:
    """With a full stop; what others say may have none."""
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "!", "?", '"')) else f"{text}."
