"""Kubernetes label selectors (metav1.LabelSelector)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.model import Requirement, Selector
from porterlb.core.parse.fields import Fields, show
from porterlb.core.problems import Reason

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def parse_selector(parent: Fields, name: str, *, plain: bool = False) -> Selector | None:
    """The selector in a field; None if it is absent or empty, which selects everything.

    An invalid selector is a fatal problem: applied partly, it would select unwanted objects. ``plain``: also
    accept ``label: value`` pairs without matchLabels, as OpenELB writes namespaceSelector.
    """
    fields = parent.object(name)
    value = parent.raw(name)
    if not isinstance(value, Mapping) or not value:
        return None
    if plain and not any(isinstance(value.get(key), Mapping | list) for key in ("matchLabels", "matchExpressions")):
        return Selector(_labels(parent, name))
    for key in value:
        if key not in ("matchLabels", "matchExpressions"):
            fields.wrong("", f"{show(key)} is not part of a label selector: it has matchLabels and matchExpressions.")
    found = list(_labels(fields, "matchLabels"))
    for entry in fields.objects("matchExpressions"):
        requirement = _requirement(entry)
        if requirement is not None:
            found.append(requirement)
    return Selector(tuple(found)) if found else None


def parse_selectors(parent: Fields, name: str) -> tuple[Selector, ...]:
    """The selectors of a list. An empty one selects everything."""
    found = []
    for at, (_, item) in enumerate(parent.items(name)):
        entry = f"{name}[{at}]"
        selector = parse_selector(Fields({entry: item}, parent.path, parent.problems), entry)
        if item is None:
            parent.wrong(entry, "null is not an object.")
        found.append(selector or Selector())
    return tuple(found)


def _labels(parent: Fields, name: str) -> tuple[Requirement, ...]:
    fields = parent.object(name)
    value: Any = parent.raw(name)
    found = []
    for key in sorted(value if isinstance(value, Mapping) else (), key=str):
        text = value[key]
        if isinstance(key, str) and isinstance(text, str):
            found.append(Requirement(key, "In", frozenset({text})))
        else:
            fields.wrong("", f"{show(key)}: {show(text)} is not a label with a value; values are strings.")
    return tuple(found)


def _requirement(entry: Fields) -> Requirement | None:
    key, operator = entry.text("key"), entry.text("operator")
    values = frozenset(text if isinstance(text, str) else show(text) for _, text in entry.items("values"))
    entry.done()
    if not key:
        entry.missing("key", "the label that is looked at")
    elif operator not in _OPERATORS:
        entry.wrong("operator", f"{show(operator)} is not one of {', '.join(_OPERATORS)}.")
    elif operator in ("In", "NotIn") and not values:
        entry.wrong("values", f"is missing: {operator} needs at least one value.", Reason.MISSING_FIELD)
    elif operator in ("Exists", "DoesNotExist") and values:
        entry.wrong("values", f"must be empty for {operator}.")
    else:
        return Requirement(key, operator, values)
    return None
