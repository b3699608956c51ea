"""The difference between the wanted paths and those in ExaBGP: any sequence of changes ends in the same state."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.bgp.difference import Batch, Difference
from porterlb.core.bgp.next_line import NextLine
from porterlb.core.desired import Path, Prefix, SessionConfig

PREFIXES = [f"192.0.2.{i}/32" for i in range(12)]
Routes = dict[Path, frozenset[Prefix]]


@dataclass
class Router:
    """The paths that the peers have if ExaBGP executes every command, by peer and prefix."""

    paths: dict[tuple[str, int, Prefix], Path] = field(default_factory=dict)

    def take(self, batch: Batch) -> None:
        for prefix in batch.prefixes:
            key = (batch.path.peer, batch.path.path_id, prefix)
            if batch.withdraw:
                self.paths.pop(key, None)
            else:
                self.paths[key] = batch.path

    def reached(self, peer: str, prefix: Prefix) -> bool:
        return any(key[0] == peer and key[2] == prefix for key in self.paths)


def path(hop: int, path_id: int = 0, peer: str = "p") -> Path:
    return Path(peer, ip_address(f"10.0.0.{hop}"), path_id)


def drain(difference: Difference, router: Router, most: int = 5, bad: frozenset[Prefix] = frozenset()) -> list[Batch]:
    said = []
    while batch := difference.next(most):
        said.append(batch)
        if not batch.withdraw and bad & set(batch.prefixes):
            difference.failed(batch, "no")
            continue
        router.take(batch)
        difference.done(batch)
    return said


SESSIONS = {
    name: SessionConfig(name, ip_address(f"10.0.1.{at}"), 64500, 64512, IPv4Address("10.0.0.1"), add_path=True)
    for at, name in enumerate("pq")
}


class Speaker:
    """Sends one batch after the other; the next batch is made before the last one is acknowledged."""

    def __init__(self, difference: Difference, most: int) -> None:
        self.difference, self.ahead = difference, NextLine(difference, most)

    def take(self) -> Batch | None:
        line = self.ahead.take(SESSIONS)
        if line is None:
            return None
        assert line.text and all(prefix in line.text.split() for prefix in line.batch.prefixes)
        self.ahead.make(SESSIONS)
        return line.batch


def wanted_paths(routes: Routes, peers: frozenset[str]) -> dict[tuple[str, int, Prefix], Path]:
    return {(p.peer, p.path_id, n): p for p, nets in routes.items() for n in nets if p.peer in peers}


@st.composite
def route_sets(draw: st.DrawFn) -> Routes:
    """Up to three paths of a prefix for each of two peers, at most one in a slot."""
    slots: dict[Path, set[Prefix]] = defaultdict(set)
    for peer in ("p", "q"):
        for prefix in PREFIXES:
            for path_id in draw(st.sets(st.integers(0, 2), max_size=2)):
                slots[path(draw(st.integers(1, 3)), path_id, peer)].add(prefix)
    return {p: frozenset(nets) for p, nets in slots.items()}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), route_sets()),
        st.tuples(st.just("say"), st.integers(1, 4)),
        st.tuples(st.just("want before the ack"), route_sets()),
        st.tuples(st.just("lose ack"), st.booleans()),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("peers"), st.sets(st.sampled_from(["p", "q"]))),
    ),
    max_size=14,
)


@given(steps, route_sets())
@settings(max_examples=150, deadline=None)
def test_every_story_ends_with_exactly_the_wanted_routes(story: list[tuple[str, object]], end: Routes) -> None:
    difference, router = Difference(), Router()
    speaker = Speaker(difference, 3)
    difference.set_peers(frozenset({"p", "q"}))
    for what, value in story:
        if what == "want":
            difference.want(value)  # type: ignore[arg-type]
        elif what == "say":
            for _ in range(value):  # type: ignore[call-overload]
                if batch := speaker.take():
                    router.take(batch)
                    difference.done(batch)
        elif what == "want before the ack":
            batch = speaker.take()
            difference.want(value)  # type: ignore[arg-type]
            if batch:
                router.take(batch)
                difference.done(batch)
        elif what == "lose ack":
            if batch := speaker.take():
                if value:
                    router.take(batch)
                difference.unsure(batch)
                for peer in difference.peers:
                    difference.resync(peer)
        elif what == "restart":
            router.paths.clear()
            peers = difference.peers
            difference.set_peers(frozenset())
            difference.set_peers(peers)
        else:
            gone = difference.peers - value  # type: ignore[operator]
            router.paths = {k: v for k, v in router.paths.items() if k[0] not in gone}
            difference.set_peers(frozenset(value))  # type: ignore[call-overload]
    difference.want(end)
    while batch := speaker.take():
        router.take(batch)
        difference.done(batch)
    assert router.paths == wanted_paths(end, difference.peers)
    assert not difference.busy()
    assert difference.count() == len(router.paths)


@given(route_sets(), route_sets(), st.sets(st.integers(0, 30)))
@settings(deadline=None)
def test_a_prefix_that_is_wanted_before_and_after_is_never_without_a_path(
    before: Routes, after: Routes, refused: set[int]
) -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p", "q"}))
    difference.want(before)
    drain(difference, router)
    difference.want(after)
    both = {(k[0], k[2]) for k in wanted_paths(before, difference.peers)} & {
        (k[0], k[2]) for k in wanted_paths(after, difference.peers)
    }
    speaker = Speaker(difference, 2)
    at = 0
    while batch := speaker.take():
        if at in refused and len(batch.prefixes) > 1 and not batch.withdraw:
            difference.failed(batch, "no")  # the difference then tries halves
        else:
            router.take(batch)
            difference.done(batch)
        assert all(router.reached(*key) for key in both)
        at += 1


def test_a_path_that_is_not_wanted_any_more_when_it_is_acknowledged_is_withdrawn() -> None:
    """The session came up before the acknowledgement and negotiated add-path. The path without an identifier stayed in
    ExaBGP and was announced in every later session, although no plan wanted it."""
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    difference.want({path(1): frozenset(PREFIXES[:2])})
    batch = difference.next(5)
    assert batch is not None
    difference.want({path(1, 7): frozenset(PREFIXES[:2])})
    router.take(batch)
    difference.done(batch)
    drain(difference, router)
    assert set(router.paths) == {("p", 7, prefix) for prefix in PREFIXES[:2]}


def test_a_path_that_is_wanted_again_when_its_withdrawal_is_acknowledged_is_announced() -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    difference.want({path(1): frozenset(PREFIXES[:2])})
    drain(difference, router)
    difference.want({})
    batch = difference.next(5)
    assert batch is not None and batch.withdraw
    difference.want({path(1): frozenset(PREFIXES[:1])})
    router.take(batch)
    difference.done(batch)
    drain(difference, router)
    assert set(router.paths) == {("p", 0, PREFIXES[0])}


def test_what_became_urgent_goes_before_a_line_that_was_made_ahead() -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    difference.want({path(1, 1): frozenset(PREFIXES[:1])})
    drain(difference, router)
    speaker = Speaker(difference, 2)
    difference.want({path(1, 1): frozenset(PREFIXES)})
    first = speaker.take()
    assert first is not None and len(first.prefixes) == 2
    difference.done(first)
    difference.want({path(1, 1): frozenset(PREFIXES[1:])})
    assert speaker.take() == Batch(path(1, 1), (PREFIXES[0],), withdraw=True)


def test_a_dead_next_hop_goes_before_anything_else() -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    nets = frozenset(PREFIXES[:4])
    difference.want({path(1, 1): nets, path(2, 2): nets})
    drain(difference, router)
    difference.want({path(2, 2): nets, path(3, 3): nets, path(3, 4): frozenset(PREFIXES[4:])})
    first = difference.next(48)
    assert first is not None and (first.path, first.withdraw, set(first.prefixes)) == (path(1, 1), True, set(nets))


def test_a_small_new_change_overtakes_a_big_old_one() -> None:
    difference = Difference()
    difference.set_peers(frozenset({"p"}))
    big = frozenset(f"{IPv4Address(0x0A000000 + i)}/32" for i in range(1000))
    difference.want({path(1): big})
    first = difference.next(48)
    assert first is not None
    difference.done(first)
    difference.want({path(1): big, path(2): frozenset(PREFIXES[:1])})
    assert difference.next(48) == Batch(path(2), (PREFIXES[0],))


def test_the_one_refused_route_is_found_and_not_tried_again() -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    bad = frozenset({PREFIXES[7]})
    routes: Routes = {path(1): frozenset(PREFIXES)}
    difference.want(routes)
    drain(difference, router, most=48, bad=bad)
    assert set(difference.rejected) == {(path(1), PREFIXES[7])}
    assert {key[2] for key in router.paths} == set(PREFIXES) - bad
    difference.want({path(1): frozenset(PREFIXES), path(2, 1): frozenset(PREFIXES[:1])})
    assert [batch.path for batch in drain(difference, router, bad=bad)] == [path(2, 1)]
    difference.want({path(2): frozenset(PREFIXES)})
    drain(difference, router)
    assert not difference.rejected
    assert len(router.paths) == len(PREFIXES)


def test_paths_that_contradict_each_other_give_one_route_and_leave_none_behind() -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    one = frozenset(PREFIXES[:1])
    difference.want({path(1): one, path(2): one})
    drain(difference, router)
    assert list(router.paths.values()) == [path(1)]
    difference.want({path(2): one})
    drain(difference, router)
    assert list(router.paths.values()) == [path(2)]
    difference.want({})
    drain(difference, router)
    assert not router.paths


def test_the_order_of_the_work_does_not_depend_on_hashes() -> None:
    """Found by the simulator: one seed gave two orders. The hash of a path differs between processes."""
    difference = Difference()
    difference.set_peers(frozenset({"p"}))
    paths = [path(hop, path_id=hop) for hop in range(1, 30)]
    difference.want({one: frozenset(PREFIXES[:2]) for one in paths})
    assert [batch.path for batch in drain(difference, Router())] == paths
