"""Everything that a query needs from the cluster, read once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from porterlb.cluster import Broken, Cluster, Denied, Kind, LeaseRecord, Outage, Replaced, Unavailable
from porterlb.core import membership
from porterlb.core.model import Member
from porterlb.core.objects import ObjectKey, Objects

KINDS = (Kind.NODE, Kind.NAMESPACE, Kind.SERVICE, Kind.ENDPOINT_SLICE, Kind.EIP, Kind.BGP_CONF, Kind.BGP_PEER)

LEADER_LEASE = "porterlb"
"""The Lease of the leader; its holder is the node's name, an underscore, and a part that is new at each start."""

READ_WITHIN = 10.0  # seconds
BROKEN_WITHIN = 0.05  # seconds; unreadable objects are reported right after the objects


@dataclass
class Loaded:
    """``broken``: what cannot be read at all: a sentence by place (``web.yaml:12``). ``unread``: kinds (plural) that
    the API refuses, and why: the answer does not contain them."""

    objects: Objects
    broken: Mapping[str, str] = field(default_factory=dict)
    leases: Sequence[LeaseRecord] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def require(self, kind: Kind) -> None:
        """Raises Denied if this kind could not be read, because the answer is about this kind."""
        if kind.plural in self.unread:
            raise Denied(self.unread[kind.plural])

    def notes(self, *kinds: str) -> list[str]:
        """One sentence for each problem, with the object's name; ``kinds``: only objects of these kinds."""
        found = [
            f"{key}: {problem}"
            for key, problems in sorted(self.objects.problems.items())
            for problem in problems
            if not kinds or key.kind in kinds
        ]
        found += [f"{where}: {message}" for where, message in sorted(self.broken.items())]
        return [*found, *(f"Not read: {plural}: {why}" for plural, why in sorted(self.unread.items()))]

    @property
    def members(self) -> dict[str, Member]:
        """The replicas that have a Lease, by node."""
        return members_of(self.leases)

    @property
    def leader(self) -> str:
        """The node of the replica that holds the leader's Lease; empty: none does."""
        return leader_of(self.leases)

    def problems(self, kind: str, namespace: str, name: str) -> list[dict[str, Any]]:
        """The problems of an object, as JSON values."""
        return [
            {"reason": p.reason.value, "field": p.field, "message": p.message, "fatal": p.fatal}
            for p in self.objects.problems.get(ObjectKey(kind, namespace, name), ())
        ]

    def each(self, kind: str) -> Iterator[tuple[ObjectKey, Mapping[str, Any]]]:
        """All objects of a kind in the order of their names."""
        yield from sorted(self.objects.all_raw(kind).items())


def leader_of(leases: Iterable[LeaseRecord]) -> str:
    """The node of the replica that holds the leader's Lease; empty: none does."""
    holder = next((lease.holder for lease in leases if lease.name == LEADER_LEASE), "")
    return holder.rpartition("_")[0] or holder


def members_of(leases: Iterable[LeaseRecord]) -> dict[str, Member]:
    """The replicas that these Leases describe, by node."""
    parsed = [membership.parse(lease.name, lease.annotations).value for lease in leases]
    return {member.node: member for member in sorted(filter(None, parsed), key=lambda member: member.node)}


async def load(cluster: Cluster, *, claim_without_class: bool = True, partial: bool = False) -> Loaded:
    """Reads everything. Raises Unavailable if the cluster cannot be reached, Denied if it refuses: rights or CRDs are
    missing. ``partial``: what can be read is enough; Denied only if nothing can be read."""
    objects = Objects(claim_without_class)
    broken: dict[str, str] = {}
    missing = set(KINDS)
    events = cluster.watch(KINDS)
    try:
        async with asyncio.timeout(READ_WITHIN):
            while missing:
                event = await anext(events)
                if isinstance(event, Replaced):
                    objects.replace(event.kind.kind, event.objects)
                    missing.discard(event.kind)
                elif isinstance(event, Outage):
                    if event.refused and partial:
                        return await _piecewise(cluster, objects)
                    raise Denied(event.reason) if event.refused else Unavailable(event.reason)
                elif isinstance(event, Broken):
                    broken[event.where] = event.message
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BROKEN_WITHIN):
                while True:
                    event = await anext(events)
                    if isinstance(event, Broken):
                        broken[event.where] = event.message
    except TimeoutError:
        raise Unavailable(f"The cluster has not answered within {READ_WITHIN:.0f} s.") from None
    finally:
        with contextlib.suppress(Exception):
            await events.aclose()  # type: ignore[attr-defined]
    unread: dict[str, str] = {}
    leases = await _leases(cluster, unread if partial else None)
    return Loaded(objects, {where: text for where, text in broken.items() if text}, leases, unread)


async def _leases(cluster: Cluster, unread: dict[str, str] | None) -> Sequence[LeaseRecord]:
    try:
        return await cluster.leases()
    except Denied as error:
        if unread is None:
            raise
        unread[Kind.LEASE.plural] = str(error)
        return ()


async def _piecewise(cluster: Cluster, objects: Objects) -> Loaded:
    """Reads each kind separately, for users who may not read all of them."""
    unread: dict[str, str] = {}

    async def one(kind: Kind) -> None:
        try:
            objects.replace(kind.kind, await cluster.objects(kind))
        except Denied as error:
            unread[kind.plural] = str(error)

    async with asyncio.timeout(READ_WITHIN):
        await asyncio.gather(*map(one, KINDS))
    if len(unread) == len(KINDS):
        raise Denied(next(iter(unread.values())))
    return Loaded(objects, {}, await _leases(cluster, unread), unread)
