"""API objects in the form of a recording: without secrets, and without fields that no decision reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.bgp import rules
from porterlb.core.doctor.redact import SECRET_NAME
from porterlb.core.record.codec import SECRET_TEXT

Obj = Mapping[str, Any]

_DOMAINS = ("kubesphere.io", "openelb", "metallb")
"""Text in the names of the annotations that we read. Other annotations may contain anything, even secrets."""

_LEFT_OUT: Mapping[str, frozenset[str]] = {
    "Node": frozenset(("images", "nodeInfo", "capacity", "allocatable", "volumesInUse", "volumesAttached", "config")),
}
"""Fields of the status that are large and change often."""

_OURS = ("Eip", "BgpConf", "BgpPeer")
_NAMES = ("labels", "matchLabels", "annotations", "used", "layer2NextHops")
"""Mappings whose keys are not field names."""
_NOT_ALLOWED = "\0"


def recorded(kind: str, obj: Obj) -> dict[str, Any]:
    """The object for a recording. The replacement of a secret is valid if and only if the secret was valid."""
    found = {name: part for name, part in obj.items() if name in ("metadata", "spec", "status")}
    if kind == "EndpointSlice":
        found |= {name: obj[name] for name in ("addressType", "endpoints", "ports") if name in obj}
    metadata = found.get("metadata")
    if isinstance(metadata, Mapping):
        found["metadata"] = _metadata(metadata)
    status, out = found.get("status"), _LEFT_OUT.get(kind)
    if out and isinstance(status, Mapping):
        found["status"] = {name: part for name, part in status.items() if name not in out}
    if kind in _OURS:
        found |= {name: _without_secrets("", part) for name, part in obj.items() if name != "metadata"}
    return found


def _metadata(metadata: Obj) -> dict[str, Any]:
    annotations = metadata.get("annotations")
    if not isinstance(annotations, Mapping):
        return dict(metadata)
    ours = {name: text for name, text in annotations.items() if any(domain in str(name) for domain in _DOMAINS)}
    return {**metadata, "annotations": ours}


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: part if key in _NAMES else _without_secrets(str(key), part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(name, part) for part in value]
    if not SECRET_NAME.search(name) or value is None or isinstance(value, bool) or not value:
        return value
    if isinstance(value, str):
        return SECRET_TEXT if rules.password_allowed(value) else _NOT_ALLOWED
    return 1
