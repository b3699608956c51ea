"""One VIP over several nodes: each asker on the segment is answered with its own next hop.

One replica (the leader's if it answers) places unknown askers: it assigns each one to a node, answers it with the MAC
of that node, and tells the other replicas in its hellos. From then on the replica that answers for that node answers
the asker. The other replicas note an unknown asker. If no assignment arrives in time, or if a node is out, every
replica places the asker by the same function of the same table, and assigns the askers of nodes for which it answers.

A host that verifies its neighbour entry asks by unicast, so only its next hop receives the question: the host keeps
that next hop, whatever the table says. The table may therefore lack hosts with an entry, for example after restarts.
If only one node is left, the VIP is announced to all, because every host must use this node. Times: monotonic seconds,
as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from porterlb.core.hello import Assignment, Hello
from porterlb.core.layer2.actions import Tell
from porterlb.core.layer2.announcer import Announcer
from porterlb.core.layer2.askers import AskerTable, Key, place
from porterlb.core.layer2.questions import Asker

WITHIN = 0.1
"""Seconds to wait for an assignment from the replica of the node that an asker falls to."""
TRIES = 3
MOST_PENDING = 1024
RENEW = 60.0
"""Seconds after which the assignment of an asker that asks again is sent to the other replicas again: the assignments
with the oldest stamps are dropped first."""
IDLE = 600.0
"""Seconds since the last assignment or renewal after which an asker that does not ask by unicast, and therefore has no
neighbour entry, may get another node."""
COALESCE = 0.002  # seconds; assignments within this time share one hello
REPEATS = 3  # hellos that carry an assignment: one may be lost
PIECE = 20  # assignments in a hello: 400 to 900 bytes
ROTATE = 1.0  # seconds between two pieces of the whole table
BULK = 4  # pieces per hello interval while another replica listens before it answers
PATIENCE = 1.5
"""Maximum seconds for which a starting replica waits until it knows the askers that the others know."""


@dataclass(frozen=True, slots=True)
class Roster:
    """The nodes of a VIP on its segment, as one replica sees them.

    ``keep``: usable and alive nodes, whose askers stay. ``take``: the nodes among them that get new askers. ``ours``:
    nodes for which this replica answers; ``macs``: MACs by node. ``serves``: whether this replica answers at all;
    ``places``: whether this replica places new askers.
    """

    ifindex: int
    keep: frozenset[str] = frozenset()
    take: frozenset[str] = frozenset()
    ours: frozenset[str] = frozenset()
    macs: Mapping[str, bytes] = field(default_factory=dict)
    serves: bool = False
    places: bool = False

    @property
    def sole(self) -> tuple[int, str, bytes] | None:
        """The only node left, if this replica answers for it: the interface, the node and its MAC."""
        if not self.serves or len(self.keep) != 1 or not self.keep <= self.ours:
            return None
        node = min(self.keep)
        return self.ifindex, node, self.macs[node]


@dataclass(slots=True)
class _Pending:
    """An asker that another replica should assign; ``node``: the node on which this replica would place it."""

    node: str
    address: bytes
    since: float
    tries: int = 0


class Spread:
    """The spread VIPs, by packed address. Call `due` at `next_at`, and then send a `piece` in each hello.

    Args:
        own: our node.
    """

    def __init__(self, own: str, announcer: Announcer) -> None:
        self._own = own
        self._announcer = announcer
        self._table = AskerTable()
        self._rosters: dict[bytes, Roster] = {}
        self._held: set[Key] = set()  # askers of nodes for which we answer
        self._pending: dict[Key, _Pending] = {}
        self._news: dict[Key, int] = {}  # number of hellos that will still carry each one
        self._forgotten: set[bytes] = set()  # VIPs whose spread was turned off
        self._rotation: list[Key] = []
        self._rotated = float("-inf")
        self._waits: float | None = None
        self._say_at: float | None = None

    # ---- current state

    def __len__(self) -> int:
        """The number of known askers."""
        return len(self._table)

    @property
    def next_at(self) -> float | None:
        """When `due` has something to do."""
        if not self._pending:
            return self._say_at
        times = [pending.since + WITHIN for pending in self._pending.values()]
        if self._say_at is not None:
            times.append(self._say_at)
        return min(times, default=None)

    def informed(self, others: Iterable[Hello], now: float, fresh_for: float) -> bool:
        """Whether we know as many askers as the replicas that answer, or have waited long enough.

        Args:
            fresh_for: seconds within which each live replica sends a hello.
        """
        if self._waits is None:
            self._waits = now
        if now - self._waits < fresh_for:
            return False
        most = max((hello.known_askers for hello in others if hello.answers), default=0)
        return len(self._table) >= most or now - self._waits >= PATIENCE

    def counts(self) -> dict[bytes, Mapping[str, int]]:
        """The number of askers by node, for each spread VIP."""
        return {vip: dict(sorted(self._table.loads(vip).items())) for vip in sorted(self._rosters)}

    def knows(self, vip: bytes) -> bool:
        """Whether any asker of the VIP is known."""
        return bool(self._table.of(vip))

    # ---- events

    def decided(self, vip: bytes, roster: Roster, now: float, *, again: bool = False) -> None:
        """Sets the roster of a VIP again: only the askers of nodes that are out move. ``again``: other replicas may
        have taken over in the meantime."""
        before, self._rosters[vip] = self._rosters.get(vip), roster
        sole = roster.sole
        if sole is not None and (again or before is None or before.sole != sole):
            self._announcer.start(vip, moved=True, asked=True, now=now)
        elif sole is None and before is not None and before.sole is not None:
            self._announcer.stop(vip)
        self._forgotten.discard(vip)
        out = {asker for asker, one in self._table.of(vip).items() if one.node not in roster.keep}
        out |= {asker for of, asker in self._pending if of == vip}
        for asker, one in self._table.of(vip).items():
            if asker not in out:
                self._follow((vip, asker), one, now)
                if before is not None and one.node in roster.ours & before.ours:
                    self._tell_again((vip, asker), now, other=before.macs[one.node] != roster.macs[one.node])
        if roster.serves:
            self._move(vip, out, now)
        else:
            for asker in out:
                self._let_go((vip, asker))

    def removed(self, vip: bytes, *, forget: bool) -> None:
        """The VIP is no longer spread. Its askers stay known: they keep their neighbour entries, and the VIP may return
        from BGP. ``forget``: spread was turned off, the askers get other entries, and are dropped."""
        roster = self._rosters.pop(vip, None)
        if roster is not None:
            if roster.sole is not None:
                self._announcer.stop(vip)
            for asker in self._table.of(vip):
                self._let_go((vip, asker))
            for key in [key for key in self._pending if key[0] == vip]:
                del self._pending[key]
        if forget:
            self._forgotten.add(vip)
            self._table.forget(vip)
            for key in [key for key in self._news if key[0] == vip]:
                del self._news[key]

    def asked(self, vip: bytes, asker: Asker, now: float) -> bytes:
        """A question for a VIP arrived. Returns the MAC to answer with; empty: another replica answers."""
        roster = self._rosters.get(vip)
        if roster is None or not roster.serves:
            return b""
        known = self._table.get(vip, asker.mac)
        verifies = asker.unicast and self._own in roster.ours  # its entry has our MAC
        if known is None or known.node not in roster.keep:
            node = self._own if verifies else self._note(vip, roster, asker, now)
            if not node or not (verifies or roster.places or asker.unicast):
                return b""
            self._assign(vip, asker.mac, asker.address, node, now)
            return roster.macs[node]
        node = self._own if verifies else known.node
        if node not in roster.ours and not asker.unicast:
            return b""
        if not asker.unicast:
            node = self._settled(roster, known, now)
        old = now - self._table.heard(vip, asker.mac) >= RENEW
        if node != known.node or (node in roster.ours and old):
            self._assign(vip, asker.mac, asker.address, node, now)
        return roster.macs.get(node, b"")

    def told(self, assignments: Iterable[Assignment], now: float) -> None:
        """Takes assignments from the hello of another replica."""
        for new in assignments:
            if new.vip in self._forgotten:
                continue  # the sender does not know yet that spread is off
            key = new.vip, new.asker
            old = self._table.get(*key)
            if self._store(new, now):
                roster = self._rosters.get(new.vip)
                if roster is not None and roster.serves and new.node not in roster.keep:
                    self._move(new.vip, [new.asker], now)
            elif old is not None and old.node != new.node and key in self._held:
                self._news.setdefault(key, 1)  # two nodes answered the asker: both replicas know which counts
                self._tell_again(key, now, other=True)

    def due(self, now: float) -> None:
        """Places the askers again that no replica assigned in time."""
        overdue: dict[bytes, list[bytes]] = {}
        for (vip, asker), pending in self._pending.items():
            if now >= pending.since + WITHIN:
                overdue.setdefault(vip, []).append(asker)
        for vip in sorted(overdue):
            self._move(vip, overdue[vip], now)

    def defend(self, vip: bytes, now: float) -> bool:
        """A foreign host claims a VIP: tells each of our askers, and no other host. Returns whether there are any."""
        held = [(vip, asker) for asker in sorted(self._table.of(vip)) if (vip, asker) in self._held]
        for key in held:
            self._tell_again(key, now, other=True)
        return bool(held)

    # ---- output

    def tell(self, key: bytes) -> Tell | None:
        """What to send for a key that the announcer says is due; None: the asker is no longer ours."""
        vip, asker = key[:-6], key[-6:]  # the key of a VIP without an asker finds no assignment
        known, roster = self._table.get(vip, asker), self._rosters.get(vip)
        if known is None or roster is None or (vip, asker) not in self._held:
            return None
        return Tell(roster.ifindex, vip, roster.macs[known.node], asker, known.address, key)

    def talks(self, now: float) -> bool:
        """Whether to send a hello now, because of assignments that no other replica knows yet."""
        return self._say_at is not None and self._say_at <= now

    def piece(self, now: float, *, bulk: bool = False) -> tuple[Assignment, ...]:
        """Assignments for one hello: the news, and once per ROTATE seconds a part of the table; ``bulk``: always a
        part of the table."""
        keys = list(self._news)[:PIECE]
        for key in keys:
            left = self._news.pop(key) - 1
            if left:
                self._news[key] = left
        self._say_at = now + COALESCE if REPEATS in self._news.values() else None
        if bulk or now - self._rotated >= ROTATE:
            self._rotated = now if not bulk else self._rotated
            if not self._rotation:
                self._rotation = [(one.vip, one.asker) for one in self._table]
            room = PIECE - len(keys)
            keys += self._rotation[:room]
            del self._rotation[:room]
        found = [self._table.get(*key) for key in dict.fromkeys(keys)]
        return tuple(one for one in found if one is not None)

    # ---- internal

    def _note(self, vip: bytes, roster: Roster, asker: Asker, now: float) -> str:
        """The node for an asker without an assignment. The asker is noted until a replica assigns it."""
        key = vip, asker.mac
        pending = self._pending.get(key)
        if pending is not None and pending.node in roster.keep:
            return pending.node
        node = place(vip, [asker.mac], roster.take, self._loads(vip)).get(asker.mac, "")
        if node and not roster.places and len(self._pending) < MOST_PENDING:
            self._pending[key] = _Pending(node, asker.address, now)
        return node

    def _settled(self, roster: Roster, known: Assignment, now: float) -> str:
        """The node of a known asker that does not ask by unicast: a new one if the asker was idle and its node has too
        many askers."""
        loads = {name: self._table.loads(known.vip).get(name, 0) for name in roster.take}
        mean = -(-sum(loads.values()) // len(loads)) if loads else 0
        idle = now - self._table.heard(known.vip, known.asker) >= IDLE
        if not idle or known.node not in loads or loads[known.node] <= mean:
            return known.node
        loads[known.node] -= 1
        return place(known.vip, [known.asker], roster.take, loads)[known.asker]

    def _move(self, vip: bytes, askers: Collection[bytes], now: float) -> None:
        """Places askers whose node is out, or that no replica assigned. Askers that become ours are told."""
        roster = self._rosters.get(vip)
        were = {asker: self._pending.pop((vip, asker), None) for asker in askers}
        if roster is None or not roster.serves:
            return
        placed = place(vip, askers, roster.take, self._loads(vip))
        for asker in askers:
            node = placed.get(asker, "")  # empty: no node can take it
            pending, known = were[asker], self._table.get(vip, asker)
            address = pending.address if pending is not None else known.address if known is not None else b""
            if address and node in roster.ours:
                self._assign(vip, asker, address, node, now)
                self._tell_again((vip, asker), now, other=True)
                continue
            self._let_go((vip, asker))
            tries = pending.tries + 1 if pending is not None else 0
            if address and node and tries < TRIES:
                self._pending[vip, asker] = _Pending(node, address, now, tries)

    def _loads(self, vip: bytes) -> dict[str, int]:
        """The number of askers by node, including noted ones."""
        loads = dict(self._table.loads(vip))
        for (of, _), pending in self._pending.items():
            if of == vip:
                loads[pending.node] = loads.get(pending.node, 0) + 1
        return loads

    def _assign(self, vip: bytes, asker: bytes, address: bytes, node: str, now: float) -> None:
        if self._store(Assignment(vip, asker, address, node, self._table.clock + 1), now):
            self._news[vip, asker] = REPEATS
            self._say_at = now + COALESCE if self._say_at is None else self._say_at

    def _store(self, new: Assignment, now: float) -> bool:
        """Stores an assignment if it counts."""
        taken, dropped = self._table.take(new, now)
        if dropped is not None:
            self._let_go(dropped)
            self._news.pop(dropped, None)
        if taken:
            self._pending.pop((new.vip, new.asker), None)
            self._follow((new.vip, new.asker), new, now)
        return taken

    def _follow(self, key: Key, one: Assignment, now: float) -> None:
        """Starts or stops the announcements to an asker, depending on whether we answer it."""
        roster = self._rosters.get(key[0])
        ours = roster is not None and one.node in roster.ours
        if ours and key not in self._held:
            self._held.add(key)
            self._announcer.start(key[0] + key[1], moved=False, asked=True, now=now)
        elif not ours:
            self._let_go(key)

    def _let_go(self, key: Key) -> None:
        if key in self._held:
            self._held.discard(key)
            self._announcer.stop(key[0] + key[1])

    def _tell_again(self, key: Key, now: float, *, other: bool) -> None:
        """Tells one of our askers its next hop now if it may have another (``other``) entry."""
        if other and key in self._held:
            self._announcer.start(key[0] + key[1], moved=True, asked=True, now=now)
