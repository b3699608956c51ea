"""Changes a few fields of one manifest in its file: the rest of the file, comments included, stays as it is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from porterlb.cluster import Denied
from porterlb.edge.manifests import documents
from porterlb.edge.manifests.documents import Document


def rewrite(path: Path, document: Document, spec: Mapping[str, Any]) -> None:
    """Sets fields of ``spec`` (null: removes them) of the object in the file, which is replaced atomically.

    Raises:
        Denied: the file cannot be written, or the object would not be valid afterwards; the file is unchanged.
    """
    target = path.resolve()
    before = target.read_bytes()
    text = before.decode("utf-8-sig")
    found = documents.load(text, document.file)
    if document.key not in {d.key for d in found.documents}:
        # The pure Python reader, which finds the positions below, must not get what ours has refused (its depth).
        why = next(iter(found.troubles.values()), "it no longer exists.")
        raise Denied(f"{document.key} cannot be changed in {document.file}: {why}")
    for name, value in spec.items():
        text = _with_field(text, document, name, value)
    loaded = documents.load(text, document.file)
    mine = next((d for d in loaded.documents if d.key == document.key), None)
    if mine is None:
        raise Denied(next(iter(loaded.troubles.values()), f"{document.key} cannot be changed in {document.file}."))
    if any(d not in _others(loaded, document) for d in _others(found, document)):
        raise Denied(f"{document.file} cannot be changed without touching other objects: edit it by hand.")
    if text.encode() == before:
        return
    temporary = target.with_name(f".{target.name}.porterlb-{os.getpid()}")
    try:
        temporary.write_bytes(text.encode())
        shutil.copymode(target, temporary)
        with contextlib.suppress(OSError):
            os.chown(temporary, target.stat().st_uid, target.stat().st_gid)
        temporary.replace(target)
    except OSError as error:
        raise Denied(f"{target} cannot be changed: {error.strerror}. Edit it by hand.") from None
    finally:
        temporary.unlink(missing_ok=True)


def _others(loaded: documents.Loaded, document: Document) -> list[Any]:
    return [(d.key, d.digest) for d in loaded.documents if d.key != document.key]


def _with_field(text: str, document: Document, name: str, value: Any) -> str:
    """The text with one field of spec changed: only its own characters, where YAML allows it."""
    spec = _spec_node(text, document)
    if spec is None:
        raise Denied(f"{document.key} has no spec in {document.file}: edit it by hand.")
    flow = bool(spec.flow_style)
    for key, node in spec.value:
        if key.value != name:
            continue
        # A removed field becomes null, which counts as absent: that keeps any layout.
        start, end = int(node.start_mark.index), _end(node)
        shown = json.dumps(value) if document.file.endswith(".json") else _shown(value)
        return text[:start] + (" " if start == end else "") + shown + text[end:]
    if value is None:
        return text
    quoted = document.file.endswith(".json")
    field = f"{json.dumps(name)}: {json.dumps(value)}" if quoted else f"{name}: {_shown(value)}"
    if flow:
        at = int(spec.start_mark.index) + 1
        return text[:at] + field + (", " if spec.value else "") + text[at:]
    first = spec.value[0][0].start_mark
    at = int(first.index)
    return text[:at] + field + "\n" + " " * int(first.column) + text[at:]


def _end(node: Any) -> int:
    """Where a value's own text ends. A block collection ends with its last child, not at the next token."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _shown(value: Any) -> str:
    """A value as YAML on one line: words unquoted, all else as JSON, which is valid YAML."""
    if isinstance(value, str) and value.isidentifier() and value.lower() not in _RESERVED:
        return value
    return json.dumps(value)


_RESERVED = frozenset({"yes", "no", "on", "off", "true", "false", "null", "y", "n"})


def _spec_node(text: str, document: Document) -> Any:
    """The YAML node of the object's spec. Uses the pure Python YAML reader, for exact positions."""
    for root in yaml.compose_all(text, Loader=yaml.SafeLoader):
        for node in _items(root):
            fields = {key.value: value for key, value in node.value}
            metadata = {
                key.value: getattr(value, "value", "") for key, value in getattr(fields.get("metadata"), "value", ())
            }
            kind = getattr(fields.get("kind"), "value", "")
            namespace = metadata.get("namespace", "default") if document.key.namespace else ""
            if (kind, namespace, metadata.get("name")) == (document.key.kind.kind, *document.key[1:]):
                spec = fields.get("spec")
                return spec if isinstance(spec, yaml.MappingNode) and spec.value else None
    return None


def _items(root: Any) -> list[Any]:
    if not isinstance(root, yaml.MappingNode):
        return []
    for key, value in root.value:
        if key.value == "items" and isinstance(value, yaml.SequenceNode):
            return [found for item in value.value for found in _items(item)]
    return [root]
