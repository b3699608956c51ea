"""Regression cases about addresses, each with the correct outcome: which Service may have which, and the messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest

from porterlb.core import membership
from porterlb.core.allocation.reserved import reserved_addresses
from porterlb.core.model import (
    Endpoint,
    Member,
    Node,
    Peer,
    Port,
    Protocol,
    ServiceKey,
    Snapshot,
    TrafficPolicy,
)
from porterlb.core.objects import Objects
from porterlb.core.observed import Nic
from porterlb.core.parse import addresses_elsewhere, class_hint, parse_eip, parse_node, parse_service
from porterlb.core.plan import plan
from porterlb.core.problems import Reason
from porterlb.core.status.build import eip_status, service_status
from tests.core.allocation_world import addresses, eip, got, of, reasons, run, service, written
from tests.core.stage import LAYER2_VIP, MAIL, POLICY, SHOP, situation, snapshot, with_protocol
from tests.core.test_plan import NAMES, cluster

POOL = eip("e", "10.77.0.0-10.77.0.255")
UDP = frozenset({Port("UDP", 80)})
AT = addresses("10.77.0.9")
NODES = {name: Node(name, addresses(f"10.77.0.{number}")) for number, name in enumerate(NAMES, 11)}


def obj(name: str, kind: str = "Service", **parts: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": name, **parts.pop("metadata", {})}
    return {"kind": kind, "metadata": metadata, **parts}


def balancer(name: str = "web", status: Mapping[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return obj(name, metadata=metadata, spec={"type": "LoadBalancer"}, status=dict(status or {}))


def held(*texts: str) -> dict[str, Any]:
    return {"loadBalancer": {"ingress": [{"ip": text} for text in texts]}}


# --- F1


def test_f1_a_nodes_own_address_in_a_status_is_not_taken_over() -> None:
    """A status as k3s' servicelb leaves it."""
    reserved = reserved_addresses(NODES, {}, {})
    result = run([service("web", held=addresses("10.77.0.11"))], [POOL], reserved=reserved)
    assert got(result, "web") == ["10.77.0.0"]


def test_f1_addresses_of_hosts_are_not_given_out() -> None:
    subnets = tuple(ip_interface(text) for text in ("10.77.0.11/24", "10.77.1.11/24", "10.77.0.77/32"))
    member = Member("node-a", "10.77.0.11", 7473, 1, subnets, addresses("10.77.0.1"))
    external = Node("node-b", addresses("10.77.0.12"), other_addresses=addresses("10.77.0.13"))
    peers = {"tor": Peer("tor", ip_address("10.77.0.2"), 64500)}
    reserved = reserved_addresses({"node-b": external}, {"node-a": member}, peers)
    assert {str(address): why for address, why in reserved.items() if address.version == 4} == {
        "10.77.0.2": "is the address of BgpPeer tor",
        "10.77.0.12": "is an address of node node-b",
        "10.77.0.13": "is an address of node node-b",
        "10.77.0.11": "is an address of node node-a",
        "10.77.1.11": "is an address of node node-a",
        "10.77.0.1": "is the gateway of node node-a",
        "10.77.0.0": "is the network address of the connected subnet 10.77.0.0/24",
        "10.77.0.255": "is the broadcast address of the connected subnet 10.77.0.0/24",
        "10.77.1.0": "is the network address of the connected subnet 10.77.1.0/24",
        "10.77.1.255": "is the broadcast address of the connected subnet 10.77.1.0/24",
    }, "a /32 (kube-ipvs0 has one for each VIP) does not count"
    asking = service("web", wanted_addresses=addresses("10.77.0.1"))
    result = run([asking], [POOL], reserved=reserved)
    assert (got(result, "web"), reasons(result, "web")) == ([], [Reason.ADDRESS_RESERVED])
    taken = run([service(f"s{n}") for n in range(252)], [POOL], reserved=reserved)
    assert not set(taken.eips["e"].used) & reserved.keys()
    assert len(taken.eips["e"].used) == 256 - 7 and taken.eips["e"].full
    assert not taken.eips["e"].problems[0].fatal and "10.77.0.1 is the gateway" in taken.eips["e"].problems[0].message


def test_f1_a_vip_that_a_node_acquires_later_is_reported() -> None:
    web = service("web", held=addresses("10.77.0.11"), recorded=addresses("10.77.0.11"))
    before = run([web], [POOL])
    after = run([web], [POOL], before.memory, 1.0, reserved=reserved_addresses(NODES, {}, {}))
    assert got(after, "web") == ["10.77.0.11"], "what we gave out stays"
    (told,) = of(after, "web").refusals
    assert (told.reason, told.fatal) == (Reason.ADDRESS_RESERVED, False)
    assert "10.77.0.11 is an address of node node-a by now" in told.message


def test_f1_the_plan_knows_the_addresses_of_nodes_and_peers() -> None:
    snap = cluster()
    pool = replace(snap.eips["segment"], ranges=eip("x", "10.77.0.1-10.77.0.14").ranges)
    left_behind = replace(snap.services[MAIL], held=addresses("10.77.0.12"))
    snap = replace(snap, eips={"segment": pool}, services={MAIL: left_behind})
    made = plan(snap, None, 0.0, POLICY)
    assert made.services[MAIL].addresses == addresses("10.77.0.2")
    assert not made.vips


# --- F2


def test_f2_a_wish_that_cannot_be_fulfilled_changes_nothing() -> None:
    web = service("web", held=addresses("10.77.0.90"), wanted_addresses=addresses("192.168.7.91"))
    result = run([web], [POOL])
    assert got(result, "web") == ["10.77.0.90"]
    (problem,) = of(result, "web").refusals
    assert (problem.reason, problem.fatal) == (Reason.ADDRESS_NOT_IN_EIP, False)
    assert problem.message.endswith("It keeps 10.77.0.90.")
    corrected = replace(web, wanted_addresses=addresses("10.77.0.91"))
    after = run([corrected], [POOL], result.memory, 1.0)
    assert (got(after, "web"), reasons(after, "web")) == (["10.77.0.91"], [])


def test_f2_the_old_address_stays_until_the_new_one_is_written() -> None:
    web = service("web", held=addresses("10.77.0.90"), wanted_addresses=addresses("10.77.0.91"))
    other = service("other", wanted_addresses=addresses("10.77.0.90"))
    first = run([web, other], [POOL])
    assert (got(first, "web"), of(first, "web").leaving) == (["10.77.0.91"], addresses("10.77.0.90"))
    assert got(first, "other") == []
    again = run([web, other], [POOL], replace(first.memory, context=()), 1.0)
    assert (got(again, "web"), of(again, "web").leaving) == (["10.77.0.91"], addresses("10.77.0.90"))
    done = run([*written([web], again), other], [POOL], again.memory, 2.0)
    assert (got(done, "web"), of(done, "web").leaving, got(done, "other")) == (["10.77.0.91"], (), ["10.77.0.90"])


def test_f2_an_eip_that_is_asked_for_and_full_changes_nothing() -> None:
    pools = [eip("a", "10.0.0.1"), eip("b", "10.0.1.1")]
    web = service("web", held=addresses("10.0.0.1"), wanted_eip="b")
    other = service("other", held=addresses("10.0.1.1"))
    full = run([web, other], pools)
    assert (got(full, "web"), reasons(full, "web")) == (["10.0.0.1"], [Reason.EIP_EXHAUSTED])
    free = run([web], pools, full.memory, 1.0)
    assert got(free, "web") == ["10.0.1.1"]


# --- F3


def test_f3_the_protocol_of_a_service_selects_the_eip() -> None:
    """OpenELB's samples: an Eip without a protocol, an Eip for layer2, and a Service for each."""
    pools = [eip("eip-sample", "139.198.121.228"), eip("eip-sample-layer2", "10.0.0.1", protocol=Protocol.LAYER2)]
    services = [service("layer2", protocol=Protocol.LAYER2), service("bgp", protocol=Protocol.BGP)]
    for order in (services, services[::-1]):
        result = run(order, pools)
        assert (got(result, "layer2"), got(result, "bgp")) == (["10.0.0.1"], ["139.198.121.228"])
    refused = run([services[1]], pools[1:])
    assert "eip-sample-layer2 is of protocol layer2" in of(refused, "bgp").refusals[0].message


def test_f3_an_eip_of_another_protocol_may_be_asked_for() -> None:
    asked = service("web", protocol=Protocol.BGP, wanted_eip="near")
    assert got(run([asked], [eip("near", "10.0.0.1", protocol=Protocol.LAYER2)]), "web") == ["10.0.0.1"]


# --- F4


def test_f4_an_eip_behind_proxy_arp_is_closed_and_says_what_to_do() -> None:
    snap = replace(cluster(), proxies={"02:00:00:00:00:09": frozenset(addresses("10.77.0.220", "10.77.0.222"))})
    fresh = replace(snap.services[MAIL], held=(), wanted_eip="segment")
    made = plan(replace(snap, services={MAIL: fresh}), None, 0.0, POLICY)
    (refusal,) = made.services[MAIL].refusals
    assert refusal.reason is Reason.PROXY_ARP
    assert "02:00:00:00:00:09 answers for every address" in refusal.message and "spec.probe" in refusal.message
    off = replace(snap.eips["segment"], probe=False)
    snap = replace(snap, services={MAIL: fresh}, eips={**snap.eips, "segment": off})
    unprobed = plan(replace(snap, claimed=frozenset(addresses("10.77.0.220"))), None, 0.0, POLICY)
    assert unprobed.services[MAIL].addresses == addresses("10.77.0.220")
    assert not unprobed.wire.check


def test_f4_probe_is_a_field_of_an_eip() -> None:
    found = parse_eip(obj("pool", "Eip", spec={"address": "10.0.0.1", "probe": False}))
    assert found.value is not None and not found.value.probe and not found.problems


# --- F5


def test_f5_endpoint_slices_count_for_their_own_family() -> None:
    snap = cluster()
    both = replace(
        snap.services[MAIL],
        families=(4, 6),
        held=addresses("10.77.0.221", "fd77::1"),
        traffic_policy=TrafficPolicy.LOCAL,
    )
    pool = replace(snap.eips["segment"], ranges=(*snap.eips["segment"].ranges, *eip("x", "fd77::1-fd77::9").ranges))
    endpoints = (Endpoint("node-a", version=4), Endpoint("node-b", version=6))
    snap = replace(snap, eips={**snap.eips, "segment": pool}, services={MAIL: both}, endpoints={MAIL: endpoints})
    made = plan(snap, None, 0.0, POLICY)
    assert made.vips[ip_address("10.77.0.221")].next_hops == ("node-a",)
    assert made.vips[ip_address("fd77::1")].next_hops == ("node-b",)


# --- F6


def test_f6_the_label_that_excludes_every_node_is_named() -> None:
    snap = cluster()
    nodes = {name: replace(node, excluded=True) for name, node in snap.nodes.items()}
    made = plan(replace(snap, nodes=nodes), None, 0.0, POLICY)
    text = str(made.vips[LAYER2_VIP].problems[0])
    assert "No node is usable. node-a, node-b, node-c: each is labelled node.kubernetes.io/exclude-from" in text
    assert "ignore_exclude_label" in text


def test_f6_a_setting_ignores_the_label() -> None:
    node = obj("n", "Node", metadata={"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}})
    kept, ignored = parse_node(node).value, parse_node(node, ignore_exclude_label=True).value
    assert kept is not None and kept.excluded
    assert ignored is not None and not ignored.excluded
    objects = Objects(claim_without_class=True, ignore_exclude_label=True)
    objects.change("Node", node)
    assert not objects.nodes["n"].excluded


# --- F7


def test_f7_the_ends_of_a_connected_subnet_are_not_given_out() -> None:
    member = Member("node-a", "10.77.0.11", 7473, 1, (ip_interface("10.77.0.11/24"), ip_interface("fd77::b/64")))
    reserved = reserved_addresses({}, {"node-a": member}, {})
    result = run([service("web")], [POOL], reserved=reserved)
    assert got(result, "web") == ["10.77.0.1"]
    for text in ("10.77.0.0", "10.77.0.255", "fd77::"):
        assert ip_address(text) in reserved
    routed = run([service("web")], [eip("r", "192.0.2.0-192.0.2.255")], reserved=reserved)
    assert got(routed, "web") == ["192.0.2.0"]
    point_to_point = Member("a", "10.0.0.0", 7473, 1, (ip_interface("10.0.0.0/31"),))
    assert set(reserved_addresses({}, {"a": point_to_point}, {})) == set(addresses("10.0.0.0"))


# --- E5, E6


def test_e5_can_reach_means_the_interface_of_the_route() -> None:
    snap = cluster()
    far = replace(snap.eips["segment"], can_reach=ip_address("8.8.8.8"))
    snap = replace(snap, eips={**snap.eips, "segment": far})
    lost = plan(snap, None, 0.0, POLICY)
    assert lost.vips[LAYER2_VIP].candidates == () and not lost.eips["segment"].layer2_possible
    assert "8.8.8.8 (spec.interface) is behind no interface" in lost.eips["segment"].layer2_reason
    routed = {name: replace(member, gateways=addresses("10.77.0.1")) for name, member in snap.members.items()}
    made = plan(replace(snap, members=routed), None, 0.0, POLICY)
    assert set(made.vips[LAYER2_VIP].candidates) == set(NAMES) and made.eips["segment"].layer2_possible


def test_e5_the_gateways_travel_in_the_membership_lease() -> None:
    member = Member("node-a", "10.77.0.11", 7473, 1, (), addresses("10.77.0.1"))
    assert membership.parse("porterlb-node-a", membership.described(member)).value == member
    broken = {membership.ANNOTATION: membership.described(member)[membership.ANNOTATION].replace('"10.77.0.1"', "7.5")}
    assert membership.parse("porterlb-node-a", broken).value is None


def test_e6_a_subnet_that_each_node_has_for_itself_is_no_segment() -> None:
    snap = cluster()
    docker = (ip_interface("172.17.0.1/16"),)
    members = {name: replace(member, subnets=member.subnets + docker) for name, member in snap.members.items()}
    pool = replace(snap.eips["segment"], ranges=eip("x", "172.17.0.200-172.17.0.210").ranges)
    inside = replace(snap.services[MAIL], held=addresses("172.17.0.201"))
    snap = replace(snap, members=members, eips={**snap.eips, "segment": pool}, services={MAIL: inside})
    made = plan(snap, None, 0.0, POLICY)
    assert not made.vips[ip_address("172.17.0.201")].on_link
    assert "172.17.0.0/16, which is local to each node: it connects nothing but" in made.eips["segment"].layer2_reason
    alone = replace(snap, members={"node-a": members["node-a"]})
    assert plan(alone, None, 0.0, POLICY).vips[ip_address("172.17.0.201")].on_link, "one replica alone cannot know"


def test_e6_a_lease_that_a_renamed_node_left_behind_closes_nothing() -> None:
    snap = cluster()
    left = replace(snap.members["node-a"], node="old-name")
    both = {"old-name": left, "node-a": snap.members["node-a"]}
    assert plan(replace(snap, members=both), None, 0.0, POLICY).vips[LAYER2_VIP].on_link
    nodes = {**snap.nodes, "old-name": replace(snap.nodes["node-a"], name="old-name")}
    assert plan(replace(snap, members=both, nodes=nodes), None, 0.0, POLICY).vips[LAYER2_VIP].on_link


def with_cni0(snap: Snapshot, *, inner: bool = True, third: str = "10.244.3.1/24") -> Snapshot:
    """Each node has its own pod subnet on a bridge; the pool is inside node-a's subnet."""
    subnets = dict(zip(NAMES, ("10.244.1.1/24", "10.244.2.1/24", third), strict=True))
    members = {
        name: replace(
            snap.members[name],
            subnets=(*snap.members[name].subnets, ip_interface(text)),
            inner=(ip_interface(text).network,) if inner else (),
        )
        for name, text in subnets.items()
    }
    pool = replace(snap.eips["segment"], ranges=eip("x", "10.244.1.200-10.244.1.210").ranges)
    held = replace(snap.services[MAIL], held=addresses("10.244.1.201"))
    return replace(snap, members=members, eips={**snap.eips, "segment": pool}, services={MAIL: held})


def test_e6_the_pod_subnet_of_one_node_is_no_segment() -> None:
    vip = ip_address("10.244.1.201")
    made = plan(with_cni0(cluster()), None, 0.0, POLICY)
    assert not made.vips[vip].on_link
    assert "10.244.1.0/24, which is local to each node" in made.eips["segment"].layer2_reason
    physical = plan(with_cni0(cluster(), inner=False), None, 0.0, POLICY)
    assert physical.vips[vip].on_link, "a NIC in a subnet where only one node is (a rack) is one"


def test_e6_a_bridge_is_a_segment_where_nodes_or_a_gateway_are_on_it() -> None:
    vip, snap = ip_address("10.244.1.201"), cluster()
    assert plan(with_cni0(snap, third="10.244.1.3/24"), None, 0.0, POLICY).vips[vip].on_link, "two nodes meet there"
    node = replace(snap.nodes["node-a"], addresses=addresses("10.244.1.1"))
    known = replace(with_cni0(snap), nodes={**snap.nodes, "node-a": node})
    assert plan(known, None, 0.0, POLICY).vips[vip].on_link, "br0 with the InternalIP of the node"
    bridged = with_cni0(snap)
    routed = replace(bridged.members["node-a"], gateways=addresses("10.244.1.254"))
    bridged = replace(bridged, members={**bridged.members, "node-a": routed})
    assert plan(bridged, None, 0.0, POLICY).vips[vip].on_link, "the default route goes through it"


def test_e6_which_interfaces_are_inside_a_node_travels_in_the_membership_lease() -> None:
    nics = [
        Nic("eth0", 2, bytes(6), True, (ip_interface("10.77.0.11/24"), ip_interface("10.77.0.11/32"))),
        Nic("cni0", 3, bytes(6), True, (ip_interface("10.244.1.1/24"),), inner=True),
        Nic("eth1", 4, bytes(6), False),
    ]
    member = membership.member_here("node-a", "10.77.0.11", 7473, nics, (), {"eth0", "eth1", "ens3"})
    assert member.subnets == (ip_interface("10.77.0.11/24"), ip_interface("10.244.1.1/24"))
    assert member.inner == (ip_network("10.244.1.0/24"),) and member.lacks == ("ens3", "eth1")
    assert membership.parse("porterlb-node-a", membership.described(member)).value == member


# --- E2


def on_eth0(snap: Snapshot, *lacking: str) -> Snapshot:
    pool = replace(snap.eips["segment"], interface="eth0")
    members = {name: replace(m, lacks=("eth0",) if name in lacking else ()) for name, m in snap.members.items()}
    return replace(snap, members=members, eips={**snap.eips, "segment": pool})


def test_e2_nodes_without_the_interface_are_no_candidates_and_the_eip_names_them() -> None:
    made = plan(on_eth0(cluster(), "node-b", "node-c"), None, 0.0, POLICY)
    assert made.vips[LAYER2_VIP].candidates == ("node-a",)
    (problem,) = made.eips["segment"].problems
    assert problem.reason is Reason.NO_INTERFACE and not problem.fatal and problem.field == "spec.interface"
    assert problem.message.startswith("node-b, node-c have no interface eth0 that is up")
    every = plan(on_eth0(cluster()), None, 0.0, POLICY)
    assert set(every.vips[LAYER2_VIP].candidates) == set(NAMES) and every.eips["segment"].problems == ()


def test_e2_where_no_node_has_the_interface_the_eip_and_the_service_say_so() -> None:
    made = plan(on_eth0(cluster(), *NAMES), None, 0.0, POLICY)
    assert not made.vips[LAYER2_VIP].on_link and made.vips[LAYER2_VIP].problems[0].reason is Reason.OFF_SEGMENT
    assert not made.eips["segment"].layer2_possible
    assert made.eips["segment"].layer2_reason.startswith("No replica has an interface eth0 that is up")
    assert made.eips["segment"].layer2_reason.endswith(".") and "fallback" not in made.eips["segment"].layer2_reason


def test_e2_an_eip_that_layer2_was_to_stand_in_for_says_that_it_has_no_fallback() -> None:
    snap = with_protocol(on_eth0(cluster(), *NAMES), "segment", Protocol.AUTO)
    made = plan(snap, None, 0.0, POLICY)
    assert made.eips["segment"].layer2_reason.endswith("; it has no fallback when BGP is lost.")


def test_e2_a_service_with_pods_on_nodes_without_the_interface_only_is_told_why() -> None:
    snap = on_eth0(cluster(), "node-b", "node-c")
    local = replace(snap.services[MAIL], traffic_policy=TrafficPolicy.LOCAL)
    snap = replace(
        snap, services={**snap.services, MAIL: local}, endpoints={**snap.endpoints, MAIL: (Endpoint("node-b"),)}
    )
    vip = plan(snap, None, 0.0, POLICY).vips[LAYER2_VIP]
    assert vip.candidates == ()
    assert "None of its next hops (node-b) has an interface eth0 that is up" in vip.problems[0].message


@pytest.mark.parametrize("text", ["eth0,eth1", "en.*,eth0", "eth*", "eth[01]", "^eth", "en.*"])
def test_e2_lists_and_patterns_are_refused(text: str) -> None:
    parsed = parse_eip({"metadata": {"name": "x"}, "spec": {"address": "10.0.0.0/24", "interface": text}})
    assert parsed.value is None and "is a list or a pattern" in parsed.problems[0].message


@pytest.mark.parametrize("text", ["eth0", "bond0.100", "br-lan", "enp3s0f1np1", "vlan_5", "eth0@if3"])
def test_e2_usual_names_are_taken(text: str) -> None:
    parsed = parse_eip({"metadata": {"name": "x"}, "spec": {"address": "10.0.0.0/24", "interface": text}})
    assert parsed.value is not None and parsed.value.interface == text


# --- F9


def test_f9_services_that_share_an_address_elsewhere_keep_it() -> None:
    """OpenELB has no sharing keys."""
    services = [service("a", held=addresses("10.77.0.9")), service("b", held=addresses("10.77.0.9"), ports=UDP)]
    result = run(services, [POOL])
    assert got(result, "a") == got(result, "b") == ["10.77.0.9"]


def test_f9_services_that_cannot_share_keep_it_and_one_is_told() -> None:
    services = [service(name, created=name, held=addresses("10.77.0.9")) for name in ("a", "b")]
    result = run(services, [POOL])
    assert (got(result, "a"), got(result, "b")) == (["10.77.0.9"], [])
    assert of(result, "b").contested == addresses("10.77.0.9")
    (problem,) = of(result, "b").refusals
    assert problem.fatal and "Service ns/a has it" in problem.message and "both use TCP/80" in problem.message
    moved = run([services[0], replace(services[1], wanted_addresses=addresses("10.77.0.10"))], [POOL])
    assert got(moved, "b") == ["10.77.0.10"]


@pytest.mark.parametrize(("changed", "other"), [("a", "b"), ("b", "a")])
@pytest.mark.parametrize(
    "edit",
    [
        {"ports": frozenset({Port("TCP", 80), Port("UDP", 80)})},
        {"traffic_policy": TrafficPolicy.LOCAL, "selector": (("app", "other"),)},
    ],
)
def test_f9_who_changes_so_that_sharing_ends_loses_the_address(changed: str, other: str, edit: dict[str, Any]) -> None:
    """For either order of age, the unchanged Service keeps the address: also once our records show it, and after a
    restart."""
    ports = {"a": frozenset({Port("TCP", 80)}), "b": UDP}
    services = {
        name: service(name, created=name, ports=ports[name], sharing_key="k", held=AT, recorded=AT) for name in ports
    }
    shared = run(services.values(), [POOL])
    assert got(shared, "a") == got(shared, "b") == ["10.77.0.9"]
    ports_both = {"ports": frozenset({Port("TCP", 80), Port("UDP", 80)})}
    services[changed] = replace(services[changed], **(ports_both if "ports" in edit else edit))
    ended = run(services.values(), [POOL], shared.memory)
    again = run([replace(s, labels={"x": "y"}) for s in services.values()], [POOL], ended.memory)
    recorded = [replace(services[changed], recorded=()), services[other]]
    written = run(recorded, [POOL], again.memory)
    restarted = run(recorded, [POOL])
    for result in (ended, again, written, restarted):
        assert (got(result, changed), got(result, other)) == ([], ["10.77.0.9"])
        assert of(result, changed).contested == AT
        (problem,) = of(result, changed).refusals
        assert problem.fatal and f"Service ns/{other} has it, and the two cannot share it" in problem.message
    back = run(
        [replace(services[changed], ports=ports[changed], traffic_policy=TrafficPolicy.CLUSTER), services[other]],
        [POOL],
        again.memory,
    )
    assert got(back, changed) == got(back, other) == ["10.77.0.9"]


def test_f9_what_is_contested_stays_in_the_status() -> None:
    snap = snapshot()
    twin = replace(snap.services[MAIL], key=ServiceKey("default", "twin"), uid="twin", created="2026-01-03")
    snap = replace(snap, services={**snap.services, twin.key: twin})
    status = service_status(situation(snap), twin.key, None)
    assert status["loadBalancer"]["ingress"] == [{"ip": "10.77.0.221", "ipMode": "VIP"}]
    assert [c["status"] for c in status["conditions"]] == ["False", "False"]


@pytest.mark.parametrize("domain", ["metallb.io", "metallb.universe.tf"])
def test_f9_the_sharing_key_of_metallb_counts_in_all_namespaces(domain: str) -> None:
    annotations = {f"{domain}/allow-shared-ip": "key"}
    parsed = parse_service(balancer(annotations=annotations), True)
    assert parsed is not None and parsed.value is not None
    assert (parsed.value.sharing_key, parsed.value.shares_anywhere) == ("key", True)
    first = service("a", sharing_key="key", shares_anywhere=True)
    other = service("elsewhere/b", sharing_key="key", shares_anywhere=True, ports=UDP)
    result = run([first, other], [POOL])
    assert got(result, "a") == got(result, "elsewhere/b")


# --- F10


def test_f10_an_address_in_external_ips_of_another_service_is_not_given_out() -> None:
    objects = Objects(claim_without_class=True)
    user = obj("user", spec={"type": "ClusterIP", "externalIPs": ["10.77.0.0", "nonsense"]})
    assert objects.change("Service", user)
    assert objects.elsewhere == {ip_address("10.77.0.0"): (ServiceKey("default", "user"),)}
    result = run([service("web")], [POOL], elsewhere=objects.elsewhere)
    assert got(result, "web") == ["10.77.0.1"]
    (problem,) = result.eips["e"].problems
    assert "10.77.0.0 is used by Service default/user" in problem.message
    asked = run([service("web", wanted_addresses=addresses("10.77.0.0"))], [POOL], elsewhere=objects.elsewhere)
    assert reasons(asked, "web") == [Reason.ADDRESS_USED_BY_SERVICE]
    objects.delete("Service", "default", "user")
    assert not objects.elsewhere


def test_f10_the_holder_keeps_it_and_is_told() -> None:
    elsewhere = {ip_address("10.77.0.9"): (ServiceKey("x", "user"),)}
    result = run([service("web", held=addresses("10.77.0.9"))], [POOL], elsewhere=elsewhere)
    assert got(result, "web") == ["10.77.0.9"]
    (told,) = of(result, "web").refusals
    assert (told.reason, told.fatal) == (Reason.ADDRESS_USED_BY_SERVICE, False) and "x/user" in told.message
    own = run([service("web", held=addresses("10.77.0.9"))], [POOL], elsewhere={ip_address("10.77.0.9"): (_WEB,)})
    assert not of(own, "web").refusals


_WEB = ServiceKey("ns", "web")


def test_f10_what_another_load_balancer_gave_is_not_given_out() -> None:
    other = obj("x", spec={"type": "LoadBalancer", "loadBalancerClass": "example/lb"}, status=held("10.77.0.5"))
    assert addresses_elsewhere(other, ours=False) == addresses("10.77.0.5")
    assert addresses_elsewhere(other, ours=True) == ()


# --- F11 and the hints of 13.6


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ("10.077.0.204", "Write 10.77.0.204, without leading zeros."),
        ("office-pool", "To ask for the Eip office-pool, write eip.porter.kubesphere.io/v1alpha2."),
    ],
)
def test_f11_a_wish_in_another_spelling_is_refused_with_the_right_one(wish: str, text: str) -> None:
    parsed = parse_service(balancer(annotations={"eip.porter.kubesphere.io/v1alpha1": wish}), True)
    assert parsed is not None and parsed.value is None
    assert text in parsed.problems[0].message


def test_f11_a_mapped_address_is_the_ipv4_address() -> None:
    service_ = balancer()
    service_["spec"]["loadBalancerIP"] = "::ffff:10.77.0.203"
    parsed = parse_service(service_, True)
    assert parsed is not None and parsed.value is not None
    assert parsed.value.wanted_addresses == addresses("10.77.0.203")
    assert [p.message for p in parsed.problems] == ['"::ffff:10.77.0.203" is read as 10.77.0.203. Write 10.77.0.203.']


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.168.1.100-200", "Write 192.168.1.100-192.168.1.200."),
        ("10.077.0.1", "Write 10.77.0.1, without leading zeros."),
    ],
)
def test_f11_a_pool_in_another_spelling_is_refused_with_the_right_one(address: str, text: str) -> None:
    parsed = parse_eip(obj("pool", "Eip", spec={"address": address}))
    assert parsed.value is None and text in parsed.problems[0].message


def test_f11_endpoints_that_name_no_node_are_told() -> None:
    snap = cluster()
    local = replace(snap.services[MAIL], traffic_policy=TrafficPolicy.LOCAL)
    snap = replace(snap, services={MAIL: local}, endpoints={MAIL: (Endpoint(""),)})
    assert "no ready endpoint names its node" in str(plan(snap, None, 0.0, POLICY).vips[LAYER2_VIP].problems[0])


def test_hints_for_fields_and_annotations_of_metallb() -> None:
    parsed = parse_eip(obj("pool", "Eip", spec={"address": "10.0.0.1", "addresses": ["10.0.0.2"]}))
    assert "write them into spec.address" in parsed.problems[0].message
    annotations = {"metallb.universe.tf/loadBalancerIPs": "10.0.0.1", "metallb.io/address-pool": "x"}
    found = parse_service(balancer(annotations=annotations), True)
    assert found is not None
    assert ["eip.porter.kubesphere.io/v1alpha" in problem.message for problem in found.problems] == [True, True]


@pytest.mark.parametrize(
    ("class_", "hint"),
    [
        ("network.kubesphere.io/porter", True),
        ("porterlb", True),
        ("network.kubesphere.io/porterlb", False),
        ("x", False),
    ],
)
def test_a_class_that_is_nearly_ours_is_noticed(class_: str, hint: bool) -> None:
    service_ = obj("web", spec={"type": "LoadBalancer", "loadBalancerClass": class_})
    assert bool(class_hint(service_)) is hint
    objects = Objects(claim_without_class=True)
    objects.change("Service", service_)
    assert bool(objects.hints) is hint and not objects.problems


# --- our records


def recorded(used: Mapping[str, str], nodes: Mapping[str, str] | None = None, name: str = "pool") -> dict[str, Any]:
    status = {"used": dict(used), "layer2NextHops": dict(nodes or {})}
    return obj(name, "Eip", spec={"address": "10.77.0.0/24"}, status=status)


def test_g5_our_record_says_what_a_service_was_given() -> None:
    objects = Objects(claim_without_class=True)
    objects.change("Service", balancer())
    assert objects.change("Eip", recorded({"10.77.0.9": "default/web;default/mail", "x": "y"}))
    web = objects.services[ServiceKey("default", "web")]
    assert web.recorded == addresses("10.77.0.9") and web.has(ip_address("10.77.0.9"))
    assert objects.change("Eip", recorded({"10.77.0.8": "default/web"}))
    assert objects.services[web.key].recorded == addresses("10.77.0.8")
    objects.delete("Eip", "", "pool")
    objects.change("Eip", obj("pool", "Eip"))
    objects.change("Service", balancer("late"))
    assert objects.change("Eip", recorded({"10.77.0.7": "default/late"}, name="other"))
    assert objects.services[ServiceKey("default", "late")].recorded == addresses("10.77.0.7")


def test_g5_what_somebody_else_wrote_does_not_take_a_vip_off_the_wire() -> None:
    snap = cluster()
    for stolen in ((), addresses("10.9.9.9"), addresses("10.77.0.222")):
        robbed = replace(snap.services[MAIL], held=stolen, recorded=(LAYER2_VIP,), foreign_writer="kubectl")
        for node in NAMES:
            of_node = replace(cluster(node), services={**snap.services, MAIL: robbed})
            made = plan(of_node, None, 0.0, POLICY)
            assert made.services[MAIL].addresses == (LAYER2_VIP,)
            assert LAYER2_VIP in made.wire.vips and not made.unwritten


def test_g5_the_foreign_writer_of_a_status_is_known() -> None:
    theirs = balancer(status=held("10.77.0.9"), managedFields=[{"manager": "porterlb"}, {"manager": "servicelb"}])
    found, ours = parse_service(theirs, True), parse_service(balancer(status=held("10.77.0.9")), True)
    assert found is not None and found.value is not None and found.value.foreign_writer == "servicelb"
    assert ours is not None and ours.value is not None and ours.value.foreign_writer == ""


def test_g5_our_record_beats_a_status_that_another_hand_wrote() -> None:
    thief = service("a", created="1", held=addresses("10.77.0.9"), foreign_writer="kubectl")
    owner = service("b", created="2", recorded=addresses("10.77.0.9"))
    result = run([thief, owner], [POOL])
    assert (got(result, "b"), of(result, "a").contested) == (["10.77.0.9"], addresses("10.77.0.9"))


def test_g5_a_status_by_our_own_hand_beats_an_old_record() -> None:
    """The leader died between the write of the status and the write of the record."""
    moved = service("a", held=addresses("10.77.0.8"), recorded=addresses("10.77.0.9"))
    assert got(run([moved], [POOL]), "a") == ["10.77.0.8"]


def test_g5_our_record_beats_a_contested_address_that_we_left_in_a_status() -> None:
    """We rewrite the status of the other Service and leave the address in it. We are then the writer of that status."""
    other = service("a", created="1", held=addresses("10.77.0.9"))
    for held in ((), addresses("10.77.0.9")):
        owner = service("b", created="2", held=held, recorded=addresses("10.77.0.9"))
        result = run([other, owner], [POOL])
        assert (got(result, "b"), of(result, "a").contested) == (["10.77.0.9"], addresses("10.77.0.9"))
    wishes = replace(other, wanted_addresses=addresses("10.77.0.8"))
    result = run([wishes, owner], [POOL])
    assert (got(result, "a"), of(result, "a").contested, got(result, "b")) == (["10.77.0.8"], (), ["10.77.0.9"])


def test_g5_a_record_is_out_of_date_where_we_gave_its_service_another_address() -> None:
    """The leader died between the writes of two statuses and the write of the record."""
    moved = service("a", created="1", held=addresses("10.77.0.8"), recorded=addresses("10.77.0.9"))
    heir = service("b", created="2", held=addresses("10.77.0.9"))
    result = run([moved, heir], [POOL])
    assert (got(result, "a"), got(result, "b")) == (["10.77.0.8"], ["10.77.0.9"])


def test_g8_the_layer2_next_hop_is_read_from_the_eip_and_from_the_old_annotation() -> None:
    objects = Objects(claim_without_class=True)
    objects.change("Service", balancer(annotations={"layer2.porter.kubesphere.io/v1alpha1": "node-a"}))
    assert objects.services[ServiceKey("default", "web")].pinned_node == "node-a"
    objects.change("Eip", recorded({"10.77.0.9": "default/web"}))
    assert objects.services[ServiceKey("default", "web")].pinned_node == "node-a"
    assert objects.change("Eip", recorded({"10.77.0.9": "default/web"}, {"10.77.0.9": "node-b"}))
    assert objects.services[ServiceKey("default", "web")].pinned_node == "node-b"


def test_g8_a_next_hop_that_is_not_answered_for_now_is_remembered() -> None:
    snap = snapshot()
    services = {key: replace(service, pinned_node="node-c") for key, service in snap.services.items()}
    snap = replace(snap, services=services)
    old = {"layer2NextHops": {"10.77.0.201": "node-c", "10.77.0.221": "gone"}}
    silent = replace(snap.eips["auto"], layer2_standby=False)
    made = situation(replace(snap, eips={**snap.eips, "auto": silent}))
    assert not made.plan.vips[made.snapshot.services[SHOP].held[0]].mode.answer
    assert eip_status(made, "auto", old)["layer2NextHops"] == {"10.77.0.201": "node-c"}
    assert eip_status(made, "segment", old)["layer2NextHops"] != {"10.77.0.221": "gone"}


def test_an_address_is_recorded_once_it_is_given_and_not_before() -> None:
    snap = snapshot()
    fresh = replace(snap.services[MAIL], held=(), wanted_eip="segment")
    made = situation(replace(snap, services={**snap.services, MAIL: fresh}))
    probing = replace(made, unchecked=frozenset(made.plan.unwritten[MAIL]))
    assert "used" not in eip_status(probing, "segment", None)
    assert eip_status(made, "segment", None)["used"] == {"10.77.0.220": "default/mail"}


# --- the last holder


def test_a_freed_address_is_kept_for_its_last_holder() -> None:
    first = run([service("a"), service("b")], [eip("e", "10.0.0.1-10.0.0.3")])
    gone = run([service("b", held=addresses("10.0.0.2"))], [eip("e", "10.0.0.1-10.0.0.3")], first.memory, 1.0)
    others = [service("b", held=addresses("10.0.0.2")), service("c")]
    third = run(others, [eip("e", "10.0.0.1-10.0.0.3")], gone.memory, 2.0)
    assert got(third, "c") == ["10.0.0.3"]
    back = run([*others, service("a", uid="new")], [eip("e", "10.0.0.1-10.0.0.3")], third.memory, 3.0)
    assert got(back, "a") == ["10.0.0.1"]


def test_the_last_holder_is_remembered_when_the_eip_is_made_anew_under_another_name() -> None:
    services = [service("a", created="2"), service("b", created="1")]
    first = run(services, [eip("old", "10.0.0.1-10.0.0.9")])
    had = {name: got(first, name) for name in ("a", "b")}
    gone = run([replace(s, created="x") for s in written(services, first)], [], first.memory, 1.0)
    assert got(gone, "a") == []
    emptied = [service("a", created="1"), service("b", created="2"), service("c", created="0")]
    again = run(emptied, [eip("new", "10.0.0.1-10.0.0.9")], gone.memory, 2.0)
    assert {name: got(again, name) for name in ("a", "b")} == had
    assert got(again, "c") == ["10.0.0.3"]
