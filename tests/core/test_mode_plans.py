"""The mode in the whole plans of all replicas, which have different views at different times.

A small fleet: each replica plans with its own memory. Hellos arrive late, or not at all between two replicas that are
cut off from each other. Replicas are killed and start again with an empty memory. The wire is the sum of all replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from porterlb.core.bgp.negotiated import as_configured
from porterlb.core.desired import DesiredWire
from porterlb.core.mode import ModePolicy, Phase
from porterlb.core.model import Peer, Protocol, Snapshot, View
from porterlb.core.plan import Plan, plan
from tests.core.test_plan import ADDRESS, EIPS, NAMES, cluster, service

POLICY = ModePolicy(return_after=10, widen_after=0, narrow_dwell=0.5, overlap=3, start=10)
VIP = ip_address("10.77.0.201")
ROUTE = "10.77.0.201/32"
PEERS = ("tor-1", "tor-2")


@dataclass
class Replica:
    """``heard``: the last hello of each other replica that is fresh on this replica."""

    plan: Plan | None = None
    heard: dict[str, DesiredWire] = field(default_factory=dict)


class Fleet:
    """Replicas on every node, two routers, one automatic Service. ``up``: the sessions that are really established."""

    def __init__(self, *, standby: bool, add_path: int = 8) -> None:
        self.now = 0.0
        self.standby = standby
        self.protocol = Protocol.AUTO
        self.add_path = add_path
        self.live: dict[str, Replica] = {name: Replica() for name in NAMES}
        self.up: set[tuple[str, str]] = set()
        self.cut: set[frozenset[str]] = set()
        self.sync()

    # Events

    def wait(self, seconds: float) -> None:
        """Advances the time; replicas that asked for a wake-up get it, and hellos continue."""
        until = self.now + seconds
        while True:
            wakes = [r.plan.wake_at for r in self.live.values() if r.plan and r.plan.wake_at is not None]
            self.now = min([until, *(max(self.now + 0.001, at) for at in wakes)])
            self.sync()
            if self.now >= until:
                return

    def session(self, replica: str, peer: str, *, up: bool) -> None:
        """A session comes or goes: its replica learns of it at once, the others by its next hello."""
        if replica in self.live:
            (self.up.add if up else self.up.discard)((replica, peer))
            self.decide(replica)

    def hello(self, sender: str, receiver: str) -> None:
        """One hello, if it can arrive; a stopped or cut-off replica is no longer fresh."""
        if receiver not in self.live or sender == receiver:
            return
        heard = self.live[receiver].heard
        before = heard.get(sender)
        said = self.live[sender].plan if sender in self.live else None
        if said is None or frozenset((sender, receiver)) in self.cut:
            heard.pop(sender, None)
        else:
            heard[sender] = said.wire
        now = heard.get(sender)
        if (before and (before.sessions, before.hold_downs)) != (now and (now.sessions, now.hold_downs)):
            self.decide(receiver)

    def kill(self, name: str) -> None:
        """Kills a replica and its sessions; the others do not know it yet."""
        self.live.pop(name, None)
        self.up = {(replica, peer) for replica, peer in self.up if replica != name}

    def start(self, name: str) -> None:
        if name not in self.live:
            self.live[name] = Replica()
            self.decide(name)

    def sync(self) -> None:
        """Exchanges hellos until every replica has received all reachable information and has decided."""
        for name in self.live:
            self.decide(name)
        for _ in range(4):
            before = [r.plan for r in self.live.values()]
            for receiver in self.live:
                for sender in NAMES:
                    self.hello(sender, receiver)
            if all(r.plan is last for r, last in zip(self.live.values(), before, strict=True)):
                return

    def decide(self, name: str) -> None:
        me = self.live[name]
        me.plan = plan(self.snapshot(name), me.plan, self.now, POLICY)

    def snapshot(self, name: str) -> Snapshot:
        heard = self.live[name].heard
        shop = service("shop", str(VIP))
        base = cluster(name)
        sessions = {(replica, peer) for replica, peer in self.up if replica == name}
        sessions |= {(other, peer) for other, said in heard.items() for peer in said.sessions}
        agreed = as_configured((4,), add_path=self.add_path > 1)
        return replace(
            base,
            view=View(
                name,
                fresh=frozenset({name, *heard}),
                sessions=frozenset(sessions),
                negotiated=dict.fromkeys(((name, peer) for name in NAMES for peer in PEERS), agreed),
                hold_downs={other: said.hold_downs for other, said in heard.items()},
                leader="node-a",
            ),
            services={shop.key: shop},
            endpoints={key: base.endpoints[key] for key in (shop.key,)},
            eips={"auto": replace(EIPS["auto"], layer2_standby=self.standby, protocol=self.protocol)},
            peers={
                peer: Peer(peer, ip_address(f"10.77.0.{i}"), 64500, add_path=self.add_path, families=(4,))
                for i, peer in enumerate(PEERS, 1)
            },
        )

    # State of the wire

    def phases(self) -> dict[str, Phase]:
        return {name: r.plan.vips[VIP].mode.phase for name, r in self.live.items() if r.plan}

    def answering(self) -> set[str]:
        return {name for name, r in self.live.items() if r.plan and VIP in r.plan.wire.vips}

    def announced(self) -> dict[str, set[str]]:
        """Next hops that a router has for the VIP, by router, as announced by the replicas with a session to it."""
        found: dict[str, set[str]] = {}
        for name, replica in self.live.items():
            for path, prefixes in replica.plan.bgp.routes.items() if replica.plan else ():
                if (name, path.peer) in self.up and ROUTE in prefixes:
                    hop = next(node for node, address in ADDRESS.items() if address == path.next_hop)
                    found.setdefault(path.peer, set()).add(hop)
        return found

    def components(self) -> list[set[str]]:
        """Groups of replicas that hear each other, directly or indirectly."""
        left, found = set(self.live), []
        while left:
            part = {left.pop()}
            while more := {o for o in left if any(frozenset((o, p)) not in self.cut for p in part)}:
                part |= more
                left -= more
            found.append(part)
        return found


def fleet(*, standby: bool = True, up: Iterable[str] = NAMES, seconds: float = 1.0) -> Fleet:
    """A fleet some time after these replicas established their sessions with both routers."""
    made = Fleet(standby=standby)
    for name in up:
        for peer in PEERS:
            made.session(name, peer, up=True)
    made.sync()
    made.wait(seconds)
    return made


def all_down(made: Fleet) -> None:
    for name, peer in sorted(made.up):
        made.session(name, peer, up=False)
    made.sync()


def all_up(made: Fleet) -> None:
    for name in made.live:
        for peer in PEERS:
            made.session(name, peer, up=True)
    made.sync()


@pytest.mark.parametrize("standby", [True, False])
def test_restarting_every_replica_one_by_one_changes_nothing_while_bgp_serves(standby: bool) -> None:
    made = fleet(standby=standby)
    for name in NAMES:
        made.kill(name)
        made.sync()
        assert set(made.phases().values()) == {Phase.BGP}
        made.start(name)
        made.sync()
        assert made.phases()[name] is Phase.BGP and bool(made.answering()) == standby
        made.wait(1)
        for peer in PEERS:
            made.session(name, peer, up=True)
        made.sync()
        assert set(made.phases().values()) == {Phase.BGP}
        assert made.announced() == {peer: set(NAMES) for peer in PEERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_restarted_while_the_others_wait_waits_with_them(name: str) -> None:
    made = fleet()
    all_down(made)
    made.wait(5)
    all_up(made)
    made.wait(4)
    made.kill(name)
    made.sync()
    made.start(name)
    made.sync()
    for peer in PEERS:
        made.session(name, peer, up=True)
    assert made.phases()[name] is Phase.WAITING and not made.announced()
    made.sync()
    made.wait(5.9)
    assert set(made.phases().values()) == {Phase.WAITING} and not made.announced()
    made.wait(0.2)
    assert set(made.phases().values()) == {Phase.NARROW}
    assert all(len(hops) == 1 for hops in made.announced().values())
    made.wait(0.6)
    assert set(made.phases().values()) == {Phase.BGP}


def test_a_replica_restarted_while_no_session_is_up_does_not_jump_ahead_with_the_first_one() -> None:
    made = fleet()
    all_down(made)
    made.wait(60)
    made.kill("node-b")
    made.sync()
    made.start("node-b")
    made.sync()
    assert set(made.phases().values()) == {Phase.LAYER2}
    made.session("node-b", "tor-1", up=True)
    assert made.phases()["node-b"] is Phase.WAITING and not made.announced()


def test_a_replica_that_hears_nobody_goes_on_and_its_return_makes_one_mind_again() -> None:
    made = fleet(standby=False)
    made.cut = {frozenset(("node-c", "node-a")), frozenset(("node-c", "node-b"))}
    for name in ("node-a", "node-b"):
        for peer in PEERS:
            made.session(name, peer, up=False)
    made.sync()
    assert made.phases() == {"node-a": Phase.LAYER2, "node-b": Phase.LAYER2, "node-c": Phase.BGP}
    assert made.announced() and made.answering() == {"node-a", "node-b"}
    made.wait(1)
    made.cut = set()
    made.sync()
    # node-c has carried it without interruption: no wait is needed
    assert set(made.phases().values()) == {Phase.BGP}
    assert made.announced() and not made.answering()


def test_a_service_that_comes_during_the_hold_down_waits_with_its_siblings() -> None:
    made = fleet()
    all_down(made)
    made.wait(1)
    all_up(made)
    me = made.live["node-a"]
    before = made.snapshot("node-a")
    late = service("late", "10.77.0.202")
    more = replace(
        before,
        services={**before.services, late.key: late},
        endpoints={**before.endpoints, late.key: before.endpoints[service("shop", str(VIP)).key]},
    )
    found = plan(more, me.plan, made.now, POLICY)
    assert {vip.mode.phase for vip in found.vips.values()} == {Phase.WAITING}


def test_a_peer_that_is_added_or_removed_does_not_change_the_mind() -> None:
    made = fleet()
    me = made.live["node-a"]
    all_down(made)
    made.wait(1)
    made.session("node-a", "tor-1", up=True)
    made.sync()
    assert made.phases()["node-a"] is Phase.WAITING
    now = made.snapshot("node-a")
    for peers in ({"tor-1": now.peers["tor-1"]}, {**now.peers, "tor-3": Peer("tor-3", ip_address("10.77.0.9"), 64500)}):
        changed = plan(replace(now, peers=peers), me.plan, made.now, POLICY)
        assert changed.vips[VIP].mode.phase is Phase.WAITING


names = st.sampled_from(NAMES)
steps = st.one_of(
    st.tuples(st.just("wait"), st.floats(0.01, 12)),
    st.tuples(st.just("up"), names, st.sampled_from(PEERS)),
    st.tuples(st.just("down"), names, st.sampled_from(PEERS)),
    st.tuples(st.just("blackout")),
    st.tuples(st.just("everything")),
    st.tuples(st.just("kill"), names),
    st.tuples(st.just("start"), names),
    st.tuples(st.just("cut"), names, names),
    st.tuples(st.just("heal")),
    st.tuples(st.just("hello"), names, names),
    st.tuples(st.just("sync")),
)


def do(made: Fleet, step: Sequence[object]) -> None:
    match step:
        case ("wait", float(seconds)):
            made.wait(seconds)
        case ("up" | "down" as which, str(name), str(peer)):
            made.session(name, peer, up=which == "up")
        case ("blackout",):
            for name, peer in sorted(made.up):
                made.session(name, peer, up=False)
        case ("everything",):
            for name in list(made.live):
                for peer in PEERS:
                    made.session(name, peer, up=True)
        case ("kill", str(name)) if len(made.live) > 1:
            made.kill(name)
        case ("start", str(name)):
            made.start(name)
        case ("cut", str(one), str(other)) if one != other:
            made.cut.add(frozenset((one, other)))
        case ("heal",):
            made.cut.clear()
        case ("hello", str(sender), str(receiver)):
            made.hello(sender, receiver)
        case ("sync",):
            made.sync()


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, min_size=1, max_size=20), st.booleans(), st.sampled_from([1, 8]))
def test_no_sequence_leaves_a_vip_with_no_way_in(
    sequence: list[tuple[object, ...]], standby: bool, add_path: int
) -> None:
    made = Fleet(standby=standby, add_path=add_path)
    for step in sequence:
        do(made, step)
        if standby:
            # This needs no information from other replicas
            assert made.answering() == set(made.live)
        else:
            fresh = Fleet.__new__(Fleet)
            fresh.__dict__ = {
                **made.__dict__,
                "live": {n: Replica(r.plan, dict(r.heard)) for n, r in made.live.items()},
            }
            fresh.sync()  # the result within one exchange of hellos
            assert fresh.answering() or fresh.announced(), (step, fresh.phases())
    made.sync()
    for part in made.components():
        phases = {phase for name, phase in made.phases().items() if name in part}
        whole = all(frozenset((a, b)) not in made.cut for a in part for b in part if a != b)
        if whole:
            assert len(phases) == 1, made.phases()
            serving = {(name, peer) for name, peer in made.up if name in part}
            if phases == {Phase.BGP}:
                assert serving and made.announced()
            elif phases <= {Phase.LAYER2, Phase.WAITING}:
                assert not any(
                    ROUTE in prefixes
                    for name in part
                    for prefixes in (made.live[name].plan or Plan()).bgp.routes.values()
                )


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, min_size=1, max_size=12), st.booleans(), names)
def test_a_restart_in_any_situation_moves_nobody(sequence: list[tuple[object, ...]], standby: bool, name: str) -> None:
    """A new replica does the same as the others, and does not change their decisions."""
    made = Fleet(standby=standby)
    for step in sequence:
        do(made, step)
    made.cut.clear()
    for other in NAMES:
        made.start(other)
    made.sync()
    made.kill(name)
    made.sync()
    before = set(made.phases().values())
    assert len(before) == 1
    made.start(name)
    made.sync()
    assert set(made.phases().values()) == before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(list(Protocol)), st.floats(0.01, 6)), min_size=1, max_size=12),
    st.booleans(),
)
def test_no_switch_by_hand_leaves_a_gap_while_bgp_is_up(switches: list[tuple[Protocol, float]], standby: bool) -> None:
    made = fleet(standby=standby, seconds=20)
    for protocol, seconds in switches:
        made.protocol = protocol
        for name in NAMES:
            made.decide(name)
            assert made.answering() or set(made.announced()) == set(PEERS)  # they learn of it one after the other
        assert made.answering() or set(made.announced()) == set(PEERS)
        made.wait(seconds)
        assert made.answering() or set(made.announced()) == set(PEERS)
    made.wait(4)
    if made.protocol is Protocol.LAYER2:
        assert not made.announced() and made.answering() == set(NAMES)
    else:
        assert made.announced() == {peer: set(NAMES) for peer in PEERS}
        assert bool(made.answering()) == (standby and made.protocol is Protocol.AUTO)
