"""Kubernetes' MicroTime: RFC 3339 with exactly six digits of a second, in UTC.

The client's models drop zero microseconds, which the API server refuses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write(microseconds: int) -> str:
    """Microseconds since 1970 as a MicroTime."""
    return (_EPOCH + timedelta(microseconds=microseconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(text: object) -> int:
    """Microseconds since 1970; 0 if the text is not a time. Other clients may write fewer digits, or an offset."""
    try:
        return (datetime.fromisoformat(str(text)) - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError, OverflowError):
        return 0
