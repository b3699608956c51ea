"""What-if: the cluster as its objects and Leases describe it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from porterlb.core.model import Member, Mode
from porterlb.core.objects import Objects
from porterlb.core.placement.overview import addresses_of
from porterlb.core.whatif import VipChange, Way, offline_snapshot
from tests.core.stage import AUTO_VIP, MAIL, SHOP, situation, snapshot


def peer(**states: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "tor", "uid": "u", "resourceVersion": "1"},
        "spec": {"conf": {"neighborAddress": "10.77.0.1", "peerAs": 64500}},
        "status": {"nodesPeerStatus": {node: {"peerState": {"sessionState": state}} for node, state in states.items()}},
    }


def test_only_established_sessions_of_live_replicas_count() -> None:
    objects = Objects(True)
    objects.change("BgpPeer", peer(a="ESTABLISHED", b="ACTIVE", gone="ESTABLISHED"))
    members = {name: Member(name, f"10.77.0.{at}", 7473, 1) for at, name in enumerate("abc", 11)}
    view = offline_snapshot(objects, members).view
    assert view.sessions == {("a", "tor")}
    assert (view.node, view.leader, view.fresh) == ("a", "a", frozenset("abc"))
    assert offline_snapshot(objects, members, "c").view.node == "c"
    assert offline_snapshot(objects, {}).view.node == ""


def test_a_peer_without_a_state_has_no_session() -> None:
    objects = Objects(True)
    objects.change("BgpPeer", {**peer(), "status": {"nodesPeerStatus": {"a": {}}}})
    assert offline_snapshot(objects, {"a": Member("a", "10.77.0.11", 7473, 1)}).view.sessions == frozenset()


def test_a_vip_changes_with_the_way_in_which_it_is_served() -> None:
    way, other = Way(Mode.BGP, ("a",)), Way(Mode.BGP, ("b",))
    vip = ip_address("10.77.0.100")
    assert not VipChange(vip, "pool", (), way, Way(Mode.BGP, ("a",))).changed
    assert all(
        VipChange(vip, "pool", (), before, after).changed for before, after in ((way, other), (None, way), (way, None))
    )


def test_the_vips_that_move_with_a_service_are_those_that_layer2_serves() -> None:
    known = situation(snapshot(up=()))
    made = known.plan
    moving = {key: addresses_of(made, key) for key in (SHOP, MAIL)}
    assert moving[SHOP] == (AUTO_VIP,)
    assert AUTO_VIP not in moving[MAIL] and all(made.vips[vip].place for vip in moving[MAIL])
    without = {address for address, vip in made.vips.items() if not vip.place}
    assert without and not without & {vip for key in known.snapshot.services for vip in addresses_of(made, key)}
