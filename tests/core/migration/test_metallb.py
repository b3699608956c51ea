"""Conversion of MetalLB's objects: pools, advertisements, peers, and objects without a counterpart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.migration.metallb import LAST, convert
from porterlb.core.migration.value import Conversion, Weight
from porterlb.core.parse import parse_peer


def obj(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "metallb.io/v1beta1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}


def pool(name: str = "p", **spec: Any) -> dict[str, Any]:
    return obj("IPAddressPool", name, {"addresses": ["10.0.0.0/28"], **spec}, labels={"pool": name})


def peer(name: str = "r", **spec: Any) -> dict[str, Any]:
    return obj("BGPPeer", name, {"myASN": 64512, "peerASN": 64500, "peerAddress": "10.0.0.1", **spec})


def only(made: Conversion, kind: str, name: str = "") -> dict[str, Any]:
    (found,) = (m["spec"] for m in made.manifests if m["kind"] == kind and name in ("", m["metadata"]["name"]))
    spec: dict[str, Any] = found
    return spec


def lost(made: Conversion) -> list[str]:
    return [str(remark) for remark in made.remarks if remark.weight is Weight.LOST]


@pytest.mark.parametrize(
    ("advertisements", "protocol", "remarks"),
    [
        ([obj("L2Advertisement", "a", {})], "layer2", 0),
        ([obj("BGPAdvertisement", "a", {})], "bgp", 0),
        ([obj("L2Advertisement", "a", {}), obj("BGPAdvertisement", "b", {})], "auto", 1),
        ([], "auto", 1),
        ([obj("L2Advertisement", "a", {"ipAddressPools": ["other"]})], "auto", 1),
        ([obj("L2Advertisement", "a", {"ipAddressPools": ["p"]})], "layer2", 0),
        ([obj("L2Advertisement", "a", {"ipAddressPoolSelectors": [{"matchLabels": {"pool": "p"}}]})], "layer2", 0),
        ([obj("L2Advertisement", "a", {"ipAddressPoolSelectors": [{"matchLabels": {"pool": "q"}}]})], "auto", 1),
        (
            [
                obj(
                    "BGPAdvertisement",
                    "a",
                    {
                        "ipAddressPoolSelectors": [
                            {"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["q"]}]}
                        ]
                    },
                )
            ],
            "bgp",
            0,
        ),
    ],
)
def test_the_protocol_follows_the_advertisements(
    advertisements: list[dict[str, Any]], protocol: str, remarks: int
) -> None:
    made = convert([pool(), *advertisements])
    assert only(made, "Eip") == {"address": "10.0.0.0/28", "protocol": protocol}
    assert len(made.remarks) == remarks


def test_allocation_of_a_pool() -> None:
    made = convert(
        [
            obj("L2Advertisement", "a", {}),
            pool(
                "a",
                addresses=["10.0.0.0/28", "10.0.1.1-10.0.1.9"],
                autoAssign=False,
                avoidBuggyIPs=True,
                serviceAllocation={
                    "priority": 7,
                    "namespaces": ["x"],
                    "namespaceSelectors": [{"matchLabels": {"a": "b"}}],
                    "serviceSelectors": [{"matchLabels": {"a": "b"}}, {"matchLabels": {"c": "d"}}],
                },
            ),
            pool("b", serviceAllocation={"namespaces": ["y"]}),
        ]
    )
    assert only(made, "Eip", "a") == {
        "address": "10.0.0.0/28,10.0.1.1-10.0.1.9",
        "protocol": "layer2",
        "autoAssign": False,
        "avoidNetworkAddresses": True,
        "priority": 7,
        "namespaces": ["x"],
        "namespaceSelector": {"matchLabels": {"a": "b"}},
    }
    assert only(made, "Eip", "b")["priority"] == LAST
    assert lost(made) == [
        "IPAddressPool a: not converted: serviceSelectors has 2 selectors, and an Eip has one. Write one Eip for each."
    ]


def test_a_router_id_is_an_override_of_all_nodes() -> None:
    made = convert([peer(routerID="10.0.0.9")])
    assert only(made, "BgpPeer")["overrides"] == [{"routerId": "10.0.0.9"}] and not lost(made)


def advertised(*specs: dict[str, Any]) -> Conversion:
    return convert([pool(), *(obj("L2Advertisement", f"l{at}", spec) for at, spec in enumerate(specs))])


A, B = {"matchLabels": {"rack": "a"}}, {"matchLabels": {"rack": "b"}}


def test_interfaces_and_node_selectors_of_layer_2_are_kept() -> None:
    made = advertised({"interfaces": ["eth1"], "nodeSelectors": [A, B]})
    assert only(made, "Eip")["layer2"] == {"interfaces": ["eth1"], "nodeSelectors": [A, B]} and not made.remarks
    made = advertised({"interfaces": ["eth1"]}, {"interfaces": ["eth1", "eth2"]})
    assert only(made, "Eip")["layer2"] == {"interfaces": ["eth1", "eth2"]} and not lost(made)
    assert "PorterLB on the first that is on the VIP's subnet" in str(made.remarks[0])


def test_an_advertisement_without_a_list_allows_every_interface_and_node() -> None:
    assert "layer2" not in only(advertised({}, {"interfaces": ["eth1"], "nodeSelectors": [A]}), "Eip")
    assert only(advertised({"nodeSelectors": [A]}, {"nodeSelectors": [B, A]}), "Eip")["layer2"] == {
        "nodeSelectors": [A, B]
    }


def test_interfaces_of_certain_nodes_are_named() -> None:
    made = advertised({"interfaces": ["eth1"], "nodeSelectors": [A]}, {"interfaces": ["eth2"], "nodeSelectors": [B]})
    assert only(made, "Eip")["layer2"] == {"interfaces": ["eth1", "eth2"], "nodeSelectors": [A, B]}
    assert any(
        "L2Advertisement l0, L2Advertisement l1: each has interfaces for its own nodes" in str(r) for r in made.remarks
    )


def test_a_peer_with_all_that_has_a_counterpart() -> None:
    made = convert(
        [
            peer(
                holdTime="1m30s",
                keepaliveTime="1500ms",
                peerPort=1179,
                sourceAddress="10.0.0.9",
                ebgpMultiHop=True,
                enableGracefulRestart=True,
                passwordSecret={"name": "pw"},
                nodeSelectors=[{"matchLabels": {"rack": "1"}}],
                bfdProfile="fast",
            ),
            obj("BFDProfile", "fast", {"receiveInterval": 50, "detectMultiplier": 4, "minimumTtl": 250}),
            obj("BGPAdvertisement", "all", {}),
        ]
    )
    assert only(made, "BgpConf") == {"as": 64512}
    assert only(made, "BgpPeer") == {
        "conf": {
            "neighborAddress": "10.0.0.1",
            "peerAs": 64500,
            "authPasswordSecret": {"name": "pw", "key": "password"},
        },
        "timers": {"config": {"holdTime": 90, "keepaliveInterval": 2}},
        "transport": {"remotePort": 1179, "localAddress": "10.0.0.9"},
        "ebgpMultihop": {"enabled": True},
        "gracefulRestart": {"enabled": True},
        "nodeSelector": {"matchLabels": {"rack": "1"}},
        "bfd": {"enabled": True, "minReceive": 50, "minTransmit": 300, "detectMultiplier": 4, "minimumTtl": 250},
    }
    assert [remark.weight for remark in made.remarks] == [Weight.TODO]


def test_another_own_as_of_one_peer() -> None:
    made = convert([peer("a"), peer("b"), peer("c", myASN=65000), obj("BGPAdvertisement", "all", {})])
    assert only(made, "BgpConf") == {"as": 64512}
    assert only(made, "BgpPeer", "c")["conf"]["localAs"] == 65000
    assert "localAs" not in only(made, "BgpPeer", "a")["conf"]


def test_rules_of_peers() -> None:
    names = obj("Community", "c", {"communities": [{"name": "vpn", "value": "1234:1"}]})
    rule = {"communities": ["vpn", "65535:65281", "large:1:2:3"], "localPref": 100}
    first = obj("BGPAdvertisement", "a", {"ipAddressPools": ["a"], "peers": ["r"], **rule})
    rest = obj("BGPAdvertisement", "b", {"ipAddressPools": ["b"]})
    made = convert([pool("a"), pool("b"), peer("r"), peer("s"), names, first, rest])
    assert only(made, "BgpPeer", "r")["advertise"] == [
        {"eips": ["a"], "communities": ["1234:1", "65535:65281"], "largeCommunities": ["1:2:3"], "localPref": 100},
        {"eips": ["b"]},
    ]
    assert only(made, "BgpPeer", "s")["advertise"] == [{"eips": ["b"]}]
    assert made.remarks == []


def test_two_advertisements_of_one_pool_are_a_union() -> None:
    made = convert([pool(), peer(), obj("BGPAdvertisement", "a", {}), obj("BGPAdvertisement", "b", {"localPref": 5})])
    assert not made.remarks
    spec = only(made, "BgpPeer")
    assert spec["advertise"] == [{"eips": ["p"]}, {"eips": ["p"], "localPref": 5}]
    assert spec["advertisePolicy"] == "union"
    same = convert([pool(), peer(), obj("BGPAdvertisement", "a", {}), obj("BGPAdvertisement", "b", {})])
    assert "advertise" not in only(same, "BgpPeer")


def test_nodes_and_prefixes_of_an_advertisement() -> None:
    selectors = [{"matchLabels": {"rack": rack}} for rack in "ab"]
    spec = {"nodeSelectors": selectors, "aggregationLength": 24, "aggregationLengthV6": 128}
    made = convert([pool(), peer(), obj("BGPAdvertisement", "a", spec)])
    assert only(made, "BgpPeer")["advertise"] == [
        {"eips": ["p"], "aggregationLength": 24, "nodeSelector": selector} for selector in selectors
    ]
    (remark,) = made.remarks
    assert "externalTrafficPolicy Local keep host routes" in str(remark)


def test_the_interface_of_an_unnumbered_peer() -> None:
    found = peer(interface="eth1")
    del found["spec"]["peerAddress"]
    made = convert([pool(), found])
    assert not lost(made)
    spec = only(made, "BgpPeer")
    assert spec["interface"] == "eth1" and "neighborAddress" not in spec["conf"]
    assert parse_peer({"metadata": {"name": "r"}, "spec": spec}).value is not None


@pytest.mark.parametrize("kind", ["external", "internal"])
def test_the_as_of_a_router_by_kind(kind: str) -> None:
    assert only(convert([pool(), peer(dynamicASN=kind)]), "BgpPeer")["conf"]["peerAs"] == kind


def test_a_peer_without_an_advertisement_announces_nothing() -> None:
    made = convert([pool(), peer(), peer("s"), obj("BGPAdvertisement", "a", {"peers": ["s"]})])
    assert only(made, "BgpPeer", "r")["conf"]["adminDown"] is True
    assert "adminDown" not in only(made, "BgpPeer", "s")["conf"]


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([peer(vrf="red")], "vrf 'red'"),
        ([peer(bfdProfile="none")], "The BFDProfile none is not among the objects"),
        ([peer(nodeSelectors=[{"matchLabels": {}}, {"matchLabels": {}}])], "nodeSelectors has 2 selectors"),
        ([pool(), peer(), obj("BGPAdvertisement", "a", {"communities": ["x"]})], "no Community with the name x"),
        ([pool(), obj("ServiceL2Status", "s", {})], "PorterLB has no such kind."),
    ],
)
def test_what_has_no_counterpart_is_named(objects: list[dict[str, Any]], words: str) -> None:
    assert [line for line in lost(convert(objects)) if words in line]


def test_services_get_a_command_each() -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "annotations": {
                "metallb.universe.tf/address-pool": "p",
                "metallb.io/loadBalancerIPs": "10.0.0.3",
                "a": "b",
            },
        },
        "spec": {"loadBalancerClass": "metallb"},
    }
    assert [str(remark) for remark in convert([pool(), service]).remarks[1:]] == [
        "Service shop/web: to do: kubectl -n shop annotate service web eip.porter.kubesphere.io/v1alpha1=10.0.0.3",
        "Service shop/web: to do: kubectl -n shop annotate service web eip.porter.kubesphere.io/v1alpha2=p",
        "Service shop/web: to do: It has the loadBalancerClass metallb, which cannot be changed: create it again "
        "without the class.",
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["addresses", "serviceAllocation", "ipAddressPools", "interfaces", "nodeSelectors", "communities", "peers",
     "myASN", "peerASN", "holdTime", "passwordSecret", "bfdProfile", "ipAddressPoolSelectors", "localPref"]
)  # fmt: skip
KINDS = st.sampled_from(["IPAddressPool", "L2Advertisement", "BGPAdvertisement", "BGPPeer", "Community", "BFDProfile"])


@given(st.lists(st.tuples(KINDS, st.text(max_size=3), st.dictionaries(FIELDS, JSON, max_size=6)), max_size=5))
def test_any_input_is_converted_without_an_exception(objects: list[tuple[str, str, dict[str, Any]]]) -> None:
    convert(obj(kind, name, spec) for kind, name, spec in objects)
