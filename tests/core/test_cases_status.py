"""Cases in which the user saw nothing, or a wrong message, with the correct outcome: conditions and Events."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from porterlb.core.bgp.negotiated import as_configured
from porterlb.core.history import History, What, step
from porterlb.core.history.events import Event, events
from porterlb.core.known import Known
from porterlb.core.model import Peer, Protocol, Snapshot
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import Notice, NoticeKind
from porterlb.core.problems import Reason
from porterlb.core.status.build import eip_status, service_status
from porterlb.core.whatif import Missing, what_if
from tests.core.stage import AUTO_VIP, LATER, LAYER2_VIP, MAIL, POLICY, SHOP, situation, snapshot
from tests.core.test_plan import NAMES

# --- A2: an IP version that no session negotiated


def dual(of: Snapshot, *, standby: bool = True) -> Snapshot:
    """The peer is configured for IPv6 only, and the router negotiated IPv4 only."""
    peer = Peer("tor", ip_address("10.77.0.1"), 64500, add_path=8, families=(4, 6))
    every = {(name, "tor") for name in NAMES}
    view = replace(of.view, negotiated=dict.fromkeys(every, as_configured((6,), add_path=True)))
    auto = replace(of.eips["auto"], layer2_standby=standby)
    return replace(of, view=view, peers={"tor": peer}, eips={**of.eips, "auto": auto})


@pytest.mark.parametrize("standby", [True, False])
def test_a2_a_family_that_no_session_negotiated_is_served_by_layer_2_and_the_service_says_why(standby: bool) -> None:
    known = situation(dual(snapshot(), standby=standby))
    assert known.plan.vips[AUTO_VIP].candidates and known.on_wire[AUTO_VIP].mode.value == "layer2"
    (serving,) = [c for c in service_status(known, SHOP, None)["conditions"] if c["type"] == "Serving"]
    assert serving["status"] == "True" and "served by Layer 2" in serving["message"]
    assert "The session with tor did not negotiate IPv4 routes" in serving["message"]
    assert "Enable IPv4 unicast for this neighbor on the router." in serving["message"]


def test_a2_a_pool_of_bgp_only_says_it_too_and_so_does_plan() -> None:
    of = dual(snapshot())
    of = replace(of, eips={**of.eips, "auto": replace(of.eips["auto"], protocol=Protocol.BGP)})
    known = situation(of)
    (serving,) = [c for c in service_status(known, SHOP, None)["conditions"] if c["type"] == "Serving"]
    assert serving["status"] == "False" and serving["reason"] == Reason.NO_SESSION
    assert "did not negotiate IPv4 routes" in serving["message"]
    planned = next(vip for vip in what_if(of, Missing(), POLICY).vips if vip.address == AUTO_VIP)
    assert planned.after is not None and "did not negotiate IPv4 routes" in planned.after.why


def test_a2_a_family_that_is_negotiated_is_not_spoken_of() -> None:
    assert "negotiate" not in str(service_status(situation(snapshot()), SHOP, None))
    assert "negotiate" not in str(service_status(situation(dual(snapshot())), MAIL, None)), "Layer 2 alone serves it"


# --- G7, E3: findings of the wire process


def noticing(*notices: Notice, node: str = "node-a", **more: Any) -> Known:
    made = situation(snapshot(node), now=LATER, **more)
    return replace(made, wire=replace(made.wire, notices=notices))


SUBNET = "10.77.0.0/24"
NOTICES = [
    (Notice(NoticeKind.WRONG_KEY, "", ("node-c",)), Reason.HELLO_REFUSED, "signed with another key"),
    (Notice(NoticeKind.OTHER_VERSION, "", ("node-c",)), Reason.HELLO_REFUSED, "have a version"),
    (Notice(NoticeKind.OLD_BOOT, "", ("node-c",)), Reason.HELLO_REFUSED, "boot number"),
    (Notice(NoticeKind.OWN_NAME, "", ("node-a",)), Reason.DUPLICATE_NODE, "the name of this node"),
    (Notice(NoticeKind.OUTVOTED, SUBNET, ("node-c",)), Reason.NODE_UNREACHABLE, "filters of ARP"),
    (Notice(NoticeKind.CONTESTED, "10.77.0.13", ("node-c",)), Reason.ADDRESS_CONTESTED, "Another MAC"),
    (Notice(NoticeKind.TWO_ANSWERS, str(AUTO_VIP), ("node-c",)), Reason.ADDRESS_CONTESTED, "at once"),
]


@pytest.mark.parametrize(("notice", "reason", "words"), NOTICES)
def test_what_a_replica_notices_is_in_the_condition_of_the_eips_that_layer_2_serves(
    notice: Notice, reason: Reason, words: str
) -> None:
    known = noticing(notice)
    (ready,) = [c for c in eip_status(known, "auto", None)["conditions"] if c["type"] == "Ready"]
    assert (ready["status"], ready["reason"]) == ("True", reason.value) and words in ready["message"]
    assert words not in str(eip_status(known, "bgp", None)), "BGP alone serves that one"


def test_a_notice_about_another_subnet_or_vip_does_not_concern_an_eip() -> None:
    known = noticing(
        Notice(NoticeKind.LINK_DOWN, "10.78.0.0/24, fd78::/64", ("node-c",)),
        Notice(NoticeKind.TWO_ANSWERS, str(LAYER2_VIP), ("node-c",)),
    )
    (ready,) = [c for c in eip_status(known, "auto", None)["conditions"] if c["type"] == "Ready"]
    assert ready["reason"] == "Ready"


def told(notice: Notice, node: str = "node-a") -> list[Event]:
    before = situation(snapshot(node))
    history, _ = step(History(), None, before, 0.0)
    known = noticing(notice, node=node)
    history, fresh = step(history, before, known, 10.0)
    assert [entry.what for entry in fresh] == [What.NOTICED] and fresh[0].what.bad
    _, over = step(history, known, noticing(node=node), 20.0)
    assert [entry.what for entry in over] == [What.NOTICE_OVER] and not over[0].what.bad
    return list(events(fresh, known))


@pytest.mark.parametrize(("notice", "reason", "words"), NOTICES)
def test_what_a_replica_notices_is_an_event_on_the_node_or_the_service(
    notice: Notice, reason: Reason, words: str
) -> None:
    (event,) = told(notice)
    assert event.notice.warning and event.notice.reason == reason.value and words in event.notice.message
    about = (
        ObjectKey("Service", *SHOP) if notice.kind is NoticeKind.TWO_ANSWERS else ObjectKey("Node", "", *notice.nodes)
    )
    assert event.about == about


def test_only_one_replica_tells_what_all_notice_but_each_tells_of_its_own_node() -> None:
    (of_another,) = told(Notice(NoticeKind.WRONG_KEY, "", ("node-c",)), "node-b")
    (of_itself,) = told(Notice(NoticeKind.OWN_NAME, "", ("node-b",)), "node-b")
    assert (of_another.by_all, of_itself.by_all) == (False, True)
