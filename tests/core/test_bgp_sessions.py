"""The state of each session, derived from ExaBGP's messages."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address

from porterlb.core import exabgp_text as text
from porterlb.core.bgp import words
from porterlb.core.bgp.config import Arranged, Config
from porterlb.core.bgp.difference import Difference
from porterlb.core.bgp.negotiated import Negotiated, from_text
from porterlb.core.bgp.reasons import Loss, LossKind, Refusal, RefusalKind, Trouble, TroubleKind
from porterlb.core.bgp.sessions import ADMIN_DOWN, Sessions
from porterlb.core.desired import Path, SessionConfig

PEER = SessionConfig("tor", ip_address("10.0.0.1"), 64600, 64500, IPv4Address("10.0.0.9"))
HERE = PEER.address


def configured(peer: SessionConfig = PEER, **more: dict[str, Refusal]) -> Sessions:
    sessions = Sessions()
    configure(sessions, peer, 0.0, **more)
    return sessions


def configure(sessions: Sessions, peer: SessionConfig, now: float, **more: dict[str, Refusal]) -> None:
    kept = {} if peer.admin_down or "tor" in more.get("refused", {}) else {"tor": peer}
    sessions.configure({"tor": peer}, Arranged(Config(kept), **more), now)


def test_from_nothing_to_established_and_back() -> None:
    sessions = configured()
    assert sessions.states["tor"].state == "connect"
    assert sessions.hear(text.Fsm(HERE, "opensent"), 1.0) == []
    assert (sessions.states["tor"].state, sessions.states["tor"].since) == ("opensent", 1.0)
    assert sessions.hear(text.Fsm(HERE, "established"), 2.0) == []  # Up reports it
    assert not sessions.up()
    assert sessions.hear(text.Up(HERE), 2.0) == ["tor"]
    assert sessions.up() == {"tor"}
    assert sessions.hear(text.Fsm(HERE, "idle"), 3.0) == []  # Down reports it, with the reason
    assert sessions.up() == {"tor"}
    sessions.hear(text.Notification(HERE, 6, 2, "bye"), 3.0)
    assert sessions.hear(text.Down(HERE, "notification received (6,2): Cease"), 3.0) == ["tor"]
    state = sessions.states["tor"]
    assert (state.state, state.since, state.losses) == ("connect", 3.0, 1)
    assert state.loss == Loss(LossKind.NOTIFICATION, 6, 2, "bye")


def test_a_notification_of_the_session_before_explains_nothing() -> None:
    sessions = configured()
    sessions.hear(text.Notification(HERE, 6, 2, "old"), 0.0)
    sessions.hear(text.Up(HERE), 1.0)
    sessions.hear(text.Down(HERE, "notification received (6,2): Cease"), 2.0)
    assert sessions.states["tor"].loss == Loss(LossKind.NOTIFICATION, 6, 2)


def test_the_answer_to_the_last_attempt_is_told_also_after_a_loss() -> None:
    """A working peer is edited to a wrong AS: we ended the session, and the router's answer now is the reason."""
    sessions = configured()
    sessions.hear(text.Up(HERE), 1.0)
    configure(sessions, replace(PEER, peer_as=64999), 2.0)
    sessions.hear(text.Down(HERE, "stop, message [removed]"), 2.0)
    assert words.why_down(sessions.states["tor"]).startswith("PorterLB ended the session")
    sessions.hear(text.Down(HERE, "notification sent (2,2): OPEN message error"), 3.0)
    assert "bad peer AS (2/2)" in words.why_down(sessions.states["tor"])
    sessions.hear(text.Down(HERE, "closing connection: [Errno 111] refused"), 4.0)
    assert words.why_down(sessions.states["tor"]).startswith("PorterLB ended")  # not the refused attempt
    sessions.hear(text.Up(HERE), 5.0)
    assert sessions.states["tor"].attempt is None


def test_an_edit_forgets_the_attempts_before_it() -> None:
    sessions = configured()
    sessions.hear(text.Down(HERE, "notification sent (2,2): OPEN message error"), 1.0)
    assert sessions.states["tor"].attempt is not None
    configure(sessions, PEER, 2.0)
    assert sessions.states["tor"].attempt is not None
    configure(sessions, replace(PEER, peer_as=64601), 3.0)
    assert sessions.states["tor"].attempt is None


def test_refused_and_disabled_peers() -> None:
    refusal = Refusal(RefusalKind.NO_ROUTE, HERE)
    sessions = configured(refused={"tor": refusal})
    assert (sessions.states["tor"].state, sessions.states["tor"].refusal) == ("idle", refusal)
    assert sessions.hear(text.Up(HERE), 1.0) == []  # an unknown peer
    configure(sessions, replace(PEER, passive=True), 2.0)
    assert (sessions.states["tor"].state, sessions.states["tor"].refusal) == ("active", None)
    configure(sessions, replace(PEER, admin_down=True), 3.0)
    assert sessions.states["tor"].state == ADMIN_DOWN
    configure(sessions, PEER, 4.0, limited={"tor": refusal})
    assert (sessions.states["tor"].state, sessions.states["tor"].limit) == ("connect", refusal)
    sessions.configure({}, Arranged(), 5.0)
    assert not sessions.states


def test_what_was_missed_is_told_apart() -> None:
    sessions = configured()
    assert sessions.hear(text.Shown({HERE: "established"}, {HERE: 4.0}), 10.0) == ["tor"]
    assert sessions.states["tor"].since == 6.0
    assert sessions.hear(text.Shown({HERE: "established"}, {HERE: 5.0}), 11.0) == []
    assert sessions.hear(text.Shown({}), 12.0) == ["tor"]
    assert sessions.states["tor"].loss == Loss(LossKind.UNHEARD)


def test_a_peer_that_comes_back_before_a_reload_is_looked_for() -> None:
    """ExaBGP kept its session, and reports no event."""
    sessions = configured()
    assert sessions.unseen == {"tor"}
    sessions.hear(text.Shown({HERE: "established"}, {HERE: 4.0}), 10.0)
    assert not sessions.unseen
    sessions.configure({}, Arranged(Config({})), 11.0)
    assert not sessions.states and not sessions.unseen
    configure(sessions, PEER, 11.1)
    assert sessions.unseen == {"tor"} and not sessions.up()
    assert sessions.hear(text.Shown({HERE: "established"}, {HERE: 5.2}), 11.2) == ["tor"]
    assert sessions.up() == {"tor"} and not sessions.unseen
    configure(sessions, replace(PEER, hold_time=30), 12.0)
    assert not sessions.unseen, "an edit of a peer is no new peer"


def test_the_end_of_exabgp_is_the_end_of_its_sessions_only() -> None:
    sessions = configured()
    sessions.lose_all(Trouble(TroubleKind.HUNG), 1.0)
    assert sessions.states["tor"].losses == 0
    sessions.hear(text.Up(HERE), 2.0)
    sessions.lose_all(Trouble(TroubleKind.KILLED, 9), 3.0)
    assert words.why_down(sessions.states["tor"]) == "ExaBGP was killed by signal 9."
    assert sessions.states["tor"].losses == 1


def test_what_was_negotiated_counts_from_the_establishment_and_is_kept_after_the_loss() -> None:
    sessions, agreed = configured(), Negotiated((4,), (), 9)
    sessions.hear(text.Opened(HERE, agreed), 1.0)
    assert sessions.states["tor"].negotiated is None
    sessions.hear(text.Up(HERE), 1.1)
    assert sessions.states["tor"].negotiated == agreed
    sessions.hear(text.Down(HERE, "x"), 2.0)
    sessions.hear(text.Opened(HERE, Negotiated((4, 6), (4, 6), 9)), 3.0)
    assert sessions.states["tor"].negotiated == agreed
    sessions.hear(text.Shown({HERE: "established"}, {}, {}, {HERE: Negotiated((6,))}), 4.0)
    assert sessions.states["tor"].negotiated == Negotiated((6,))


def test_a_path_of_several_fits_only_where_add_path_was_negotiated() -> None:
    sessions, one, several = configured(), Path("tor", HERE), Path("tor", HERE, 7)
    difference = Difference()
    difference.set_peers(frozenset({"tor"}))
    difference.want({several: frozenset({"192.0.2.1/32"})})
    batch = difference.next(10)
    assert batch is not None
    difference.done(batch)
    assert sessions.fits(several) and not sessions.unfit("tor", difference)  # nothing is known yet
    sessions.hear(text.Opened(HERE, Negotiated((4, 6), (6,))), 1.0)
    sessions.hear(text.Up(HERE), 1.0)
    assert not sessions.fits(several) and sessions.fits(one) and sessions.unfit("tor", difference)
    difference.want({})
    difference.cleared("tor")
    assert not sessions.unfit("tor", difference) and not difference.busy()


def test_the_difference_from_what_was_configured_is_told() -> None:
    both = replace(PEER, add_path=True)
    assert words.lacks(both, Negotiated((4, 6), (4, 6))) == ""
    assert "IPv6 routes" in words.lacks(both, Negotiated((4,), (4,)))
    assert "sendMax) for IPv4" in words.lacks(both, Negotiated((4, 6), (6,)))
    assert words.lacks(PEER, Negotiated((4, 6))) == ""


def test_the_text_for_hellos() -> None:
    for agreed in (Negotiated(), Negotiated((4,)), Negotiated((4, 6), (6,)), Negotiated((6,), (6,))):
        assert from_text(agreed.text) == agreed
    assert from_text("5") is None
