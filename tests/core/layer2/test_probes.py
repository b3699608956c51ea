"""Findings about single targets, without the judgement."""

from __future__ import annotations

import pytest

from porterlb.core.hello import GATEWAY
from porterlb.core.layer2.probes import NEVER_HEARD, Probes
from porterlb.core.layer2.targets import Target, TargetKey

NIC = 1
ONE, TWO = TargetKey(NIC, b"\n\0\0\1"), TargetKey(NIC, b"\n\0\0\2")
MAC = b"\2" * 6


@pytest.fixture
def probes() -> Probes:
    """n1 and a gateway."""
    made = Probes(0.05, 3)
    made.set_targets([Target("n1", ONE), Target(GATEWAY, TWO)])
    return made


def miss(probes: Probes, key: TargetKey, times: int) -> None:
    for _ in range(times):
        probes.sent(key)


def test_nodes_that_never_answered_are_unwell_and_gateways_never_are(probes: Probes) -> None:
    assert probes.unwell.keys() == {ONE}
    assert probes.heard(ONE, MAC, 1.0) == ("n1", True, True) and not probes.unwell
    probes.set_targets([Target("n1", ONE), Target("n2", TWO)])
    assert probes.unwell.keys() == {TWO}


def test_an_interface_is_isolated_when_all_that_ever_answered_there_answer_no_more(probes: Probes) -> None:
    miss(probes, ONE, 9)
    miss(probes, TWO, 9)
    assert not probes.isolated(NIC, 4), "nobody has ever answered"
    probes.heard(ONE, MAC, 1.0)
    probes.heard(TWO, MAC, 1.0)
    miss(probes, ONE, 4)
    miss(probes, TWO, 3)
    assert not probes.isolated(NIC, 4)
    miss(probes, TWO, 1)
    assert probes.isolated(NIC, 4) and not probes.isolated(NIC, 5) and not probes.isolated(NIC + 1, 4)
    probes.heard(TWO, MAC, 2.0)
    assert not probes.isolated(NIC, 4)


def test_a_node_that_never_answered_counts_for_isolation_once_it_is_silent() -> None:
    probes = Probes(0.05, 3)
    probes.set_targets([Target("n1", ONE)])
    miss(probes, ONE, NEVER_HEARD - 1)
    assert not probes.judge(1.0) and not probes.isolated(NIC, 4)
    miss(probes, ONE, 1)
    assert probes.judge(1.0) and probes.isolated(NIC, 4)


def test_the_latest_answer_of_all(probes: Probes) -> None:
    assert probes.latest == 0.0
    probes.heard(TWO, MAC, 3.0)
    probes.heard(ONE, MAC, 2.0)
    assert probes.latest == 3.0


def test_contacts_are_the_first_two_that_answered_lately(probes: Probes) -> None:
    probes.set_targets(
        [Target(name, TargetKey(NIC, bytes((10, 0, 0, at)))) for at, name in enumerate(("n1", "n2", "n3"), 1)]
    )
    assert probes.contacts(NIC, 0.0) == ()
    for at in (1, 2, 3):
        probes.heard(TargetKey(NIC, bytes((10, 0, 0, at))), MAC, float(at))
    assert probes.contacts(NIC, 0.0) == ("n1", "n2")
    assert probes.contacts(NIC, 0.0, but="n1") == ("n2", "n3")
    assert probes.contacts(NIC, 2.0) == ("n2", "n3") and probes.contacts(NIC, 3.0) == ("n3",)
