"""The lab's topologies: every session has both ends, and no address occurs twice."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest

from lab.host import Nic
from lab.topology import SHARED, RouterSite, Site, Topology, flat, racks

FLAT = flat(3, ("bird", "frr"), asn=(64501,), second=True)
RACKS = racks((("frr", "bird"), ("bird",), ("frr",)), nodes=2, bfd=50)


def cards(topology: Topology) -> list[tuple[str, Nic]]:
    sites: list[Site | RouterSite] = [*topology.nodes, *topology.routers, topology.client, topology.local]
    return [(site.name, nic) for site in [*sites, *filter(None, [topology.second_local])] for nic in site.nics]


@pytest.mark.parametrize("topology", [FLAT, RACKS])
def test_nothing_occurs_twice_and_every_card_has_a_bridge(topology: Topology) -> None:
    nics = [nic for _, nic in cards(topology)]
    for values in ([nic.mac for nic in nics], [nic.v4 for nic in nics], [nic.v6 for nic in nics]):
        assert max(Counter(values).values()) == 1
    assert {nic.bridge for nic in nics} <= set(topology.bridges)
    for family in ("v4", "v6"):
        assert len({nic.network(family) for nic in nics}) == len({nic.bridge for nic in nics})
    ports = [name if nic.name == "eth0" else f"{name}-{nic.name}" for name, nic in cards(topology)]
    assert all(len(port) <= 15 for port in ports)  # a limit of the kernel
    assert all(len(bridge) <= 15 for bridge in topology.bridges)


def test_a_flat_lab_has_sessions_of_both_families_and_direct_routes_to_pods() -> None:
    first, second = FLAT.routers
    assert [session.address for session in first.config.sessions] == [
        address for node in FLAT.nodes for address in (node.nics[0].v4, node.nics[0].v6)
    ]
    assert (first.config.asn, second.config.asn) == (64501, 64500)
    assert FLAT.pod_routes(FLAT.nodes[0])[0] == "route replace 10.244.2.0/24 via 10.77.0.12"
    assert len(FLAT.pod_routes(FLAT.nodes[0])) == 4


def test_sessions_of_rack_routers_and_spine_are_the_two_ends_of_one_link() -> None:
    ends = {nic.v6 if v6 else nic.v4: site for site in RACKS.routers for nic in site.nics for v6 in (False, True)}
    links = 0
    for site in RACKS.routers:
        for session in site.config.sessions:
            assert session.bfd == 50
            if not session.transit:
                continue
            other = ends[session.address]
            assert (other.name, other.config.asn) == (session.node, session.asn)
            (back,) = (s for s in other.config.sessions if s.node == site.name and s.over_v6 == session.over_v6)
            assert back.transit and back.passive != session.passive
            links += 1
    assert links == 4 * 2 * 2  # four rack routers, two families, two ends


def test_a_rack_has_its_own_subnet_gateway_and_nodes() -> None:
    by_name = {router.name: router for router in RACKS.routers}
    for node in RACKS.nodes:
        rack = node.labels["rack"]
        assert node.gateway and node.gateway.bridge == node.nics[0].bridge == f"rack{rack}"
        alone = f"tor-{rack}b" not in by_name
        assert node.gateway.v4 == f"10.60.{rack}.{1 if alone else SHARED}"
        assert (by_name[f"tor-{rack}"].shared is None) == alone
        for router in (by_name[f"tor-{rack}"], *([] if alone else [by_name[f"tor-{rack}b"]])):
            assert {node.nics[0].v4, node.nics[0].v6} <= {session.address for session in router.config.sessions}
    assert len(RACKS.pod_routes(RACKS.nodes[0])) == 2  # only to the other node of the rack
    assert all(ip_address(route.split(" via ")[1]) for router in RACKS.routers for route in router.routes)
