"""Parts of sentences that several messages share."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[object]) -> str:
    """``a``, ``a and b``, ``a, b and c``: names in a sentence."""
    words = [str(name) for name in names]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def families(versions: Iterable[int]) -> str:
    """IP versions in a sentence: ``IPv4 and IPv6``."""
    return listed(f"IPv{version}" for version in versions)
