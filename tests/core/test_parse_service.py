"""Services (whether they are ours, and their requests), Nodes and EndpointSlices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from porterlb.core.model import Endpoint, Port, Protocol, Ready, Service, TrafficPolicy
from porterlb.core.parse import merge, parse_endpoint_slice, parse_node, parse_service
from porterlb.core.problems import Parsed, Reason
from tests.core.allocation_world import addresses

OURS = "lb.kubesphere.io/v1alpha1"
CLASS = "network.kubesphere.io/porterlb"


def obj(annotations: dict[str, str] | None = None, held: tuple[str, ...] = (), **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "web",
            "namespace": "ns",
            "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": "77",
            "generation": 4,
            "labels": {"a": "b"},
            "annotations": annotations or {},
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": "http"}], **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in held]}},
    }


def parse(*args: Any, **kwargs: Any) -> Parsed[Service]:
    parsed = parse_service(obj(*args, **kwargs), True)
    assert parsed is not None
    return parsed


def good(*args: Any, **kwargs: Any) -> Service:
    parsed = parse(*args, **kwargs)
    assert parsed.problems == ()
    assert parsed.value is not None
    return parsed.value


@pytest.mark.parametrize("claim", [True, False])
@pytest.mark.parametrize(
    ("annotations", "spec", "ours"),
    [
        ({}, {"loadBalancerClass": CLASS}, True),
        ({OURS: "openelb"}, {"loadBalancerClass": "metallb.io/metallb"}, False),
        ({OURS: "porter"}, {}, True),
        ({OURS: "openelb"}, {}, True),
        ({OURS: "somebody-else"}, {}, False),
        ({}, {}, None),
        ({OURS: "porter"}, {"type": "ClusterIP"}, False),
        ({OURS: "porter"}, {"type": "NodePort"}, False),
    ],
)
def test_whether_it_is_ours(annotations: dict[str, str], spec: dict[str, Any], ours: bool | None, claim: bool) -> None:
    expected = claim if ours is None else ours
    assert (parse_service(obj(annotations, **spec), claim) is not None) is expected


def test_openelb_service() -> None:
    service = good(
        {
            OURS: "openelb",
            "protocol.openelb.kubesphere.io/v1alpha1": "layer2",
            "eip.openelb.kubesphere.io/v1alpha2": "layer2-eip",
            "layer2.openelb.kubesphere.io/v1alpha1": "node1",
        },
        selector={"app": "web", "a": "b"},
        externalTrafficPolicy="Cluster",
    )
    assert service.protocol is Protocol.LAYER2
    assert (service.wanted_eip, service.pinned_node) == ("layer2-eip", "node1")
    assert service.selector == (("a", "b"), ("app", "web"))


def test_every_field() -> None:
    service = good(
        {
            "eip.porter.kubesphere.io/v1alpha1": "10.0.0.1, 2001:db8::1",
            "share.porter.kubesphere.io/v1alpha1": "k",
            "protocol.porter.kubesphere.io/v1alpha1": "auto",
            "layer2.porter.kubesphere.io/v1alpha1": "new",
            "layer2.openelb.kubesphere.io/v1alpha1": "stale, from before",
        },
        ("10.0.0.9",),
        ports=[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
        ipFamilies=["IPv6", "IPv4"],
        ipFamilyPolicy="RequireDualStack",
        externalTrafficPolicy="Local",
    )
    assert str(service.key) == "ns/web"
    assert (service.uid, service.created, service.resource_version) == ("u", "2026-01-01T00:00:00Z", "77")
    assert (service.generation, service.labels) == (4, {"a": "b"})
    assert service.wanted_addresses == addresses("10.0.0.1", "2001:db8::1")
    assert (service.sharing_key, service.protocol, service.pinned_node) == ("k", Protocol.AUTO, "new")
    assert service.ports == {Port("UDP", 53), Port("TCP", 53)}
    assert (service.families, service.dual_stack_required) == ((6, 4), True)
    assert service.traffic_policy is TrafficPolicy.LOCAL
    assert service.held == addresses("10.0.0.9")


@pytest.mark.parametrize(
    ("spec", "families"),
    [
        ({}, (4,)),
        ({"ipFamilies": ["IPv6"]}, (6,)),
        ({"ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"}, (4,)),  # the cluster has one family
        ({"ipFamilyPolicy": "PreferDualStack"}, (4, 6)),
        ({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, (6, 4)),
        ({"loadBalancerIP": "2001:db8::1"}, (6,)),
    ],
)
def test_families(spec: dict[str, Any], families: tuple[int, ...]) -> None:
    assert good(**spec).families == families


def test_an_address_asked_for_in_spec_or_annotation() -> None:
    key = "eip.openelb.kubesphere.io/v1alpha1"
    assert good(loadBalancerIP="10.0.0.5").wanted_addresses == addresses("10.0.0.5")
    parsed = parse({key: "10.0.0.6"}, loadBalancerIP="10.0.0.5")
    assert parsed.value is not None
    assert parsed.value.wanted_addresses == addresses("10.0.0.6")
    assert not parsed.problems[0].fatal
    both = parse({key: "10.0.0.6", "eip.porter.kubesphere.io/v1alpha1": "10.0.0.7"})
    assert both.value is not None
    assert both.value.wanted_addresses == addresses("10.0.0.7")
    assert "is ignored" in both.problems[0].message


def test_a_wrong_wish_is_fatal_only_for_a_service_without_an_address() -> None:
    key = "eip.porter.kubesphere.io/v1alpha1"
    new = parse({key: "10.0.0.300"})
    assert new.value is None
    assert str(new.problems[0]) == f'metadata.annotations[{key}]: "10.0.0.300" is not an IP address.'
    serving = parse({key: "10.0.0.300"}, ("10.0.0.1",))
    assert serving.value is not None
    assert serving.value.wanted_addresses == ()
    assert serving.value.held == addresses("10.0.0.1")
    assert not serving.problems[0].fatal


@pytest.mark.parametrize(
    ("annotations", "spec", "reason", "words"),
    [
        ({"protocol.porter.kubesphere.io/v1alpha1": "vip"}, {}, Reason.UNSUPPORTED_FIELD, '"vip" is not supported'),
        ({"protocol.porter.kubesphere.io/v1alpha1": "x"}, {}, Reason.INVALID_FIELD, "not one of auto, bgp, layer2"),
        ({"eip.porter.kubesphere.io/v1": "x"}, {}, Reason.UNSUPPORTED_FIELD, "not a known annotation of a Service"),
        ({}, {"loadBalancerIP": "2001:db8::1", "ipFamilies": ["IPv4"]}, Reason.FAMILY_UNAVAILABLE, "is not of the"),
        ({}, {"loadBalancerIP": "10.0.0.1,10.0.0.2"}, Reason.INVALID_ADDRESS, "10.0.0.2 is ignored"),
        ({}, {"ipFamilies": ["IPv5", "IPv4"]}, Reason.INVALID_FIELD, '"IPv5" is neither'),
        ({}, {"externalTrafficPolicy": "Any"}, Reason.INVALID_FIELD, "treated as Cluster"),
        ({}, {"ports": [{"port": 0}]}, Reason.INVALID_FIELD, "is not a port"),
    ],
)  # fmt: skip
def test_warnings(annotations: dict[str, str], spec: dict[str, Any], reason: Reason, words: str) -> None:
    parsed = parse(annotations, **spec)
    assert parsed.value is not None
    (problem,) = parsed.problems
    assert (problem.reason, problem.fatal) == (reason, False)
    assert words in str(problem)


# --- Node ------------------------------------------------------------------------------------------------------------


def test_node() -> None:
    parsed = parse_node(
        {
            "metadata": {"name": "n1", "labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}},
            "spec": {"unschedulable": True, "taints": [{"key": "node.kubernetes.io/out-of-service"}]},
            "status": {
                "addresses": [
                    {"type": "Hostname", "address": "n1"},
                    {"type": "InternalIP", "address": "10.0.0.1"},
                    {"type": "InternalIP", "address": "2001:db8::1"},
                    {"type": "InternalIP", "address": "nonsense"},
                ],
                "conditions": [
                    {"type": "NetworkUnavailable", "status": "True"},
                    {"type": "Ready", "status": "False"},
                ],
            },
        }
    )  # fmt: skip
    node = parsed.value
    assert node is not None
    assert node.addresses == addresses("10.0.0.1", "2001:db8::1")
    assert node.ready is Ready.FALSE
    assert node.network_unavailable
    assert node.excluded
    assert node.out_of_service
    assert node.cordoned
    assert [problem.fatal for problem in parsed.problems] == [False]


@pytest.mark.parametrize(
    ("conditions", "ready"),
    [
        ([], Ready.TRUE),
        ([{"type": "Ready", "status": "True"}], Ready.TRUE),
        ([{"type": "Ready", "status": "Unknown"}], Ready.UNKNOWN),
        ([{"type": "Ready"}], Ready.UNKNOWN),
    ],
)
def test_readiness(conditions: list[dict[str, str]], ready: Ready) -> None:
    node = parse_node({"metadata": {"name": "n"}, "status": {"conditions": conditions}}).value
    assert node is not None
    assert node.ready is ready
    assert not (node.excluded or node.out_of_service or node.cordoned or node.network_unavailable)


# --- EndpointSlice ---------------------------------------------------------------------------------------------------


def slice_(*endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    labels = {"kubernetes.io/service-name": "web"}
    return {
        "metadata": {"name": "web-x", "namespace": "ns", "labels": labels},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        **more,
    }


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (None, Endpoint("n")),
        ({}, Endpoint("n")),
        ({"ready": None}, Endpoint("n")),
        ({"ready": False}, Endpoint("n", ready=False, serving=False)),
        ({"ready": False, "serving": True, "terminating": True}, Endpoint("n", False, True, True)),
        ({"ready": True, "serving": True, "terminating": False}, Endpoint("n")),
    ],
)
def test_conditions_as_the_api_defines_them(conditions: dict[str, Any] | None, expected: Endpoint) -> None:
    found = parse_endpoint_slice(slice_({"nodeName": "n", "addresses": ["10.1.0.1"], "conditions": conditions}))
    assert found == (("ns", "web"), (replace(expected, version=4),))


@pytest.mark.parametrize(
    ("hints", "same"),
    [
        ({"forNodes": [{"name": "n"}]}, True),
        ({"forNodes": [{"name": "m"}, {"name": "n"}], "forZones": [{"name": "z"}]}, True),
        ({"forNodes": [{"name": "m"}]}, False),
        ({"forZones": [{"name": "n"}]}, False),
        ({"forNodes": "n"}, False),
        ({"forNodes": [{}, 7]}, False),
        (None, False),
    ],
)
def test_hints_for_the_own_node(hints: object, same: bool) -> None:
    found = parse_endpoint_slice(slice_({"nodeName": "n", "addresses": ["10.1.0.1"], "hints": hints}))
    assert found is not None and [endpoint.same_node for endpoint in found[1]] == [same]


def test_slices_are_merged_into_one_value_whatever_their_order() -> None:
    one = parse_endpoint_slice(slice_({"nodeName": "b"}, {"nodeName": "a"}, {"nodeName": "a"}))
    two = parse_endpoint_slice(slice_({"nodeName": "a", "conditions": {"ready": False}}, {}))
    assert one is not None
    assert two is not None
    merged = merge([one[1], two[1]])
    assert merged == merge([two[1], one[1]])
    assert [endpoint.node for endpoint in merged] == ["", "a", "a", "b"]


def test_slices_of_nobody_and_of_names() -> None:
    assert parse_endpoint_slice({"metadata": {"name": "x", "namespace": "ns"}, "endpoints": [{}]}) is None
    assert parse_endpoint_slice(slice_({"nodeName": "a"}, addressType="FQDN")) == (("ns", "web"), ())
