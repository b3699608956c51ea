"""Which release of PorterLB this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """The version of the installed package; ``unknown`` in a checkout that is not installed."""
    try:
        return version("porterlb")
    except PackageNotFoundError:
        return "unknown"
