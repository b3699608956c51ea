"""BgpPeer and BgpConf objects as users write them, including OpenELB's, and the messages about wrong ones."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from porterlb.core.model import BgpConf, DynamicAs, Peer, RouteAttributes
from porterlb.core.parse import parse_conf, parse_peer
from porterlb.core.problems import Reason

CONF = {"peerAs": 65001, "neighborAddress": "192.168.0.5"}


def obj(spec: dict[str, Any], name: str = "router") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u", "generation": 2}, "spec": spec}


def good(**spec: Any) -> Peer:
    parsed = parse_peer(obj({"conf": CONF, **spec}))
    assert not [problem for problem in parsed.problems if problem.reason is not Reason.UNSUPPORTED_FIELD]
    assert parsed.value is not None
    return parsed.value


def good_conf(**spec: Any) -> BgpConf:
    parsed = parse_conf(obj({"as": 65000, **spec}, "default"))
    assert {problem.field for problem in parsed.problems} <= {"spec.routerId"}
    assert parsed.value is not None
    return parsed.value


def test_the_least_that_openelb_needs() -> None:
    peer = good()
    assert peer == Peer("router", ip_address("192.168.0.5"), 65001, uid="u", generation=2)
    assert peer.families == (4, 6)
    assert peer.hold_time == 9


def test_openelb_peer_with_add_path_for_a_rack() -> None:
    peer = good(
        afiSafis=[
            {
                "config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": True},
                "addPaths": {"config": {"sendMax": 10}},
            }
        ],
        nodeSelector={"matchLabels": {"openelb.kubesphere.io/rack": "leaf1"}},
    )
    assert (peer.families, peer.add_path) == ((4,), 10)
    assert peer.node_selector is not None
    assert peer.node_selector.matches({"openelb.kubesphere.io/rack": "leaf1"})
    assert not peer.node_selector.matches({})


def test_every_field() -> None:
    peer = good(
        conf={
            "peerAs": 4200000001,
            "localAs": 65010,
            "neighborAddress": "2001:db8::1",
            "description": "leaf 1",
            "authPasswordSecret": {"name": "bgp", "key": "leaf1"},
            "adminDown": True,
        },
        ebgpMultihop={"enabled": True, "multihopTtl": 3},
        timers={"config": {"holdTime": "30", "keepaliveInterval": 10, "connectRetry": "5"}},
        transport={"passiveMode": True, "remotePort": 1790, "localAddress": "2001:db8::2"},
        gracefulRestart={"enabled": True, "restartTime": 120},
        afiSafis=[
            {"config": {"family": {"afi": "AFI_IP6", "safi": "SAFI_UNICAST"}}},
            {"config": {"family": {"afi": "AFI_IP"}, "enabled": False}, "addPaths": {"config": {"sendMax": 4}}},
        ],
    )
    assert (peer.address, peer.peer_as, peer.local_as) == (ip_address("2001:db8::1"), 4200000001, 65010)
    assert (peer.description, peer.password, peer.password_secret) == ("leaf 1", "", ("bgp", "leaf1"))
    assert peer.admin_down
    assert (peer.multihop_ttl, peer.hold_time, peer.keepalive, peer.connect_retry) == (3, 30, 10, 5)
    assert (peer.passive, peer.remote_port, peer.local_address) == (True, 1790, ip_address("2001:db8::2"))
    assert (peer.graceful_restart, peer.families, peer.add_path) == (120, (6,), 0)


def test_what_absent_and_zero_mean() -> None:
    assert good(ebgpMultihop={"enabled": True}).multihop_ttl == 255
    assert good(ebgpMultihop={"enabled": False, "multihopTtl": 3}).multihop_ttl == 0
    assert good(gracefulRestart={"enabled": False, "restartTime": 9}).graceful_restart == 0
    assert good(gracefulRestart={"enabled": True}).graceful_restart == BgpConf().graceful_restart
    assert good().graceful_restart is None
    assert good(transport={"remotePort": 0, "localAddress": "0.0.0.0"}).remote_port == 179
    assert good(conf={**CONF, "authPasswordSecret": {"name": "bgp"}}).password_secret == ("bgp", "password")


@pytest.mark.parametrize(("field", "name"), [("localPref", "local_pref"), ("med", "med"), ("asPathPrepend", "prepend")])
def test_an_attribute_of_zero_is_not_an_attribute_that_is_absent(field: str, name: str) -> None:
    parsed = parse_peer(obj({"conf": CONF, "advertise": [{field: 0}, {}]}))
    assert not parsed.problems and parsed.value is not None
    zero, absent = parsed.value.advertise
    assert getattr(zero.attributes, name) == 0
    assert getattr(absent.attributes, name) == (0 if field == "asPathPrepend" else None)


def test_advertise_rules() -> None:
    peer = good(
        advertise=[
            {
                "eips": ["a", "b"],
                "eipSelector": {"matchLabels": {"x": "y"}},
                "serviceSelector": {"matchExpressions": [{"key": "k", "operator": "Exists"}]},
                "communities": ["64500:007", "no-export", "GRACEFUL_SHUTDOWN", "no-export"],
                "largeCommunities": ["4200000000:1:2"],
                "localPref": 200,
                "med": 0,
                "asPathPrepend": 3,
            },
            {},
        ]
    )
    rule, rest = peer.advertise
    assert rule.eips == {"a", "b"}
    assert rule.eip_selector is not None
    assert rule.eip_selector.matches({"x": "y"})
    assert rule.service_selector is not None
    assert rule.service_selector.matches({"k": ""})
    assert rule.attributes == RouteAttributes(
        ("64500:7", "no-export", "65535:0"), ("4200000000:1:2",), local_pref=200, med=0, prepend=3
    )
    assert (rest.eips, rest.eip_selector, rest.attributes) == (frozenset(), None, RouteAttributes())


FATAL: list[tuple[dict[str, Any], Reason, str]] = [
    ({"conf": {"peerAs": 1}}, Reason.MISSING_FIELD, "spec.conf.neighborAddress: is missing"),
    ({"conf": {"neighborAddress": "10.0.0.1"}}, Reason.MISSING_FIELD, "spec.conf.peerAs: is missing"),
    ({"conf": {**CONF, "neighborAddress": "fe80::77:1"}}, Reason.INVALID_ADDRESS, "is a link-local address: set spec"),
    ({"conf": {**CONF, "neighborAddress": "fd00::1%eth0"}}, Reason.INVALID_ADDRESS, "is not a link-local address"),
    ({"conf": {**CONF, "peerAs": 23456}}, Reason.INVALID_FIELD, "AS_TRANS"),
    ({"advertise": [{"communities": ["4200000001:100"]}]}, Reason.INVALID_FIELD, "largeCommunities (a:b:c)"),
    ({"advertise": [{"communities": ["no_such"]}]}, Reason.INVALID_FIELD, "nor one of accept-own"),
    ({"conf": {**CONF, "neighborAddress": "leaf1"}}, Reason.INVALID_ADDRESS, '"leaf1" is not the IP address'),
    ({"conf": {**CONF, "peerAs": 2**32}}, Reason.INVALID_FIELD, "out of range: it must be 0 to 4294967295"),
    ({"conf": {**CONF, "authPasswordSecret": {}}}, Reason.MISSING_FIELD, "spec.conf.authPasswordSecret.name"),
    ({"timers": {"config": {"holdTime": "2"}}}, Reason.INVALID_FIELD, "it must be 3 or more, or 0 for none"),
    ({"timers": {"config": {"holdTime": "9s"}}}, Reason.INVALID_FIELD, '"9s" is not a whole number.'),
    ({"timers": {"config": {"keepaliveInterval": 9}}}, Reason.INVALID_FIELD, "9 s must be below holdTime (9 s)"),
    ({"transport": {"localAddress": "2001:db8::1"}}, Reason.INVALID_ADDRESS, "is IPv6, but the router is 192.168.0.5."),
    ({"ttlSecurity": {"enabled": True, "ttlMin": 256}}, Reason.INVALID_FIELD, "spec.ttlSecurity.ttlMin: 256 is out"),
    (
        {"ttlSecurity": {"enabled": True}, "ebgpMultihop": {"enabled": True}},
        Reason.MISSING_FIELD,
        "spec.ttlSecurity.ttlMin: is missing: with ebgpMultihop, write 255 less the number of routers in between.",
    ),
    (
        {"ttlSecurity": {"enabled": True, "ttlMin": 253}, "ebgpMultihop": {"enabled": True, "multihopTtl": 2}},
        Reason.INVALID_FIELD,
        "spec.ttlSecurity: needs ebgpMultihop.multihopTtl to be 255 or absent",
    ),
    ({"conf": {**CONF, "peerAs": "extern"}}, Reason.INVALID_FIELD, '"extern" is neither an AS number nor external or'),
    ({"advertisePolicy": "all"}, Reason.INVALID_FIELD, '"all" is neither first nor union'),
    (
        {"advertisePolicy": "union", "advertise": [{"med": 1}, {}, {"med": 2}]},
        Reason.INVALID_FIELD,
        "advertise[0] and advertise[2] have different values of med and may match the same address",
    ),
    ({"maxPrefixesSent": -1}, Reason.INVALID_FIELD, "spec.maxPrefixesSent: -1 is out of range"),
    ({"transport": {"remotePort": 70000}}, Reason.INVALID_FIELD, "spec.transport.remotePort: 70000 is out of range"),
    ({"afiSafis": [{}]}, Reason.MISSING_FIELD, "spec.afiSafis[0].config.family.afi: is missing"),
    ({"advertise": [{"communities": ["70000:1"]}]}, Reason.INVALID_FIELD, "spec.advertise[0].communities: \"70000:1\""),
    ({"advertise": [{"largeCommunities": ["1:2"]}]}, Reason.INVALID_FIELD, "is not a large community a:b:c"),
    ({"advertise": [{"asPathPrepend": 17}]}, Reason.INVALID_FIELD, "0 to 16"),
    ({"advertise": ["all"]}, Reason.INVALID_FIELD, "spec.advertise[0]: \"all\" is not an object."),
    ({"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "="}]}}, Reason.INVALID_FIELD, "not one of In,"),
    ({"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}, Reason.MISSING_FIELD, "at least one"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "reason", "words"), FATAL, ids=lambda v: str(v)[:40])
def test_wrong_ones(spec: dict[str, Any], reason: Reason, words: str) -> None:
    parsed = parse_peer(obj({"conf": CONF, **spec}))
    assert parsed.value is None
    (problem,) = [problem for problem in parsed.problems if problem.fatal]
    assert problem.reason is reason
    assert words in str(problem)


WARNED: list[tuple[dict[str, Any], Reason, str]] = [
    ({"conf": {**CONF, "authPassword": "hunter2"}}, Reason.PLAIN_PASSWORD, "Put it into a Secret"),
    ({"conf": {**CONF, "vrf": "red"}}, Reason.UNSUPPORTED_FIELD, "spec.conf.vrf: is not supported"),
    ({"timers": {"config": {"holdTime": 0}}}, Reason.INVALID_FIELD, "With 0, BGP does not detect"),
    ({"timers": {"config": {"minimumAdvertisementInterval": "5"}}}, Reason.UNSUPPORTED_FIELD, "is not supported"),
    ({"transport": {"tcpMss": 1400}}, Reason.UNSUPPORTED_FIELD, "spec.transport.tcpMss: is not supported"),
    ({"gracefulRestart": {"enabled": True, "mode": "x"}}, Reason.UNSUPPORTED_FIELD, "spec.gracefulRestart.mode"),
    ({"advertise": [{"aggregateOnly": False}]}, Reason.INVALID_FIELD, "has no effect without aggregationLength"),
    ({"bdf": True}, Reason.UNSUPPORTED_FIELD, "spec.bdf: is not a known field and has no effect."),
]


@pytest.mark.parametrize(("spec", "reason", "words"), WARNED, ids=lambda v: str(v)[:40])
def test_warnings(spec: dict[str, Any], reason: Reason, words: str) -> None:
    parsed = parse_peer(obj({"conf": CONF, **spec}))
    assert parsed.value is not None
    (problem,) = parsed.problems
    assert (problem.reason, problem.fatal) == (reason, False)
    assert words in str(problem)


def test_other_families_are_left_out_with_a_word() -> None:
    evpn = {"config": {"family": {"afi": "AFI_L2VPN", "safi": "SAFI_EVPN"}}}
    parsed = parse_peer(obj({"conf": CONF, "afiSafis": [evpn, {"config": {"family": {"afi": "AFI_IP"}}}]}))
    assert parsed.value is not None
    assert parsed.value.families == (4,)
    assert "AFI_L2VPN/SAFI_EVPN is not supported" in parsed.problems[0].message
    alone = parse_peer(obj({"conf": CONF, "afiSafis": [evpn]}))
    assert alone.value is None
    assert "leaves no address family" in alone.problems[-1].message


@pytest.mark.parametrize("password", ["s3cret\n" * 2, "s3cret" * 20, ["s3cret"]], ids=["line", "long", "list"])
def test_a_password_is_never_repeated(password: Any) -> None:
    conf = {**CONF, "authPassword": password, "authPasswordSecret": {"name": "x"}}
    parsed = parse_peer(obj({"conf": conf}))
    assert parsed.value is None
    assert not any("s3cret" in str(problem) for problem in parsed.problems)
    accepted = parse_peer(obj({"conf": {**CONF, "authPassword": "s3cret"}})).value
    assert accepted is not None
    assert accepted.password == "s3cret"
    assert "s3cret" not in repr(accepted)


# --- BgpConf ---------------------------------------------------------------------------------------------------------


def test_openelb_conf() -> None:
    conf = good_conf(listenPort=17900, routerId="192.168.0.2")
    assert conf == BgpConf(65000, {}, ip_address("192.168.0.2"), 17900, generation=2)  # type: ignore[arg-type]
    assert good_conf(listenPort=-1).listen_port == 0
    assert good_conf(asPerRack={"leaf1": 65001}).as_per_rack == {"leaf1": 65001}
    named = good_conf(communities={"east": "64500:01", "wide": "1:2:4200000000", "leave": "graceful-shutdown"})
    assert named.communities == {"east": "64500:1", "wide": "1:2:4200000000", "leave": "65535:0"}
    assert good_conf(gracefulRestart={"enabled": False}).graceful_restart == 0
    assert good_conf(listenAddresses=["10.0.0.1", "2001:db8::1"]).listen_addresses == (
        ip_address("10.0.0.1"),
        ip_address("2001:db8::1"),
    )


@pytest.mark.parametrize(
    ("spec", "name", "words"),
    [
        ({"as": 1}, "other", 'metadata.name: "other" is not used'),
        ({"as": -1}, "default", "out of range"),
        (
            {"as": 1, "communities": {"no-export": "1:1"}},
            "default",
            "communities.no-export: is not a name for a comm",
        ),
        ({"as": 1, "communities": {"East": "1:1"}}, "default", "spec.communities.East: is not a name for a community"),
        (
            {"as": 1, "communities": {"east": "1:70000"}},
            "default",
            'spec.communities.east: "1:70000" is neither a co',
        ),
        ({"as": 1, "communities": {"east": 7}}, "default", "spec.communities.east: 7 is neither a community"),
        ({"as": 1, "asPerRack": {"leaf1": 0}}, "default", "spec.asPerRack.leaf1: 0 is out of range: it must be 1 to"),
        ({"as": 1, "asPerRack": {"\n": False}}, "default", 'spec.asPerRack."\\n": false is not a whole number'),
        ({"as": 1, "asPerRack": {"x" * 64: 1}}, "default", "is not the value of a label: it has 1 to 63 characters"),
        ({"as": 1, "communities": ["east"]}, "default", "spec.communities: a list is not an object"),
        ({"as": 1, "routerId": "2001:db8::1"}, "default", "is not an IPv4 address"),
        ({"as": 1, "listenAddresses": ["all"]}, "default", '"all" is not an IP address.'),
        ({"as": 1, "listenPort": 1 << 16}, "default", "spec.listenPort"),
    ],
)
def test_wrong_confs(spec: dict[str, Any], name: str, words: str) -> None:
    parsed = parse_conf(obj(spec, name))
    assert parsed.value is None
    assert words in str(parsed.problems[0])


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "only BgpPeers with a localAs of their own"),
        ({"as": 1, "policy": "x"}, "use advertise of BgpPeers"),
        ({"as": 1, "useMultiplePaths": True}, "routes that peers send are never used"),
    ],
)
def test_conf_warnings(spec: dict[str, Any], words: str) -> None:
    parsed = parse_conf(obj(spec, "default"))
    assert parsed.value is not None
    (problem,) = parsed.problems
    assert not problem.fatal
    assert words in str(problem)


def test_a_keepalive_interval_has_an_effect_up_to_a_third_of_the_hold_time() -> None:
    def problems(**timers: int) -> list[tuple[str, bool]]:
        parsed = parse_peer(obj({"conf": CONF, "timers": {"config": timers}}))
        assert parsed.value is not None
        assert (parsed.value.keepalive, parsed.value.connect_retry) == (
            timers.get("keepaliveInterval", 0),
            timers.get("connectRetry", 0),
        )
        return [(p.field, p.fatal) for p in parsed.problems]

    assert problems(holdTime=30, keepaliveInterval=7) == []
    assert problems(holdTime=30, keepaliveInterval=10) == []
    assert problems(holdTime=30, keepaliveInterval=11) == [("spec.timers.config.keepaliveInterval", False)]
    assert problems(connectRetry=5) == []


def test_rules_for_nodes_with_named_communities_in_a_union() -> None:
    peer = good(
        advertisePolicy="union",
        advertise=[
            {"nodeSelector": {"matchLabels": {"rack": "a"}}, "communities": ["east", "no-export", "east"], "med": 1},
            {"med": 1},
        ],
    )
    rule, _ = peer.advertise
    assert peer.advertise_union
    assert rule.node_selector is not None
    assert rule.node_selector.matches({"rack": "a"})
    assert (rule.community_names, rule.attributes.communities) == (("east",), ("no-export",))
    assert not good(advertisePolicy="first").advertise_union
    assert not good().advertise_union


def test_the_as_of_a_router_by_kind() -> None:
    for kind in DynamicAs:
        peer = good(conf={**CONF, "peerAs": kind.value})
        assert (peer.peer_as, peer.dynamic) == (0, kind)
    assert good().dynamic is None


def test_a_limit_of_prefixes() -> None:
    assert good().max_prefixes == 0
    assert good(maxPrefixesSent=100).max_prefixes == 100


def test_ttl_security() -> None:
    assert good().minimum_ttl == 0
    assert good(ttlSecurity={"enabled": True}).minimum_ttl == 255
    assert good(ttlSecurity={"enabled": True, "ttlMin": 254}).minimum_ttl == 254
    assert good(ttlSecurity={"enabled": False, "ttlMin": 254}).minimum_ttl == 0
    far = good(ttlSecurity={"enabled": True, "ttlMin": 250}, ebgpMultihop={"enabled": True})
    assert (far.minimum_ttl, far.multihop_ttl) == (250, 255)


def test_well_known_communities_in_each_spelling() -> None:
    names = ["no_export", "NO-EXPORT", "local-as", "graceful_shutdown", "65535:666"]
    peer = parse_peer(obj({"conf": CONF, "advertise": [{"communities": names}], "routerPerNode": True})).value
    assert peer is not None and peer.router_per_node
    assert peer.advertise[0].attributes.communities == ("no-export", "no-export-subconfed", "65535:0", "65535:666")
