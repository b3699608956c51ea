"""No JSON value makes a parser raise, and every refused object has a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.parse import (
    parse_conf,
    parse_eip,
    parse_endpoint_slice,
    parse_meta,
    parse_node,
    parse_peer,
    parse_service,
)
from porterlb.core.problems import Parsed

PARSERS: dict[str, Callable[[Any], Parsed[Any] | None]] = {
    "eip": parse_eip,
    "peer": parse_peer,
    "conf": parse_conf,
    "node": parse_node,
    "service": lambda obj: parse_service(obj, True),
}

NAMES = """
metadata name namespace uid creationTimestamp labels annotations generation spec status address exclude
protocol interface disable priority namespaces namespaceSelector serviceSelector matchLabels matchExpressions
key operator values autoAssign avoidNetworkAddresses conf neighborAddress peerAs localAs authPassword
authPasswordSecret timers config holdTime keepaliveInterval connectRetry transport passiveMode remotePort
localAddress gracefulRestart enabled restartTime afiSafis family afi safi addPaths sendMax nodeSelector
advertise overrides defaultGateway eips eipSelector communities largeCommunities localPref med asPathPrepend as
routerId listenPort listenAddresses type loadBalancerClass loadBalancerIP loadBalancer ingress ip ports port ipFamilies
ipFamilyPolicy externalTrafficPolicy selector conditions addresses taints unschedulable endpoints nodeName
addressType ready serving terminating
"""
WORDS = st.sampled_from(NAMES.split())
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            "LoadBalancer", "IPv4", "IPv6", "InternalIP", "Ready", "True", "In", "Exists", "AFI_IP", "SAFI_UNICAST",
            "10.0.0.0/8", "0.0.0.0/0", "::/0", "1.0.0.0-120.0.0.0", "10.0.0.1", "10.0.0.300", "2001:db8::/64",
            "fe80::1%eth0", "10.0.0.9-10.0.0.1", "10.0.0.1-2001:db8::1", "1.2.3.4/33", "/", "-", ",",
            ",,", "can_reach:",
            "can_reach:10.0.0.1", "64500:1", "64500:1:2", "no-export", "9" * 5000, "default", "RequireDualStack",
            "10.0.0.1,2001:db8::1", "\ud800", "\u0661", "true", "vip",
        ]
    ),
)  # fmt: skip
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), TEXTS, st.integers(-1, 70000), st.integers(10**400, 10**401)
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, TEXTS), inner, max_size=6)),
    max_leaves=25,
)


def check(parsed: Parsed[Any] | None) -> None:
    if parsed is None:
        return
    fatal = [problem for problem in parsed.problems if problem.fatal]
    assert (parsed.value is None) == bool(fatal)
    for problem in parsed.problems:
        assert problem.message.endswith(".")
        assert "\n" not in str(problem)
        assert "Traceback" not in problem.message
    hash(parsed.problems)


@pytest.mark.parametrize("kind", PARSERS)
@settings(max_examples=70, deadline=None)
@given(value=JSON)
def test_any_json(kind: str, value: Any) -> None:
    check(PARSERS[kind](value))
    parse_meta(value)
    parse_endpoint_slice(value)


SHAPES: dict[str, dict[str, Any]] = {
    "eip": {
        "address exclude protocol interface": TEXTS,
        "disable autoAssign avoidNetworkAddresses layer2Standby": st.booleans(),
        "priority namespaces namespaceSelector serviceSelector": JSON,
    },
    "peer": {"conf timers transport ebgpMultihop gracefulRestart afiSafis nodeSelector advertise": JSON},
    "conf": {"as routerId listenPort listenAddresses gracefulRestart policy asPerRack": JSON},
    "service": {"loadBalancerIP ports selector ipFamilies ipFamilyPolicy externalTrafficPolicy": JSON},
    "node": {"taints unschedulable": JSON},
}


@pytest.mark.parametrize("kind", SHAPES)
@settings(max_examples=70, deadline=None)
@given(data=st.data())
def test_right_shape_with_any_values(kind: str, data: st.DataObject) -> None:
    fields = {name: values for names, values in SHAPES[kind].items() for name in names.split()}
    spec = data.draw(st.fixed_dictionaries({}, optional=fields))
    if kind == "service":
        spec["type"] = "LoadBalancer"
    annotations = data.draw(
        st.dictionaries(
            st.sampled_from(
                [
                    "eip.porter.kubesphere.io/v1alpha1", "eip.openelb.kubesphere.io/v1alpha1",
                    "eip.porter.kubesphere.io/v1alpha2", "protocol.openelb.kubesphere.io/v1alpha1",
                    "share.porter.kubesphere.io/v1alpha1", "eip.openelb.kubesphere.io/is-default-eip",
                ]
            ),
            TEXTS,
        )
    )  # fmt: skip
    meta = {"name": "default", "namespace": "default", "annotations": annotations}
    parsed = PARSERS[kind]({"metadata": meta, "spec": spec, "status": data.draw(JSON)})
    assert parsed is not None
    check(parsed)


@settings(max_examples=100, deadline=None)
@given(endpoints=JSON, address_type=TEXTS)
def test_endpoint_slices(endpoints: Any, address_type: str) -> None:
    meta = {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}}
    found = parse_endpoint_slice({"metadata": meta, "endpoints": endpoints, "addressType": address_type})
    assert found is not None
    assert found[0] == ("n", "web")


@pytest.mark.parametrize(
    "value", [10**5000, "9" * 5000, float("nan"), float("inf"), -0.5], ids=lambda v: type(v).__name__
)
def test_numbers_that_are_none(value: Any) -> None:
    meta = {"name": "default"}
    check(parse_eip({"metadata": meta, "spec": {"address": "10.0.0.1", "priority": value}}))
    spec = {"conf": {"peerAs": value, "neighborAddress": value}, "timers": {"config": {"holdTime": value}}}
    check(parse_peer({"metadata": meta, "spec": spec}))
    check(parse_conf({"metadata": meta, "spec": {"as": value, "listenPort": value}}))
