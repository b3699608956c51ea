"""The effects of BFD on BGP: when a session counts as lost, when it may be opened, and the user's messages."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from porterlb.core import exabgp_text as text
from porterlb.core.bfd import text as pipe
from porterlb.core.bfd import words
from porterlb.core.bfd.totals import Totals
from porterlb.core.bfd.values import (
    BfdReport,
    BfdSession,
    BfdSettings,
    BfdState,
    BfdTarget,
    Diagnostic,
    Obstacle,
    ObstacleKind,
)
from porterlb.core.bgp import words as bgp_words
from porterlb.core.bgp.agenda import Agenda, Configs, Teardown
from porterlb.core.bgp.config import Arranged, Config, Local, arrange
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.peers import own_bfd, own_sessions
from porterlb.core.bgp.reasons import Loss, LossCategory, LossKind, Refusal, RefusalKind, Trouble, TroubleKind
from porterlb.core.bgp.sessions import Sessions
from porterlb.core.desired import DesiredBgp, SessionConfig
from porterlb.core.model import BgpConf, Peer, Snapshot, View
from porterlb.core.parse.peer import parse_peer

PEER = SessionConfig("tor", ip_address("10.0.0.1"), 64600, 64500, IPv4Address("10.0.0.9"))
HERE = PEER.address
UP = BfdSession(BfdState.UP, remote_state=BfdState.UP, heard=True, transitions=1)
FAILED = replace(UP, state=BfdState.DOWN, diagnostic=Diagnostic.DETECTION_EXPIRED, failures=1, transitions=2)
ADMIN = replace(UP, state=BfdState.DOWN, diagnostic=Diagnostic.NEIGHBOR_DOWN, remote_state=BfdState.ADMIN_DOWN)
TARGET = BfdTarget("tor", HERE, settings=BfdSettings(3, 50, 50))
STRICT = replace(TARGET, settings=BfdSettings(strict=True))


def established() -> Sessions:
    sessions = Sessions()
    sessions.configure({"tor": PEER}, Arranged(Config({"tor": PEER})), 0.0)
    sessions.hear(text.Up(HERE), 1.0)
    return sessions


# --- loss


def test_bfd_that_fails_ends_the_session_at_once_and_once() -> None:
    sessions = established()
    assert sessions.hear_bfd({"tor": UP}, 2.0) == frozenset()
    assert sessions.hear_bfd({"tor": FAILED}, 3.0) == {"tor"}
    state = sessions.states["tor"]
    assert (state.up, state.since, state.losses, state.bfd) == (False, 3.0, 1, FAILED)
    assert state.loss == Loss(LossKind.BFD, Diagnostic.DETECTION_EXPIRED, local=True)
    assert state.loss.category is LossCategory.BFD
    assert sessions.torn == {"tor"}
    assert sessions.hear_bfd({"tor": replace(FAILED, heard=False)}, 3.5) == frozenset()
    # ExaBGP still has the session, then ends it: neither is reported
    assert sessions.hear(text.Shown({HERE: "established"}, {HERE: 9.0}), 4.0) == []
    assert not sessions.up()
    assert sessions.hear(text.Down(HERE, "notification sent (6,10): Cease"), 4.0) == []
    assert (sessions.torn, sessions.states["tor"].losses, sessions.states["tor"].attempt) == (set(), 1, None)
    assert "within the detection time" in bgp_words.why_down(sessions.states["tor"])
    assert sessions.hear(text.Up(HERE), 5.0) == ["tor"]
    assert sessions.up() == {"tor"}
    assert sessions.hear_bfd({"tor": replace(UP, failures=1)}, 6.0) == frozenset()
    assert sessions.hear_bfd({"tor": replace(FAILED, failures=2)}, 7.0) == {"tor"}


@pytest.mark.parametrize(
    "then",
    [ADMIN, replace(UP, state=BfdState.DOWN), BfdSession(obstacle=Obstacle(ObstacleKind.NOT_RUNNING, text="x")), None],
)
def test_what_is_no_failure_ends_nothing(then: BfdSession | None) -> None:
    sessions = established()
    sessions.hear_bfd({"tor": UP}, 2.0)
    assert sessions.hear_bfd({"tor": then} if then else {}, 3.0) == frozenset()
    assert sessions.up() == {"tor"}
    assert sessions.states["tor"].bfd == then


def test_a_failure_from_before_we_looked_and_one_without_a_session_end_nothing() -> None:
    sessions = established()
    assert sessions.hear_bfd({"tor": FAILED, "other": FAILED}, 2.0) == frozenset()
    assert sessions.up() == {"tor"}
    sessions.hear(text.Down(HERE, "x"), 3.0)
    assert sessions.hear_bfd({"tor": replace(FAILED, failures=2)}, 4.0) == frozenset()
    assert sessions.states["tor"].losses == 1


def test_a_router_that_begins_bfd_anew_with_the_session_does_not_end_it() -> None:
    anew = replace(FAILED, diagnostic=Diagnostic.NEIGHBOR_DOWN)
    for found, at, lost in ((anew, 1.9, False), (anew, 2.1, True), (FAILED, 1.9, True)):
        sessions = established()  # at 1.0
        sessions.hear_bfd({"tor": UP}, 1.0)
        assert bool(sessions.hear_bfd({"tor": found}, at)) is lost


def test_an_exabgp_that_is_gone_has_nothing_to_end() -> None:
    for end in ("lose", "remove", "shown"):
        sessions = established()
        sessions.hear_bfd({"tor": UP}, 2.0)
        sessions.hear_bfd({"tor": FAILED}, 3.0)
        if end == "lose":
            sessions.lose_all(Trouble(TroubleKind.HUNG), 4.0)
        elif end == "remove":
            sessions.configure({}, Arranged(), 4.0)
        else:
            assert sessions.hear(text.Shown({}), 4.0) == []
        assert not sessions.torn


def test_ending_a_session_comes_first() -> None:
    agenda = Agenda(Difference(), 1.0)
    agenda.up({"tor", "other"})
    agenda.tear_down({"tor"})
    config = Config({"tor": PEER})
    assert agenda.next(5.0, Configs(config, config), current=True, planned={"tor"}) == Teardown("tor")
    assert agenda.owed == {"other"}
    assert text.teardown(PEER, 10) == "neighbor 10.0.0.1 teardown 10"


# --- strict


def test_a_strict_peer_waits_for_bfd_and_keeps_what_it_has() -> None:
    sessions = Sessions()
    sessions.configure({"tor": PEER}, Arranged(Config({"tor": PEER})), 0.0)
    assert sessions.waiting_for_bfd({"tor": TARGET}) == frozenset()
    assert sessions.waiting_for_bfd({"tor": STRICT}) == {"tor"}
    for found, waiting in ((BfdSession(), True), (FAILED, True), (UP, False), (ADMIN, False)):
        sessions.hear_bfd({"tor": found}, 1.0)
        assert bool(sessions.waiting_for_bfd({"tor": STRICT})) is waiting
    sessions.hear(text.Up(HERE), 2.0)
    sessions.hear_bfd({"tor": UP}, 2.0)
    sessions.hear_bfd({}, 3.0)  # the BFD process has ended
    assert not sessions.waiting_for_bfd({"tor": STRICT})
    sessions.hear_bfd({"tor": UP}, 4.0)
    sessions.hear_bfd({"tor": FAILED}, 5.0)
    assert sessions.waiting_for_bfd({"tor": STRICT}) == {"tor"}


def test_a_strict_peer_that_waits_is_refused_alone_and_says_why() -> None:
    other = replace(PEER, peer="other", address=ip_address("10.0.0.2"))
    desired = DesiredBgp({"tor": PEER, "other": other})
    found = arrange(desired, Local(), frozenset({"tor"}))
    assert (set(found.config.sessions), found.refused) == ({"other"}, {"tor": Refusal(RefusalKind.BFD_NOT_UP)})
    sessions = Sessions()
    sessions.configure(desired.sessions, found, 0.0)
    sessions.hear_bfd({"tor": BfdSession()}, 0.0)
    assert bgp_words.why_down(sessions.states["tor"]) == (
        "spec.bfd.strict is set: the BGP session waits until BFD is up. "
        "BFD is not up: the router has not sent a BFD packet."
    )


# --- from the BgpPeer to the BFD target


def peer(**bfd: Any) -> tuple[Peer | None, list[str]]:
    conf = {"neighborAddress": "10.0.0.1", "peerAs": 64600}
    found = parse_peer({"metadata": {"name": "tor"}, "spec": {"conf": conf, "bfd": bfd}})
    return found.value, [str(problem) for problem in found.problems]


def test_the_field() -> None:
    assert peer()[0].bfd is None  # type: ignore[union-attr]
    assert peer(enabled=False, minTransmit=100)[0].bfd is None  # type: ignore[union-attr]
    assert peer(enabled=True) == (peer(enabled=True)[0], [])
    assert peer(enabled=True)[0].bfd == BfdSettings(3, 300, 300, False, 254, False)  # type: ignore[union-attr]
    all_of_it = {"detectMultiplier": 5, "minTransmit": 50, "minReceive": 60, "passiveMode": True, "minimumTtl": 9}
    found, problems = peer(enabled=True, strict=True, **all_of_it)
    assert found is not None and (found.bfd, problems) == (BfdSettings(5, 50, 60, True, 9, True), [])


@pytest.mark.parametrize(
    ("field", "value"), [("detectMultiplier", 1), ("minTransmit", 49), ("minReceive", 60001), ("minimumTtl", 0)]
)
def test_out_of_bounds(field: str, value: int) -> None:
    found, problems = peer(enabled=True, **{field: value})
    assert found is None
    assert f"spec.bfd.{field}" in problems[0] and "out of range" in problems[0]


def test_authentication_is_refused_with_a_sentence() -> None:
    found, problems = peer(enabled=True, authentication={"type": "sha1"})
    assert found is not None
    assert "spec.bfd.authentication" in problems[0] and "not supported" in problems[0]


def test_which_sessions_have_bfd_and_over_which_port() -> None:
    settings = BfdSettings()
    near = Peer("near", HERE, 64600, bfd=settings)
    peers = {
        "near": near,
        "far": replace(near, name="far", address=ip_address("10.0.0.2"), multihop_ttl=3),
        "internal": replace(near, name="internal", address=ip_address("10.0.0.3"), peer_as=64500),
        "off": replace(near, name="off", address=ip_address("10.0.0.4"), admin_down=True),
        "without": replace(near, name="without", address=ip_address("10.0.0.5"), bfd=None),
        "bound": replace(near, name="bound", address=ip_address("10.0.0.6"), local_address=ip_address("10.0.0.9")),
    }
    snapshot = Snapshot(View("n"), peers=peers, conf=BgpConf(64500))
    found = own_bfd(snapshot, own_sessions(snapshot))
    assert {name: target.port for name, target in found.items()} == {
        "near": 3784, "far": 4784, "internal": 4784, "bound": 3784,
    }  # fmt: skip
    assert found["bound"] == BfdTarget("bound", ip_address("10.0.0.6"), ip_address("10.0.0.9"), False, settings)


# --- the pipe and the messages


def test_the_pipe_carries_everything() -> None:
    import json  # noqa: PLC0415

    targets = (
        TARGET,
        BfdTarget("six", ip_address("2001:db8::1"), ip_address("2001:db8::2"), True, BfdSettings(strict=True)),
    )
    assert pipe.read_want(json.loads(pipe.want_line(targets))) == tuple(sorted(targets, key=lambda t: t.peer))
    report = BfdReport({"tor": FAILED, "six": BfdSession(obstacle=Obstacle(ObstacleKind.PORT_TAKEN, 3784))}, {"ttl": 3})
    assert pipe.read_report(json.loads(pipe.report_line(report))) == report


def test_counters_go_on_after_a_restart_of_the_process() -> None:
    totals = Totals()
    assert totals.heard({"tor": FAILED})["tor"] == FAILED
    ended = totals.ended(["tor"], "signal 9")["tor"]
    assert (ended.failures, ended.state) == (1, BfdState.DOWN)
    assert "signal 9" in words.sentence(ended)
    assert totals.heard({"tor": UP})["tor"].failures == 1
    assert totals.heard({"tor": FAILED})["tor"].failures == 2
    totals.ended(["tor"], "x")
    assert totals.heard({"tor": BfdSession()})["tor"].failures == 2


def test_sentences() -> None:
    assert words.sentence(None) == "BFD has not started yet."
    assert words.sentence(UP) == ""
    assert words.sentence(FAILED) == "BFD is down: control detection time expired (1)."
    assert words.sentence(ADMIN) == "BFD is administratively down on the router."
    assert words.sentence(BfdSession(BfdState.ADMIN_DOWN)) == "BFD is administratively down on this node."
    assert words.sentence(BfdSession(BfdState.INIT, heard=True)) == "BFD is not up yet."
    assert "UDP port 4784" in words.sentence(BfdSession(obstacle=Obstacle(ObstacleKind.PORT_TAKEN, 4784)))
    for kind in ObstacleKind:
        assert words.obstacle(Obstacle(kind, 1, "reason")).startswith("BFD is not possible")
    assert words.diagnostic(31) == "unknown diagnostic (31)"
    assert words.failure(Diagnostic.NEIGHBOR_DOWN).startswith("BFD went down, neighbor signaled session down (3)")
