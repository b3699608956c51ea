"""Which peers ExaBGP is configured with: a setting that is impossible on this node affects only its own peer."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest

from porterlb.core.bgp import words
from porterlb.core.bgp.config import Arranged, Config, Local, arrange
from porterlb.core.bgp.reasons import Refusal, RefusalKind
from porterlb.core.desired import DesiredBgp, SessionConfig

HERE, THERE = ip_address("10.0.0.9"), ip_address("10.0.0.1")
TOR = SessionConfig("tor", THERE, 64600, 64500, IPv4Address("10.0.0.9"))
OTHER = replace(TOR, peer="other", address=ip_address("10.0.0.2"))
ROUTED = Local(sources={THERE: HERE, OTHER.address: HERE})


def arranged(*sessions: SessionConfig, local: Local = ROUTED, **more: Any) -> Arranged:
    return arrange(DesiredBgp({s.peer: s for s in sessions}, **more), local)


def test_without_listening_sessions_are_as_they_are_wanted() -> None:
    assert arranged(TOR, OTHER) == Arranged(Config({"other": OTHER, "tor": TOR}))


def test_a_disabled_peer_is_left_out_and_hides_nobody() -> None:
    twin = replace(TOR, peer="a", admin_down=True)
    assert arranged(TOR, twin) == Arranged(Config({"tor": TOR}))


def test_one_address_has_one_session() -> None:
    found = arranged(TOR, replace(TOR, peer="zeta"))
    assert found.config.sessions.keys() == {"tor"}
    assert found.refused == {"zeta": Refusal(RefusalKind.SAME_ADDRESS, THERE, other="tor")}


def test_listening_needs_the_local_address_and_tells_exabgp_of_it() -> None:
    found = arranged(TOR, listen_port=1179)
    assert found.config.sessions["tor"].local_address == HERE
    assert found.config.listen == {"tor": 1179}
    assert found.config.listeners == {(HERE, 1179)}


PASSIVE = replace(TOR, passive=True)


@pytest.mark.parametrize(
    ("local", "more", "kind", "told"),
    [
        (replace(ROUTED, listeners=frozenset({(HERE, 179)})), {}, RefusalKind.PORT_TAKEN, True),
        (replace(ROUTED, listeners=frozenset({(ip_address("0.0.0.0"), 179)})), {}, RefusalKind.PORT_TAKEN, True),
        (replace(ROUTED, listeners=frozenset({(ip_address("::"), 179)})), {}, RefusalKind.PORT_TAKEN, True),
        (replace(ROUTED, first_port=1024), {}, RefusalKind.PORT_PRIVILEGED, True),
        (Local(), {}, RefusalKind.NO_ROUTE, False),
        (ROUTED, {"listen_addresses": (ip_address("10.0.0.8"),)}, RefusalKind.NOT_LISTENING, False),
    ],
)
def test_what_keeps_from_listening_refuses_a_passive_peer_alone(
    local: Local, more: dict[str, Any], kind: RefusalKind, told: bool
) -> None:
    found = arranged(PASSIVE, OTHER, local=local, listen_port=179, **more)
    assert found.refused["tor"].kind is kind
    assert words.refusal(found.refused["tor"]).endswith(".")
    assert found.config.sessions == {"other": OTHER}  # this node opens that session
    assert not found.config.listen
    assert found.limited.keys() == ({"other"} if told else set())


def test_a_passive_peer_needs_a_port() -> None:
    assert arranged(PASSIVE).refused["tor"].kind is RefusalKind.NO_LISTEN_PORT


def test_ports_of_others_and_of_other_addresses_do_not_matter() -> None:
    listeners = frozenset({(HERE, 180), (ip_address("10.0.0.8"), 179), (ip_address("::1"), 179)})
    found = arranged(PASSIVE, local=replace(ROUTED, listeners=listeners), listen_port=179)
    assert found.config.listen == {"tor": 179}
    assert not found.refused


def test_an_address_that_the_node_does_not_have_refuses_its_peer_alone() -> None:
    absent = ip_address("10.0.0.77")
    found = arranged(replace(TOR, local_address=absent), OTHER, local=replace(ROUTED, absent=frozenset({absent})))
    assert found.refused == {"tor": Refusal(RefusalKind.ADDRESS_ABSENT, absent)}
    assert found.config.sessions == {"other": OTHER}
    twin = replace(TOR, peer="zeta")  # a refused peer does not take an address from others
    assert arranged(
        replace(TOR, local_address=absent), twin, local=replace(ROUTED, absent=frozenset({absent}))
    ).config.sessions == {"zeta": twin}
