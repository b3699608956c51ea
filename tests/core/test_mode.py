"""The mode of one VIP over sequences of events; time is an argument."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.holddown import HoldDown, SessionsSeen, step
from porterlb.core.mode import Announce, ModePolicy, Phase, VipMode, Ways, decide, wakes_at
from porterlb.core.model import Mode, Protocol

POLICY = ModePolicy(return_after=10, widen_after=0, narrow_dwell=0.5, overlap=3, start=10)


@dataclass
class Vip:
    """One VIP of a single replica, with the memory of both state machines."""

    policy: ModePolicy = POLICY
    hold_down: HoldDown | None = None
    mode: VipMode | None = None

    def at(
        self,
        now: float,
        protocol: Protocol = Protocol.AUTO,
        *,
        up: bool = True,
        since: float = 0.0,
        on_link: bool = True,
        standby: bool = True,
        tellable: bool = True,
    ) -> VipMode:
        """``up``: a session is established, ``since`` when. ``tellable``: it can carry a next hop of the VIP."""
        self.hold_down = step(self.hold_down, SessionsSeen(up, up, since), now, self.policy)
        ways = Ways(protocol, up and tellable, on_link, standby)
        self.mode = decide(self.mode, ways, self.hold_down, now, self.policy)
        return self.mode


def shown(mode: VipMode) -> tuple[Mode, Announce, bool]:
    return mode.mode, mode.announce, mode.answer


def test_first_session_is_used_at_once() -> None:
    vip = Vip()
    assert shown(vip.at(0, up=False)) == (Mode.LAYER2, Announce.FULL, True), "routes lie ready for the first session"
    assert shown(vip.at(2, since=2)) == (Mode.BGP, Announce.FULL, True)


def test_a_first_session_that_comes_late_finds_layer2_in_use_and_comes_as_after_a_loss() -> None:
    vip = Vip()
    vip.at(0, up=False)
    assert shown(vip.at(10, up=False)) == (Mode.LAYER2, Announce.NONE, True)
    assert vip.at(12, since=12).phase is Phase.WAITING
    assert shown(vip.at(22, since=12)) == (Mode.BGP, Announce.NARROW, True)


def test_loss_of_all_sessions_is_layer2_at_once_without_routes() -> None:
    vip = Vip()
    vip.at(0)
    lost = vip.at(5, up=False)
    assert (lost.phase, *shown(lost)) == (Phase.LAYER2, Mode.LAYER2, Announce.NONE, True)


def test_way_back_is_narrow_first_then_wide_once() -> None:
    vip = Vip()
    vip.at(0)
    vip.at(5, up=False)
    modes = [vip.at(t, since=20) for t in (20, 29.9, 30.0, 30.2, 30.6)]
    told = [Announce.NONE, Announce.NONE, Announce.NARROW, Announce.NARROW, Announce.FULL]
    assert [m.announce for m in modes] == told
    assert [m.mode for m in modes[1:3]] == [Mode.LAYER2, Mode.BGP]


def test_widening_can_wait_for_long_connections() -> None:
    vip = Vip(ModePolicy(return_after=1, widen_after=60))
    vip.at(0)
    vip.at(1, up=False)
    vip.at(2, since=2)
    modes = [vip.at(t, since=2) for t in (3.5, 60.0, 64.0)]
    assert [m.announce for m in modes] == [Announce.NARROW, Announce.NARROW, Announce.FULL]


def test_flapping_session_does_not_flap_the_traffic() -> None:
    vip = Vip()
    vip.at(0)
    for start in range(3, 60, 6):
        assert shown(vip.at(start, up=False)) == (Mode.LAYER2, Announce.NONE, True)
        assert shown(vip.at(start + 3, since=start + 3)) == (Mode.LAYER2, Announce.NONE, True)


def test_another_session_that_takes_over_starts_the_wait_anew() -> None:
    vip = Vip()
    vip.at(0)
    vip.at(1, up=False)
    phases = [vip.at(t, since=since).phase for t, since in ((2, 2), (9, 8), (13, 8), (18.1, 8))]
    assert phases == [Phase.WAITING, Phase.WAITING, Phase.WAITING, Phase.NARROW]


def test_off_segment_stays_announced_whatever_happens() -> None:
    vip = Vip()
    modes = [vip.at(t, up=up, on_link=False) for t, up in ((0, True), (5, False), (6, True), (30, True))]
    assert all(m.announce is Announce.FULL and not m.answer for m in modes)
    assert [m.mode for m in modes] == [Mode.BGP, Mode.NONE, Mode.BGP, Mode.BGP]


def test_without_standby_only_layer2_mode_answers() -> None:
    vip = Vip()
    assert [vip.at(0, standby=False).answer, vip.at(5, up=False, standby=False).answer] == [False, True]


def test_without_standby_the_answers_outlive_the_widening() -> None:
    vip = Vip()
    vip.at(0, standby=False)
    vip.at(1, up=False, standby=False)
    vip.at(2, since=2, standby=False)
    narrow, wide, done = (vip.at(t, since=2, standby=False) for t in (12, 12.6, 15.7))
    assert [m.announce for m in (narrow, wide, done)] == [Announce.NARROW, Announce.FULL, Announce.FULL]
    assert [m.answer for m in (narrow, wide, done)] == [True, True, False]


def test_a_vip_whose_next_hops_no_peer_can_be_told_is_served_by_layer2() -> None:
    vip = Vip()
    assert shown(vip.at(0, tellable=False, standby=False)) == (Mode.LAYER2, Announce.NONE, True)
    assert shown(vip.at(1, standby=False)) == (Mode.BGP, Announce.FULL, True)
    assert shown(vip.at(4, standby=False)) == (Mode.BGP, Announce.FULL, False)


def test_strict_stays_strict() -> None:
    vip = Vip()
    for at, up in ((0, True), (5, False)):
        assert shown(vip.at(at, Protocol.BGP, up=up)) == (Mode.BGP, Announce.FULL, False)
    vip = Vip()
    for at, up in ((0, True), (5, False)):
        assert shown(vip.at(at, Protocol.LAYER2, up=up)) == (Mode.LAYER2, Announce.NONE, True)


def test_switch_by_hand_makes_before_it_breaks() -> None:
    vip = Vip()
    bgp, layer2 = Protocol.BGP, Protocol.LAYER2
    steps = [(0, bgp), (20, layer2), (24, layer2), (30, bgp), (30.4, bgp), (30.5, bgp), (34, bgp)]
    ways = [shown(vip.at(t, protocol))[1:] for t, protocol in steps]
    full, narrow, none = Announce.FULL, Announce.NARROW, Announce.NONE
    away = [(full, False), (full, True), (none, True)]
    assert ways == [*away, (narrow, True), (narrow, True), (full, True), (full, False)]


def test_a_switch_to_bgp_by_hand_begins_with_the_node_that_serves_and_wakes_to_widen() -> None:
    vip = Vip()
    vip.at(0, Protocol.LAYER2)
    assert wakes_at(vip.at(20, Protocol.BGP), POLICY) == 20.5
    assert wakes_at(vip.at(20.5, Protocol.BGP), POLICY) == 23
    assert wakes_at(vip.at(23, Protocol.BGP), POLICY) is None


def test_switch_to_auto_by_hand_uses_the_sessions_that_are_there() -> None:
    vip = Vip()
    vip.at(0, Protocol.LAYER2)
    assert shown(vip.at(20)) == (Mode.BGP, Announce.NARROW, True)
    assert shown(vip.at(20.5)) == (Mode.BGP, Announce.FULL, True)


def test_since_is_when_this_vip_came_into_its_mode() -> None:
    vip = Vip()
    vip.at(0, Protocol.LAYER2)
    assert [vip.at(t).since for t in (20, 25)] == [20, 20], "though the hold-down is older"
    far = Vip()
    assert [far.at(t, up=up, on_link=False).since for t, up in ((0, True), (5, False), (7, False), (9, True))] == [
        0,
        5,
        5,
        9,
    ]


def test_a_return_of_the_only_session_that_can_be_told_a_next_hop_overlaps_too() -> None:
    vip = Vip()
    vip.at(0, standby=False)
    assert shown(vip.at(20, standby=False, tellable=False)) == (Mode.LAYER2, Announce.NONE, True)
    back = vip.at(30, standby=False)
    assert shown(back) == (Mode.BGP, Announce.FULL, True), "answered until the routers have the route"
    assert wakes_at(back, POLICY) == 33
    assert shown(vip.at(33, standby=False)) == (Mode.BGP, Announce.FULL, False)


def test_routes_are_not_kept_for_a_switch_when_sessions_are_lost_too() -> None:
    vip = Vip()
    vip.at(0)
    assert vip.at(20, Protocol.LAYER2).announce is Announce.FULL
    assert vip.at(21, Protocol.LAYER2, up=False).announce is Announce.NONE


def test_overlap_wakes_up_again() -> None:
    vip = Vip()
    vip.at(0, Protocol.BGP)
    assert wakes_at(vip.at(20, Protocol.LAYER2), POLICY) == 23


events = st.lists(
    st.tuples(st.floats(0, 15), st.sampled_from(list(Protocol)), st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(max_examples=400)
@given(events, st.floats(0, 20), st.floats(0, 20))
def test_no_sequence_leaves_an_automatic_vip_with_no_way_in(
    sequence: list[tuple[float, Protocol, bool, bool, bool]], return_after: float, widen_after: float
) -> None:
    vip = Vip(ModePolicy(return_after=return_after, widen_after=widen_after))
    now, since, up_before = 0.0, 0.0, False
    for wait, protocol, up, standby, tellable in sequence:
        now += wait
        since = now if up and not up_before else since
        up_before = up
        mode = vip.at(now, protocol, up=up, since=since, standby=standby, tellable=tellable)
        if protocol is Protocol.AUTO:
            assert mode.answer or (mode.announce is not Announce.NONE and up and tellable)
            assert mode.answer or not standby
            if not (up and tellable):
                assert mode.mode is Mode.LAYER2
        elif protocol is Protocol.LAYER2:
            assert mode.answer
        else:
            assert mode.announce is not Announce.NONE
        again = vip.at(now, protocol, up=up, since=since, standby=standby, tellable=tellable)
        assert again == mode
        at = wakes_at(mode, vip.policy)
        assert at is None or at >= now


def test_an_overlap_that_is_shorter_than_the_narrow_dwell_ends_narrow_and_overlap_together() -> None:
    policy = ModePolicy(return_after=10, narrow_dwell=0.5, overlap=0.2, start=10)
    vip = Vip(policy)
    vip.at(0, Protocol.LAYER2)
    by_hand = vip.at(20, Protocol.BGP)
    assert shown(by_hand) == (Mode.BGP, Announce.NARROW, True)
    assert wakes_at(by_hand, policy) == 20.2
    assert shown(vip.at(20.1, Protocol.BGP)) == (Mode.BGP, Announce.NARROW, True)
    assert shown(vip.at(20.2, Protocol.BGP)) == (Mode.BGP, Announce.FULL, False)
