"""The notices about segments and replicas that users see."""

from __future__ import annotations

import pytest

from porterlb.core import wire_text
from porterlb.core.hello import Hello, encode
from porterlb.core.layer2.notices import sentence
from porterlb.core.layer2.serving import LISTEN
from porterlb.core.observed import Notice, NoticeKind
from tests.core.layer2.test_engine import ORDER, A
from tests.core.layer2.world import KEY, World


@pytest.fixture
def world() -> World:
    made = World("n1", "n2", "n3")
    made.vips((A, ORDER))
    made.run(LISTEN + 1.0)
    assert not made.replicas["n1"].report.get("notices")
    return made


@pytest.mark.parametrize("kind", NoticeKind)
def test_every_notice_has_a_sentence_that_names_its_nodes_and_survives_the_pipe(kind) -> None:
    notice = Notice(kind, "10.0.0.0/24", ("n2", "n3"))
    words = str(sentence(notice))
    assert words.endswith(".") and ("n2, n3" in words or kind is NoticeKind.DIFFERS)
    assert wire_text.read_report(__import__("json").loads(wire_text.report_line({"notices": (notice,)}))) == {
        "notices": (notice,)
    }


def heard(world: World, data: bytes) -> tuple[Notice, ...]:
    n1 = world.replicas["n1"]
    n1.do(n1.layer2.hello(data, world.now), world.now)
    world.run(1.1)
    return tuple(n1.report.get("notices", ()))


def test_a_replica_with_another_key_is_named(world: World) -> None:
    world.hung = {"n3"}
    world.run(0.5)
    data = encode(Hello("n3", 1, 10**18), b"the key of another cluster")
    assert Notice(NoticeKind.WRONG_KEY, "", ("n3",)) in heard(world, data)
    world.run(12.0)
    assert Notice(NoticeKind.WRONG_KEY, "", ("n3",)) not in world.replicas["n1"].report["notices"]


def test_forged_datagrams_name_nobody_that_is_heard_and_no_stranger(world: World) -> None:
    for node in ("n3", "stranger", "n1"):
        assert heard(world, encode(Hello(node, 1, 10**18), b"the key of an attacker")) == ()


def test_a_replica_whose_boot_number_went_back_is_named(world: World) -> None:
    world.hung = {"n3"}
    world.run(0.5)
    assert Notice(NoticeKind.OLD_BOOT, "", ("n3",)) in heard(world, encode(Hello("n3", 0, 1), KEY))


def test_another_manager_with_our_name_is_named(world: World) -> None:
    assert Notice(NoticeKind.OWN_NAME, "", ("n1",)) in heard(world, encode(Hello("n1", 9, 1), KEY))


def test_hellos_that_do_not_arrive_are_named_while_the_nodes_answer(world: World) -> None:
    world.hung = {"n2", "n3"}  # their kernels answer
    world.run(2.5)
    assert Notice(NoticeKind.HELLOS_MISSING, "", ("n2", "n3")) in world.replicas["n1"].report["notices"]


def test_two_answers_for_one_vip_are_settled_within_a_second() -> None:
    """The two replicas were given different orders; the test delivers the frames."""
    from porterlb.core.layer2 import actions as act  # noqa: PLC0415
    from tests.core.layer2.test_engine import PACKED  # noqa: PLC0415
    from tests.core.layer2.world import NIC, mac_of  # noqa: PLC0415

    made = World("n1", "n2", "n3")
    made.vips((A, ("n1", "n2", "n3")))
    made.run(LISTEN + 0.5)
    n2 = made.replicas["n2"]
    n2.do(n2.layer2.want_vips([[A, ["n2", "n1", "n3"], "", ""]], []), made.now)
    n2.settle(made.now)
    assert made.answers(A) == {"n1": mac_of("n1"), "n2": mac_of("n2")}
    both = {"n1": made.replicas["n1"], "n2": n2}
    begun = made.now
    seen = dict.fromkeys(both, 0)
    both["n1"].layer2.claimed(PACKED, mac_of("n2"), made.now)
    notices = {"n1": Notice(NoticeKind.TWO_ANSWERS, A, ("n2",)), "n2": Notice(NoticeKind.TWO_ANSWERS, A, ("n1",))}
    while len(made.answers(A)) > 1:
        assert made.now - begun < 1.0
        made.tick()
        for name, other in (("n1", "n2"), ("n2", "n1")):
            replica, answerer = both[name], both[other]
            for address in [a for _, a, _ in replica.announced[seen[name] :]]:
                answerer.layer2.claimed(address, mac_of(name), made.now)
            seen[name] = len(replica.announced)
            while replica.checked:
                replica.checked.pop()
                if PACKED in answerer.owned:
                    replica.do(replica.layer2.heard(NIC, PACKED, answerer.owned[PACKED], made.now), made.now)
                    replica.settle(made.now)
    made.run(0.1)
    (winner,) = made.answers(A)
    (loser,) = both.keys() - {winner}
    assert both[loser].answering[A].answerer == winner
    assert any(note.kind is act.NoteKind.TWO_ANSWERS for note in both[loser].notes)
    made.run(1.0)
    assert notices[loser] in both[loser].report["notices"]
    assert not made.replicas["n3"].report.get("notices")


def test_an_address_of_a_node_that_another_mac_answers_for_is_reported_with_the_node() -> None:
    from tests.core.layer2.world import NIC, mac_of  # noqa: PLC0415

    made = World("n1", "n2", "n3")
    made.run(LISTEN + 0.5)
    n1 = made.replicas["n1"]
    n1.do(n1.layer2.heard(NIC, bytes((10, 0, 0, 2)), b"\4" * 6, made.now), made.now)
    made.run(1.1)
    assert n1.report["notices"] == (Notice(NoticeKind.CONTESTED, "10.0.0.2", ("n2",)),)
    assert mac_of("n2") != b"\4" * 6 and not made.replicas["n3"].report.get("notices")
