"""Lists in findings: short, and in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

SHOWN = 4
"""Number of names in a sentence; further names are only counted."""


def some(names: Iterable[object]) -> str:
    """``a, b, c and 7 more``."""
    listed = [str(name) for name in names]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"{', '.join(listed[:SHOWN])}{more}"


def grouped(texts: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each text with the names that it applies to; empty texts are omitted."""
    names: dict[str, list[str]] = {}
    for name, text in sorted(texts.items()):
        if text:
            names.setdefault(text, []).append(name)
    for text, found in sorted(names.items()):
        yield text, some(found)


def sentence(text: str) -> str:
    """The text with a full stop; texts from other programs may have none."""
    text = " ".join(text.split())
    return text if not text or text.endswith((".", "!", "?", '"')) else f"{text}."
