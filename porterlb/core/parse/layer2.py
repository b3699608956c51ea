"""``spec.layer2`` of an Eip: the interfaces and nodes that serve its addresses in Layer 2."""

from __future__ import annotations

import re

from porterlb.core.model import Layer2Rules, Preference, Selector
from porterlb.core.parse.fields import Fields, show
from porterlb.core.parse.selectors import parse_selector, parse_selectors

_NIC = re.compile(r"[^\s/:]{1,15}")  # IFNAMSIZ - 1 (net/if.h), and the characters that the kernel refuses in a name
_SEVERAL = re.compile(r"[,;*?^$|\[\](){}\\+]")
"""Characters of lists and patterns. The kernel allows them in a name, but they are not used in practice."""


def nic_problem(text: str, remedy: str = "", nor: str = "") -> str:
    """Why a text is not the name of a network interface; empty if it is one, or empty itself.

    ``remedy``: what to write instead of a list; ``nor``: what else the field accepts.
    """
    if _SEVERAL.search(text):
        return f"{show(text)} is a list or a pattern{remedy}."
    if text and (not _NIC.fullmatch(text) or text in (".", "..")):
        return f"{show(text)} is {'neither' if nor else 'not'} the name of a network interface{nor}."
    return ""


def parse_layer2(spec: Fields) -> Layer2Rules:
    """The rules in ``spec``; errors are recorded there."""
    fields = spec.object("layer2")
    interfaces = fields.texts("interfaces")
    for text in interfaces:
        if problem := nic_problem(text, "; write each name as one item of the list"):
            fields.wrong("interfaces", problem)
    if interfaces and spec.raw("interface"):
        fields.wrong("interfaces", "contradicts spec.interface: name the interfaces in one of the two fields.")
    preferred = tuple(map(_preference, fields.objects("preferred")))
    if preferred and spec.raw("layer2Spread") == "hosts":
        message = "has no effect with layer2Spread: hosts, which uses all nodes that may serve."
        fields.wrong("preferred", message, fatal=False)
    found = Layer2Rules(tuple(dict.fromkeys(interfaces)), parse_selectors(fields, "nodeSelectors"), preferred)
    fields.done({"nodeSelector": "write nodeSelectors, a list", "interface": "write interfaces, a list"})
    return found


def _preference(term: Fields) -> Preference:
    if not term.has("weight"):
        term.missing("weight", "a number from 1 to 100")
    if not term.has("nodeSelector"):
        term.missing("nodeSelector", "the nodes that are preferred")
    weight = term.number("weight", 1, 1, 100)
    selector = parse_selector(term, "nodeSelector") or Selector()
    term.done({"preference": "write nodeSelector"})
    return Preference(weight, selector)
