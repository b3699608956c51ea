"""The difference between what is wanted and what ExaBGP has: every story of changes ends in the same place."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.model import Network
from porterlb.core.wanted import Path
from porterlb.edge.bgp.difference import Batch, Difference

PREFIXES = [ip_network(f"192.0.2.{i}/32") for i in range(12)]
Routes = dict[Path, frozenset[Network]]


@dataclass
class Router:
    """What the peers of an ExaBGP that does as told would have: paths by peer and prefix. Keeps the worst moment."""

    paths: dict[tuple[str, int, Network], Path] = field(default_factory=dict)

    def take(self, batch: Batch) -> None:
        for prefix in batch.prefixes:
            key = (batch.path.peer, batch.path.path_id, prefix)
            if batch.withdraw:
                self.paths.pop(key, None)
            else:
                self.paths[key] = batch.path

    def reached(self, peer: str, prefix: Network) -> bool:
        return any(key[0] == peer and key[2] == prefix for key in self.paths)


def path(hop: int, path_id: int = 0, peer: str = "p") -> Path:
    return Path(peer, ip_address(f"10.0.0.{hop}"), path_id)


def drain(difference: Difference, router: Router, most: int = 5, bad: frozenset[Network] = frozenset()) -> list[Batch]:
    said = []
    while batch := difference.next(most):
        said.append(batch)
        if not batch.withdraw and bad & set(batch.prefixes):
            difference.failed(batch, "no")
            continue
        router.take(batch)
        difference.done(batch)
    return said


def wanted_paths(routes: Routes, peers: frozenset[str]) -> dict[tuple[str, int, Network], Path]:
    return {(p.peer, p.path_id, n): p for p, nets in routes.items() for n in nets if p.peer in peers}


@st.composite
def route_sets(draw: st.DrawFn) -> Routes:
    """Up to three paths of a prefix at each of two peers, at most one in a slot."""
    slots: dict[Path, set[Network]] = defaultdict(set)
    for peer in ("p", "q"):
        for prefix in PREFIXES:
            for path_id in draw(st.sets(st.integers(0, 2), max_size=2)):
                slots[path(draw(st.integers(1, 3)), path_id, peer)].add(prefix)
    return {p: frozenset(nets) for p, nets in slots.items()}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), route_sets()),
        st.tuples(st.just("say"), st.integers(1, 4)),
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
    difference.set_peers(frozenset({"p", "q"}))
    for what, value in story:
        if what == "want":
            difference.want(value)  # type: ignore[arg-type]
        elif what == "say":
            for _ in range(value):  # type: ignore[call-overload]
                if batch := difference.next(3):
                    router.take(batch)
                    difference.done(batch)
        elif what == "lose ack":
            if batch := difference.next(3):
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
    drain(difference, router)
    assert router.paths == wanted_paths(end, difference.peers)
    assert not difference.busy()
    assert difference.count() == len(router.paths)


@given(route_sets(), route_sets())
@settings(deadline=None)
def test_a_prefix_that_is_wanted_before_and_after_is_never_without_a_path(before: Routes, after: Routes) -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p", "q"}))
    difference.want(before)
    drain(difference, router)
    difference.want(after)
    both = {(k[0], k[2]) for k in wanted_paths(before, difference.peers)} & {
        (k[0], k[2]) for k in wanted_paths(after, difference.peers)
    }
    while batch := difference.next(1):
        router.take(batch)
        difference.done(batch)
        assert all(router.reached(*key) for key in both)


def test_a_dead_next_hop_goes_before_anything_else() -> None:
    difference, router = Difference(), Router()
    difference.set_peers(frozenset({"p"}))
    nets = frozenset(PREFIXES[:4])
    difference.want({path(1, 1): nets, path(2, 2): nets})
    drain(difference, router)
    difference.want({path(2, 2): nets, path(3, 3): nets, path(3, 4): frozenset(PREFIXES[4:])})
    first = difference.next(48)
    assert first == Batch(path(1, 1), tuple(nets), withdraw=True)


def test_a_small_new_change_overtakes_a_big_old_one() -> None:
    difference = Difference()
    difference.set_peers(frozenset({"p"}))
    big = frozenset(IPv4Network((0x0A000000 + i, 32)) for i in range(1000))
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
