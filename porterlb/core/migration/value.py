"""The result of a conversion: manifests, and remarks about differences."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porterlb.core.parse.fields import Fields
from porterlb.core.parse.selectors import parse_selector
from porterlb.core.problems import Problem

API_VERSION = "network.kubesphere.io/v1alpha2"

Object = Mapping[str, Any]


class Weight(enum.Enum):
    """The importance of a remark."""

    LOST = "not converted"
    CHANGED = "differs"
    TODO = "to do"


@dataclass(frozen=True, slots=True)
class Remark:
    """``subject``: kind and name of the source object. ``text``: one sentence, and what to do."""

    weight: Weight
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.weight.value}: {self.text}"


@dataclass
class Conversion:
    """``manifests`` in the order in which they should be applied."""

    manifests: list[dict[str, Any]] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)

    def lost(self, subject: str, text: str) -> None:
        self.remarks.append(Remark(Weight.LOST, subject, text))

    def differs(self, subject: str, text: str) -> None:
        self.remarks.append(Remark(Weight.CHANGED, subject, text))

    def todo(self, subject: str, text: str) -> None:
        self.remarks.append(Remark(Weight.TODO, subject, text))


def subject(obj: Object) -> str:
    """``IPAddressPool pool``; a Service with its namespace."""
    metadata = mapping(obj.get("metadata"))
    name = str(metadata.get("name", "?"))
    if obj.get("kind") == "Service":
        name = f"{metadata.get('namespace', 'default')}/{name}"
    return f"{obj.get('kind', 'object')} {name}"


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, or an empty mapping if it is of another type: the input is not trusted."""
    return value if isinstance(value, Mapping) else {}


def texts(value: Any) -> list[str]:
    """The texts of a list; empty if the value is of another type."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def name_of(obj: Object) -> str:
    return str(mapping(obj.get("metadata")).get("name", ""))


def matches(selector: Object, labels: Mapping[str, Any]) -> bool:
    """Whether a label selector selects an object with these labels. An invalid selector selects nothing."""
    problems: list[Problem] = []
    found = parse_selector(Fields({"selector": selector}, "", problems), "selector")
    known = {key: value for key, value in labels.items() if isinstance(value, str)}
    return not problems and (found is None or found.matches(known))
