"""Reads the text of a manifest file: the objects that an API server would accept, and the faults of the rest."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, NamedTuple

from porterlb.cluster import GROUP, Kind, Obj
from porterlb.core.names import NAME_RULE, is_name, is_namespace
from porterlb.edge.manifests import schema, yamltext
from porterlb.release import release

KINDS = {kind.kind: kind for kind in Kind if kind is not Kind.LEASE}
CUSTOM = frozenset({Kind.EIP, Kind.BGP_CONF, Kind.BGP_PEER})
OWN_STATUS = frozenset({Kind.NODE, Kind.NAMESPACE})  # nothing else writes it here, so the manifest's own counts


class DocumentKey(NamedTuple):
    """Identifies an object. ``namespace`` is empty for cluster-scoped kinds."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """One good object. ``file``: relative to the directory; ``digest`` changes with its content.

    ``source``: the :func:`source` of the file, if it is good as a whole, and otherwise empty; ``of``: the number of
    objects in it.
    """

    key: DocumentKey
    object: Obj
    file: str
    line: int
    digest: str
    source: str = ""
    of: int = 0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as read. ``troubles``: sentences by line. ``refused``: objects that exist but are not valid.

    ``doubtful``: a part of it could not be identified, so objects that were good before and are missing now are kept.
    """

    documents: tuple[Document, ...] = ()
    troubles: Mapping[int, str] = field(default_factory=dict)
    refused: frozenset[DocumentKey] = frozenset()
    doubtful: bool = False


class _Refused(Exception):
    def __init__(self, path: tuple[str | int, ...], message: str, key: DocumentKey | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.key = key


_INSTEAD = {
    "IPAddressPool": "an Eip with spec.address",
    "AddressPool": "an Eip with spec.address",
    "L2Advertisement": "spec.protocol of the Eip: auto or layer2",
    "BGPAdvertisement": "spec.advertise of the BgpPeer",
    "BGPPeer": "a BgpPeer",
    "Community": "spec.advertise[].communities of the BgpPeer",
}
"""Kind of MetalLB -> its equivalent here."""


def source(content: bytes) -> str:
    """What changes with the content of a file, and with the release, which may read the same content differently."""
    return hashlib.sha256(_release().encode() + b"\0" + content).hexdigest()[:32]


def load(text: str, file: str, source: str = "") -> Loaded:
    """Reads a whole file; never raises. ``source``: see :class:`Document`."""
    good: list[Document] = []
    troubles: dict[int, str] = {}
    refused: set[DocumentKey] = set()
    doubtful = False
    seen: dict[DocumentKey, int] = {}
    try:
        for tree in yamltext.documents(text):
            for value, path in _objects(tree.value):
                line = yamltext.line_of(tree.node, path)
                try:
                    accepted = accept(value)
                except _Refused as error:
                    where = yamltext.line_of(tree.node, (*path, *error.path))
                    _note(troubles, where, f"{error.key}: {error.message}" if error.key else error.message)
                    if error.key:
                        refused.add(error.key)
                    else:
                        doubtful = True
                    continue
                if accepted is None:
                    if hint := _hint(value):
                        _note(troubles, line, hint)
                    continue
                key, obj = accepted
                if key in seen:
                    _note(troubles, line, f"{key} is in line {seen[key]} of this file already; that one is used.")
                    continue
                seen[key] = line
                good.append(Document(key, obj, file, line, _digest(obj)))
    except yamltext.Unreadable as error:
        _note(troubles, error.line, error.message)
        # The part before the fault may be half of an object: nothing of a broken file is used.
        return Loaded((), troubles, frozenset(), True)
    if source and not troubles:
        good = [replace(document, source=source, of=len(good)) for document in good]
    return Loaded(tuple(good), troubles, frozenset(refused), doubtful)


@cache
def _release() -> str:
    return release()


def accept(value: Any) -> tuple[DocumentKey, dict[str, Any]] | None:
    """One manifest as an API server would store it: checked, with defaults; its status is kept for OWN_STATUS only.

    None: an object of a kind that we do not read. Raises _Refused, whose message is a sentence.
    """
    if not isinstance(value, Mapping):
        raise _Refused((), "This is not an object: it has no kind.")
    value = schema.without_nulls(value)
    api_version, name_of_kind = value.get("apiVersion"), value.get("kind")
    if not isinstance(name_of_kind, str) or not isinstance(api_version, str):
        missing = "kind" if not isinstance(name_of_kind, str) else "apiVersion"
        raise _Refused((missing,), f"{missing} is missing.")
    kind = KINDS.get(name_of_kind)
    group = api_version.rpartition("/")[0]
    if kind is None or group != kind.value[0]:
        if group == GROUP:
            raise _Refused(("kind",), f"There is no kind {name_of_kind} in {GROUP}: write Eip, BgpConf or BgpPeer.")
        return None
    key = _key(kind, value)
    if api_version != kind.api_version:
        raise _Refused(("apiVersion",), f"apiVersion {api_version} is not read; write {kind.api_version}.", key)
    obj = dict(value)
    obj["metadata"] = _metadata(value["metadata"], key)
    if kind not in OWN_STATUS:
        obj.pop("status", None)
    if kind in CUSTOM:
        obj = schema.with_defaults(kind.kind, obj)
        fault = schema.judge(kind.kind, obj)
        if fault:
            raise _Refused(fault.path, fault.message, key)
    elif kind is Kind.SECRET:
        obj = _secret(obj, key)
    for part in ("spec", "status"):
        if not isinstance(obj.get(part, {}), Mapping):
            raise _Refused((part,), f"{part} must be a mapping.", key)
    return key, obj


def _hint(value: Mapping[str, Any]) -> str:
    """What to write instead of an object of MetalLB; empty for all others."""
    kind = str(value.get("kind"))
    instead = _INSTEAD.get(kind) if str(value.get("apiVersion")).rpartition("/")[0] == "metallb.io" else None
    return f"{kind} is a kind of MetalLB and is ignored. Write {instead}." if instead else ""


def _objects(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, tuple[str | int, ...]]]:
    """The objects of a document; those of a List one by one."""
    if (
        isinstance(value, Mapping)
        and str(value.get("kind", "")).endswith("List")
        and isinstance(value.get("items"), list)
    ):
        for index, item in enumerate(value["items"]):
            yield from _objects(item, (*path, "items", index))
    else:
        yield value, path


def _key(kind: Kind, value: Mapping[str, Any]) -> DocumentKey:
    metadata = value.get("metadata")
    if not isinstance(metadata, Mapping):
        raise _Refused(("metadata",), f"{kind.kind}: metadata.name is missing.")
    name, namespace = metadata.get("name"), metadata.get("namespace", "default")
    if not isinstance(name, str):
        problem = "is missing" if name is None else "must be text: put it in quotes"
        raise _Refused(("metadata", "name"), f"{kind.kind}: metadata.name {problem}.")
    for field_name, text in (("name", name), ("namespace", namespace)):
        if not isinstance(text, str) or not (is_namespace(text) if field_name == "namespace" else is_name(text)):
            raise _Refused(
                ("metadata", field_name),
                f"{kind.kind}: metadata.{field_name} {json.dumps(text)[:60]} is not a valid name: {NAME_RULE}.",
            )
    return DocumentKey(kind, namespace if kind.namespaced else "", name)


def _metadata(metadata: Mapping[str, Any], key: DocumentKey) -> dict[str, Any]:
    result = {k: v for k, v in metadata.items() if k not in ("namespace", "uid", "resourceVersion", "managedFields")}
    if key.namespace:
        result["namespace"] = key.namespace
    for part in ("labels", "annotations"):
        entries = result.get(part, {})
        if not isinstance(entries, Mapping):
            raise _Refused(("metadata", part), f"metadata.{part} must be a mapping.", key)
        for name, text in entries.items():
            if not isinstance(text, str):
                raise _Refused(
                    ("metadata", part, name),
                    f'metadata.{part}: the value of {name} must be text. Put it in quotes: "{json.dumps(text)}"',
                    key,
                )
    return result


def _secret(obj: dict[str, Any], key: DocumentKey) -> dict[str, Any]:
    """stringData becomes data, as in the API."""
    data = obj.get("data", {})
    plain = obj.pop("stringData", {})
    for part, entries in (("data", data), ("stringData", plain)):
        if not isinstance(entries, Mapping) or not all(isinstance(text, str) for text in entries.values()):
            raise _Refused((part,), f"{part} must be a mapping of texts.", key)
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in plain.items()}
    return {**obj, "data": {**data, **encoded}}


def _note(troubles: dict[int, str], line: int, message: str) -> None:
    troubles[line] = f"{troubles[line]} {message}" if line in troubles else message


def _digest(obj: Any) -> str:
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()[:16]
