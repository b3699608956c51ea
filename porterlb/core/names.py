"""Valid names of Kubernetes objects. A valid name is safe as one path segment or as a file name."""

from __future__ import annotations

import re

_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
NAME = rf"^{_PART}(\.{_PART})*$"
NAMESPACE = rf"^{_PART}$"
KEY = r"^[-._a-zA-Z0-9]+$"
"""The patterns of the custom resource definitions."""

_NAME, _NAMESPACE, _KEY = re.compile(NAME), re.compile(NAMESPACE), re.compile(KEY)

NAME_RULE = "lower-case letters, digits, '-' and '.', at most 253; each part begins and ends with a letter or digit"
"""The rule of :func:`is_name`, for messages."""

KEY_RULE = "letters, digits, '-', '_' and '.', at most 253"
"""The rule of :func:`is_key`, for messages."""


def is_name(text: str) -> bool:
    """Whether it is a DNS-1123 subdomain as the API server defines it. The names of all objects that we read are.

    (RFC 1123, 2.1; unlike there, a part may have more than 63 characters.)
    """
    return len(text) <= 253 and _NAME.fullmatch(text) is not None


def is_namespace(text: str) -> bool:
    """Whether it is a DNS-1123 label, as every namespace name is."""
    return len(text) <= 63 and _NAMESPACE.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether it can be a key of a Secret (the API server's IsConfigMapKey)."""
    return len(text) <= 253 and _KEY.fullmatch(text) is not None and text != "." and not text.startswith("..")
