"""A replica's own description survives encoding and decoding, and malformed text is no member."""

from __future__ import annotations

import json
from ipaddress import ip_interface
from typing import Any

import pytest

from porterlb.core.membership import ANNOTATION, Absence, described, lease_name, node_of, parse
from porterlb.core.model import Member

MEMBER = Member("node-a", "10.0.0.1", 7473, 5, (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")))


def test_there_and_back() -> None:
    parsed = parse(lease_name("node-a"), described(MEMBER))
    assert (parsed.value, parsed.problems) == (MEMBER, ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "here"},
        {"address": None},
        {"port": "many"},
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"boot": -1},
        {"boot": None},
        {"subnets": ["10.0.0.0/99"]},
        {"subnets": "10.0.0.0/24"},
    ],
)
def test_nonsense_is_no_member(wrong: dict[str, Any]) -> None:
    content = json.loads(described(MEMBER)[ANNOTATION]) | wrong
    parsed = parse(lease_name("node-a"), {ANNOTATION: json.dumps(content)})
    assert parsed.value is None
    assert "porterlb-node-a" in parsed.problems[0].message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000])
def test_what_is_no_json_is_no_member(text: str) -> None:
    assert parse(lease_name("node-a"), {ANNOTATION: text}).value is None


def test_other_leases_are_no_members() -> None:
    assert node_of("kube-scheduler") == ""
    assert parse("porterlb", described(MEMBER)).value is None
    assert parse("kube-scheduler", described(MEMBER)).value is None


def test_a_lease_goes_only_after_its_node_has_been_gone_for_long() -> None:
    absence = Absence(10.0)
    assert absence.longer_gone(["n1", "n2"], {"n1"}, 100.0) == frozenset()
    assert absence.longer_gone(["n1", "n2"], {"n1"}, 109.9) == frozenset()
    assert absence.longer_gone(["n1", "n2"], {"n1"}, 110.0) == {"n2"}
    assert absence.longer_gone(["n1", "n2"], {"n1", "n2"}, 111.0) == frozenset()
    assert absence.longer_gone(["n1", "n2"], {"n1"}, 112.0) == frozenset(), "the time counts from the last absence"
    assert absence.longer_gone(["n1"], {"n1"}, 130.0) == frozenset(), "a lease that is deleted is forgotten"
    assert absence.longer_gone(["n1", "n2"], {"n1"}, 131.0) == frozenset()
    absence.clear()
    assert absence.longer_gone(["n1", "n2"], {"n1"}, 150.0) == frozenset(), "nothing is concluded from an outage"
