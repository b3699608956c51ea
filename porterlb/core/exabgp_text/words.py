"""What is fit to be said to ExaBGP, and what it says made fit for people."""

from __future__ import annotations

PROCESS = "porterlb"
"""The name of the API process in the configuration."""

_TEXT_LIMIT = 300  # characters of anything that a peer had a hand in; RFC 9003 allows 255 octets


class Unspeakable(ValueError):
    """A route or neighbor that cannot be said to ExaBGP. The message is a sentence for the user."""


def clean(text: str) -> str:
    """Printable, on one line, and not too long: fit for a log line or a status field."""
    printable = "".join(c if c.isprintable() else " " for c in text).strip()
    return printable if len(printable) <= _TEXT_LIMIT else printable[: _TEXT_LIMIT - 1] + "…"
