"""Eip objects as users write them, including OpenELB's, and the messages about wrong ones."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.model import Eip, Protocol
from porterlb.core.parse import parse_eip
from porterlb.core.parse.addresses import pool_ranges
from porterlb.core.parse.eip import SWITCHED, replaced_protocol
from porterlb.core.parse.meta import DOMAINS
from porterlb.core.problems import Reason
from tests.core.allocation_world import ranges


def obj(spec: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {
        "apiVersion": "network.kubesphere.io/v1alpha2",
        "kind": "Eip",
        "metadata": {"name": "pool", **meta},
        "spec": spec,
        "status": {"usage": 1},
    }


def good(spec: dict[str, Any], **meta: Any) -> Eip:
    parsed = parse_eip(obj(spec, **meta))
    assert parsed.problems == ()
    assert parsed.value is not None
    return parsed.value


def shown(eip: Eip) -> list[str]:
    return [str(r.first) if r.first == r.last else f"{r.first}-{r.last}" for r in eip.ranges]


def only(spec: dict[str, Any], **meta: Any) -> tuple[Reason, str, bool]:
    (problem,) = parse_eip(obj(spec, **meta)).problems
    return problem.reason, str(problem), problem.fatal


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.168.10.9", ["192.168.10.9"]),
        ("192.168.10.0/30", ["192.168.10.0-192.168.10.3"]),
        ("192.168.10.91-192.168.10.100", ["192.168.10.91-192.168.10.100"]),
        (" 192.168.10.91 - 192.168.10.92 ", ["192.168.10.91-192.168.10.92"]),
        ("2001:db8::/126", ["2001:db8::-2001:db8::3"]),
        ("2001:db8::1-2001:db8::5", ["2001:db8::1-2001:db8::5"]),
        ("2001:db8::/64, 10.0.0.1,10.0.0.3,", ["10.0.0.1", "10.0.0.3", "2001:db8::-2001:db8::ffff:ffff:ffff:ffff"]),
        ("10.0.0.4-10.0.0.9,10.0.0.1-10.0.0.5,10.0.0.10", ["10.0.0.1-10.0.0.10"]),
    ],
)
def test_addresses(address: str, expected: list[str]) -> None:
    assert shown(good({"address": address})) == expected


def test_exclude_and_network_addresses() -> None:
    spec = {"address": "10.0.0.0/23,2001:db8::/127", "exclude": "10.0.0.5, 10.0.1.128/25"}
    assert shown(good(spec)) == ["10.0.0.0-10.0.0.4", "10.0.0.6-10.0.1.127", "2001:db8::-2001:db8::1"]
    spec["avoidNetworkAddresses"] = True  # type: ignore[assignment]
    assert shown(good(spec)) == [
        "10.0.0.1-10.0.0.4",
        "10.0.0.6-10.0.0.254",
        "10.0.1.1-10.0.1.127",
        "2001:db8::-2001:db8::1",
    ]


SPANS = st.lists(st.tuples(st.integers(0, 700), st.integers(0, 300)), max_size=5)


@settings(max_examples=150, deadline=None)
@given(inside=SPANS, outside=SPANS, dotted=st.booleans())
def test_ranges_against_plain_sets(inside: list[tuple[int, int]], outside: list[tuple[int, int]], dotted: bool) -> None:
    base = int(ip_address("10.0.0.0"))

    def made(spans: list[tuple[int, int]]) -> list[Any]:
        texts = [f"{ip_address(base + first)}-{ip_address(base + first + more)}" for first, more in spans]
        return list(ranges(*texts))

    def plain(spans: list[tuple[int, int]]) -> set[int]:
        return {n for first, more in spans for n in range(first, first + more + 1)}

    found = pool_ranges(made(inside), made(outside), avoid_dotted=dotted)
    assert found is not None
    expected = plain(inside) - plain(outside)
    if dotted:
        expected = {n for n in expected if n % 256 not in (0, 255)}
    numbers = [n for r in found for n in range(int(r.first) - base, int(r.last) - base + 1)]
    assert numbers == sorted(expected)
    assert all(int(a.last) + 1 < int(b.first) for a, b in pairwise(found))


def test_openelb_layer2_eip() -> None:
    eip = good(
        {"address": "192.168.0.91-192.168.0.100", "protocol": "layer2", "interface": "eth0", "disable": False},
        annotations={"eip.openelb.kubesphere.io/is-default-eip": "true"},
        uid="u",
        creationTimestamp="2026-01-01T00:00:00Z",
        generation=3,
        labels={"a": "b"},
    )
    assert (eip.protocol, eip.interface, eip.is_default) == (Protocol.LAYER2, "eth0", True)
    assert (eip.uid, eip.created, eip.generation, eip.labels) == ("u", "2026-01-01T00:00:00Z", 3, {"a": "b"})


def test_openelb_eip_for_namespaces() -> None:
    eip = good(
        {
            "address": "172.22.0.2/31",
            "protocol": "bgp",
            "priority": 10,
            "namespaces": ["a", "b"],
            "namespaceSelector": {"team": "x"},
        }
    )
    assert eip.protocol is Protocol.BGP
    assert eip.priority == 10
    assert eip.namespaces == {"a", "b"}
    assert eip.namespace_selector is not None
    assert eip.namespace_selector.matches({"team": "x", "more": "y"})
    assert not eip.namespace_selector.matches({"team": "y"})


def test_our_own_fields() -> None:
    eip = good(
        {
            "address": "10.0.0.1",
            "interface": "can_reach:10.0.0.254",
            "serviceSelector": {"matchExpressions": [{"key": "k", "operator": "NotIn", "values": ["v"]}]},
            "autoAssign": False,
            "layer2Standby": False,
            "layer2Spread": "hosts",
            "disable": True,
        },
        annotations={"eip.porter.kubesphere.io/is-default-eip": "false"},
    )
    assert (eip.interface, eip.can_reach) == ("", ip_address("10.0.0.254"))
    assert (eip.auto_assign, eip.layer2_standby, eip.disabled, eip.is_default) == (False, False, True, False)
    assert eip.layer2_spread
    assert eip.service_selector is not None
    assert eip.service_selector.matches({})
    assert not eip.service_selector.matches({"k": "v"})
    bare = good({"address": "10.0.0.1"})
    assert (bare.protocol, bare.auto_assign, bare.layer2_standby) == (Protocol.AUTO, True, True)
    assert not bare.layer2_spread and not good({"address": "10.0.0.1", "layer2Spread": "none"}).layer2_spread
    assert bare.namespace_selector is bare.service_selector is None


NOT_ONE = 'spec.address: "10.0.0.300" is not an IP address, CIDR or range a-b.'
DEFAULT = "eip.porter.kubesphere.io/is-default-eip"
UNKNOWN = "eip.porter.kubesphere.io/default"
WRONG: list[tuple[dict[str, Any], Reason, str]] = [
    ({"address": "10.0.0.300"}, Reason.INVALID_ADDRESS, NOT_ONE),
    ({"address": "10.0.0.1,x"}, Reason.INVALID_ADDRESS, 'spec.address: "x" is not an IP address, CIDR or range a-b.'),
    ({"address": "10.0.0.9-10.0.0.1"}, Reason.REVERSED_RANGE, "Write 10.0.0.1-10.0.0.9."),
    ({"address": "10.0.0.1-2001:db8::1"}, Reason.INVALID_ADDRESS, "goes from IPv4 to IPv6"),
    ({"address": "10.0.0.0/33"}, Reason.INVALID_ADDRESS, "is not an IP address"),
    ({"address": "224.0.0.1"}, Reason.INVALID_ADDRESS, "multicast"),
    ({"address": "126.0.0.0-128.0.0.0"}, Reason.INVALID_ADDRESS, "loopback"),
    ({"address": "fe80::1"}, Reason.INVALID_ADDRESS, "link-local"),
    ({"address": 7}, Reason.INVALID_FIELD, "spec.address: 7 is not a string."),
    ({}, Reason.MISSING_FIELD, "spec.address: is missing"),
    ({"address": "10.0.0.1", "exclude": "10.0.0.0/24"}, Reason.EMPTY_POOL, "spec.exclude: leaves no address"),
    ({"address": "10.0.0.1", "exclude": "ten"}, Reason.INVALID_ADDRESS, 'spec.exclude: "ten" is not'),
    ({"address": "10.0.0.1", "protocol": "vip"}, Reason.UNSUPPORTED_FIELD, '"vip" is not supported'),
    ({"address": "10.0.0.1", "protocol": "bpg"}, Reason.INVALID_FIELD, '"bpg" is not one of auto, bgp, layer2.'),
    ({"address": "10.0.0.1", "interface": "can_reach:me"}, Reason.INVALID_ADDRESS, "no IP address behind can_reach:"),
    ({"address": "10.0.0.1", "interface": "a b"}, Reason.INVALID_FIELD, "neither the name of a network interface"),
    ({"address": "10.0.0.1", "priority": "high"}, Reason.INVALID_FIELD, "is not a whole number."),
    ({"address": "10.0.0.1", "disable": "yes"}, Reason.INVALID_FIELD, "neither true nor false"),
    ({"address": "10.0.0.1", "serviceSelector": {"app": "x"}}, Reason.INVALID_FIELD, "not part of a label selector"),
    ({"address": "1.0.0.0-99.0.0.0", "avoidNetworkAddresses": True}, Reason.INVALID_FIELD, "more than 2^24"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "reason", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_wrong_ones(spec: dict[str, Any], reason: Reason, words: str) -> None:
    parsed = parse_eip(obj(spec))
    assert parsed.value is None
    found, text, fatal = only(spec)
    assert (found, fatal) == (reason, True)
    assert words in text


@pytest.mark.parametrize(
    ("spec", "meta", "reason", "words"),
    [
        ({"usingKnownIPs": True}, {}, Reason.UNSUPPORTED_FIELD, "spec.usingKnownIPs: is not supported"),
        ({"adress": "x"}, {}, Reason.UNSUPPORTED_FIELD, "spec.adress: is not a known field and has no effect."),
        ({"address": "10.0.0.5/24"}, {}, Reason.INVALID_ADDRESS, "all of 10.0.0.0/24 is used"),
        ({}, {"annotations": {DEFAULT: "yes"}}, Reason.INVALID_FIELD, "treated as false"),
        ({}, {"annotations": {UNKNOWN: "true"}}, Reason.UNSUPPORTED_FIELD, "not a known annotation"),
    ],
)  # fmt: skip
def test_warnings(spec: dict[str, Any], meta: dict[str, Any], reason: Reason, words: str) -> None:
    spec = {"address": "10.0.0.1", **spec}
    found, text, fatal = only(spec, **meta)
    assert (found, fatal) == (reason, False)
    assert words in text
    assert parse_eip(obj(spec, **meta)).value is not None


def test_no_spec_no_name() -> None:
    fields = {problem.field for problem in parse_eip({}).problems}
    assert fields == {"metadata.name", "spec"}


@pytest.mark.parametrize(
    ("note", "protocol", "expected"),
    [
        ("bgp/layer2", "layer2", Protocol.BGP),
        ("auto/layer2", "layer2", Protocol.AUTO),
        ("layer2/auto", None, Protocol.LAYER2),
        ("bgp/layer2", "bgp", None),  # changed by other means since
        ("bgp/layer2", None, None),
        ("carp/layer2", "layer2", None),
        ("", "layer2", None),
    ],
)
def test_the_protocol_before_a_switch_by_command_is_known(note, protocol, expected) -> None:
    key = f"{SWITCHED[0]}.{DOMAINS[0]}/{SWITCHED[1]}"
    spec = {"address": "10.0.0.1"} | ({"protocol": protocol} if protocol else {})
    assert replaced_protocol(obj(spec, annotations={key: note} if note else {})) is expected


def test_an_eip_without_a_spec_was_not_switched() -> None:
    assert replaced_protocol({"metadata": {"name": "pool"}, "spec": None}) is None
