"""OpenELB's objects (network.kubesphere.io/v1alpha2): they apply unchanged; fields that PorterLB does not use are
named. Its Services keep their annotations; their finalizers are named, because nobody else removes them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from porterlb.core.migration.value import API_VERSION, Conversion, Object, mapping, name_of, subject, texts
from porterlb.core.parse.conf import parse_conf
from porterlb.core.parse.eip import parse_eip
from porterlb.core.parse.peer import parse_peer
from porterlb.core.problems import Parsed

PARSERS: Mapping[str, Callable[[Object], Parsed[Any]]] = {
    "Eip": parse_eip,
    "BgpConf": parse_conf,
    "BgpPeer": parse_peer,
}
KEPT_ANNOTATIONS = "kubesphere.io/"
FINALIZERS = ("finalizer.lb.kubesphere.io/v1alpha1", "finalizer.ipam.kubesphere.io/v1alpha1")
"""OpenELB's. An object with one of them is deleted only after OpenELB has removed it."""


def convert(objects: Iterable[Object]) -> Conversion:
    """Without finalizers, status and fields set by the API server; problems are those that the manager would report."""
    made = Conversion()
    order = list(PARSERS)
    every = [obj for obj in objects if isinstance(obj, Mapping)]
    mine = [obj for obj in every if obj.get("apiVersion") == API_VERSION]
    known = [obj for obj in mine if obj.get("kind") in order]
    for obj in sorted(known, key=lambda o: (order.index(o["kind"]), name_of(o))):
        metadata = mapping(obj.get("metadata"))
        kept: dict[str, Any] = {"name": name_of(obj)}
        annotations = {k: v for k, v in mapping(metadata.get("annotations")).items() if KEPT_ANNOTATIONS in str(k)}
        if annotations:
            kept["annotations"] = annotations
        if metadata.get("labels"):
            kept["labels"] = dict(mapping(metadata["labels"]))
        clean = {"apiVersion": API_VERSION, "kind": obj["kind"], "metadata": kept, "spec": obj.get("spec", {})}
        parsed = PARSERS[obj["kind"]](clean)
        for problem in parsed.problems:
            (made.lost if problem.fatal else made.differs)(subject(obj), str(problem))
        _finalizers(obj, made)
        made.manifests.append(clean)
    for obj in every:
        if obj.get("kind") == "Service" and obj.get("apiVersion") == "v1":
            _finalizers(obj, made)
    for obj in mine:
        if obj.get("kind") not in order:  # a list: the kind of a wrong object may be anything
            made.lost(subject(obj), "PorterLB has no such kind.")
    return made


def _finalizers(obj: Object, made: Conversion) -> None:
    """What to do about OpenELB's finalizers, if the object has any. Those of others stay."""
    metadata = mapping(obj.get("metadata"))
    present = texts(metadata.get("finalizers"))
    kept = [name for name in present if name not in FINALIZERS]
    if kept == present:
        return
    name = shlex.quote(name_of(obj))
    if obj["kind"] == "Service":
        name += f" --namespace {shlex.quote(str(metadata.get('namespace', 'default')))}"
    patch = shlex.quote(json.dumps({"metadata": {"finalizers": kept or None}}, separators=(",", ":")))
    made.todo(
        subject(obj),
        "It has a finalizer of OpenELB, and cannot be deleted without OpenELB. Remove the finalizer: kubectl patch "
        f"{obj['kind'].lower()} {name} --type=merge -p {patch}",
    )
