"""What cannot be expressed to ExaBGP, and clean text from its output."""

from __future__ import annotations

PROCESS = "porterlb"
"""The name of the API process in the configuration."""

_TEXT_LIMIT = 300  # characters of text that a peer can influence; RFC 9003 allows 255 octets


class Unspeakable(ValueError):
    """A route or neighbor that cannot be expressed to ExaBGP. The message is a sentence for the user."""


def clean(text: str) -> str:
    """The text as one printable line of limited length, for a log line or a status field."""
    printable = "".join(c if c.isprintable() else " " for c in text).strip()
    return printable if len(printable) <= _TEXT_LIMIT else printable[: _TEXT_LIMIT - 1] + "…"
