"""Which command is sent to ExaBGP next."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from porterlb.core.bgp.agenda import (
    END_OF_RIB_PAUSE,
    END_OF_RIB_TIMES,
    Agenda,
    Beat,
    Check,
    Clear,
    Configs,
    EndOfRib,
    Finish,
    Reload,
    Wait,
)
from porterlb.core.bgp.config import Config
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.next_line import Line
from porterlb.core.desired import Path, SessionConfig

TOR = SessionConfig("tor", ip_address("10.0.0.1"), 64600, 64500, IPv4Address("10.0.0.9"))
LOADED = Config({"tor": TOR})
SAME = Configs(LOADED, LOADED)
ROUTES = {Path("tor", ip_address("10.0.0.11")): frozenset({"192.0.2.1/32"})}


def agenda(now: float = 0.0) -> Agenda:
    made = Agenda(Difference(), 1.0)
    made.difference.set_peers(frozenset({"tor"}))
    made.beaten(now)
    return made


def test_beats_go_first_and_routes_before_the_end_of_rib() -> None:
    made = agenda()
    made.difference.want(ROUTES)
    made.up({"tor"})
    assert made.next(1.0, SAME, current=True, planned={"tor"}) == Beat()
    made.beaten(1.0)
    line = made.next(1.5, SAME, current=True, planned={"tor"})
    assert isinstance(line, Line)
    made.difference.done(line.batch)
    assert made.next(1.5, SAME, current=True, planned={"tor"}) == EndOfRib("tor")
    made.end_of_rib_said("tor", LOADED.sessions, 1.5)
    assert made.next(1.5, SAME, current=True, planned={"tor"}) == Wait(2.0, True)


def test_a_session_that_is_lost_is_owed_nothing() -> None:
    made = agenda()
    made.up({"tor"})
    made.down({"tor"})
    assert isinstance(made.next(0.5, SAME, current=True, planned={"tor"}), Wait)


def test_with_add_path_the_end_of_rib_is_repeated_a_bounded_number_of_times() -> None:
    config = Config({"tor": replace(TOR, add_path=True)})
    made, now, said = agenda(), 0.0, 0
    made.up({"tor"})
    while now < 60.0:
        made.beaten(now)
        step = made.next(now, Configs(config, config), current=True, planned={"tor"})
        if isinstance(step, EndOfRib):
            said += 1
            made.end_of_rib_said("tor", config.sessions, now)
        else:
            assert isinstance(step, Wait)
            now = min(step.until, now + END_OF_RIB_PAUSE)
    assert said == END_OF_RIB_TIMES
    made.up({"tor"})
    made.end_of_rib_said("tor", config.sessions, now)
    made.down({"tor"})
    assert isinstance(made.next(now, Configs(config, config), current=True, planned={"tor"}), Wait)


def test_a_new_configuration_is_checked_then_loaded_once_the_routes_are_said() -> None:
    made, new = agenda(), Config({"tor": replace(TOR, hold_time=30)})
    made.difference.want(ROUTES)
    configs = Configs(new, LOADED)
    line = made.next(0.1, configs, current=True, planned={"tor"})
    assert isinstance(line, Line)
    made.difference.done(line.batch)
    assert made.next(0.1, configs, current=True, planned={"tor"}) == Check(new)
    assert made.next(0.1, replace(configs, checking=True), current=True, planned={"tor"}) == Wait(1.0, False)
    assert made.next(0.1, replace(configs, checked=new), current=True, planned={"tor"}) == Reload(new)
    assert made.next(0.1, replace(configs, checked=LOADED), current=True, planned={"tor"}) == Check(new)
    assert made.next(0.1, replace(configs, bad=new), current=True, planned={"tor"}) == Wait(1.0, True)


def test_it_ends_when_nobody_is_left_and_settles_only_for_the_newest_set() -> None:
    made = agenda()
    assert made.next(0.1, Configs(Config(), LOADED), current=True, planned={"tor"}) == Finish()
    assert made.next(0.1, SAME, current=False, planned={"tor"}) == Wait(1.0, False)


def test_the_end_of_rib_waits_for_the_plan_of_this_negotiation() -> None:
    made = agenda()
    made.up({"tor"})
    assert isinstance(made.next(0.1, SAME, current=True, planned=()), Wait)
    assert made.next(0.1, SAME, current=True, planned={"tor"}) == EndOfRib("tor")


def test_routes_that_do_not_fit_are_cleared_before_anything_else_is_said() -> None:
    made = agenda()
    made.difference.want(ROUTES)
    made.unfit.add("tor")
    assert made.next(0.1, SAME, current=True, planned={"tor"}) == Clear("tor")
    made.down({"tor"})
    assert isinstance(made.next(0.1, SAME, current=True, planned={"tor"}), Line)
