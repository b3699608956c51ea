"""OpenELB's objects (network.kubesphere.io/v1alpha2): they apply unchanged; fields that PorterLB does not use are
named."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from porterlb.core.migration.value import API_VERSION, Conversion, Object, mapping, name_of, subject
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


def convert(objects: Iterable[Object]) -> Conversion:
    """Without finalizers, status and fields set by the API server; problems are those that the manager would report."""
    made = Conversion()
    order = list(PARSERS)
    mine = [obj for obj in objects if isinstance(obj, Mapping) and obj.get("apiVersion") == API_VERSION]
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
        if metadata.get("finalizers"):
            made.todo(
                subject(obj),
                "It has finalizers of OpenELB. Remove them before you delete the object: kubectl patch "
                f'{str(obj["kind"]).lower()} {name_of(obj)} --type=merge -p \'{{"metadata":{{"finalizers":null}}}}\'',
            )
        made.manifests.append(clean)
    for obj in mine:
        if obj.get("kind") not in order:  # a list: the kind of a wrong object may be anything
            made.lost(subject(obj), "PorterLB has no such kind.")
    return made
