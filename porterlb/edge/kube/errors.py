"""The errors that correspond to unsuccessful answers of the API server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from porterlb.cluster import Conflict, Denied, Unavailable


class Busy(Unavailable):
    """429: the API has not done it and asks us to try again later. ``after``: seconds."""

    def __init__(self, message: str, after: float) -> None:
        super().__init__(message)
        self.after = after


class Unauthorized(Denied):
    """401: our credentials are not, or no longer, accepted."""


class Missing(Denied):
    """404. ``named``: the object is missing; otherwise the API server does not know the kind at all."""

    def __init__(self, message: str, named: bool) -> None:
        super().__init__(message)
        self.named = named


class Expired(Exception):
    """410: that part of the history is gone; list again."""


Trouble = Unavailable | Denied | Conflict | Expired

RETRY_AFTER = 1.0
"""Seconds to wait if a busy API does not say how long."""


def trouble(code: int, body: bytes, path: str, retry_after: str = "") -> Trouble:
    """The error that corresponds to an answer.

    Args:
        code: HTTP status, or the ``code`` of a Status in a watch.
        body: the body of the answer: a Status object in JSON, or anything.
        path: the requested path, without the query.
        retry_after: the Retry-After header: a number of seconds; a date is not understood.
    """
    status = _status(body)
    message = str(status.get("message") or "") or body.decode("utf-8", "replace").strip()[:300] or f"HTTP {code}"
    if code == 409:
        return Conflict(message)
    if code == 410:
        return Expired(message)
    if code == 429:
        return Busy(f"The Kubernetes API is too busy: {message}", _seconds(retry_after))
    if code == 401:
        return Unauthorized(f"The Kubernetes API does not accept our credentials for {path}: {message}")
    if code == 404:
        # Only an API group that exists answers with a Status that names the object.
        details = status.get("details")
        named = isinstance(details, Mapping) and bool(details.get("name"))
        if named:
            return Missing(message, named=True)
        return Missing(
            f"The Kubernetes API has no {path}: {message}. Are the CRDs applied (porterlb crds)?", named=False
        )
    if code >= 500 or code == 408:
        return Unavailable(f"The Kubernetes API failed ({code}): {message}")
    return Denied(message)


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        status = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}


def _seconds(retry_after: str) -> float:
    try:
        return min(60.0, max(0.0, float(retry_after)))
    except ValueError:
        return RETRY_AFTER
