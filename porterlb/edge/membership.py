"""Keeps our own membership Lease, and follows those of the other replicas."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import replace
from typing import Any

from porterlb.cluster import Changed, Cluster, Conflict, Deleted, Denied, Kind, LeaseRecord, Obj, Replaced, Unavailable
from porterlb.core import membership, namesake
from porterlb.core.model import Interface, Member
from porterlb.core.namesake import Claim, ClaimStep

log = logging.getLogger(__name__)

RENEW = 30.0  # seconds; only shows people when a replica was last there. Hellos alone decide liveness
RETRY = 0.5
SWEEP = 2.0  # seconds between two checks for Leases of nodes that are permanently gone
LOOK = 0.1  # seconds between two reads of the Lease while a challenge is open


Supervise = Callable[[str, Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]]
"""Runs a part under its name, and again if it fails."""


class Membership:
    """The replicas, by node. Known replicas stay known while the API is unavailable.

    ``address``: our hello address; while it is empty (not known), nothing is written until :meth:`describe`.
    ``on_change`` is called in the event loop whenever :attr:`members` has changed. ``vanished`` returns the members
    that are permanently gone (none, if we do not lead): their Leases are deleted. ``on_lease`` is called for every
    Lease that is not a membership Lease, with its name and its new content (None: deleted); one watch covers both.
    ``supervise`` runs each of the three tasks. ``on_sign`` is called with each node whose replica has written a sign
    of life (:meth:`sign`). ``on_challenge`` is called when another manager was started with our node's name and is
    told to end. ``on_end`` is called when another manager with our node's name owns the Lease: we must end. See
    `porterlb.core.namesake`.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        address: str,
        port: int,
        subnets: tuple[Interface, ...] = (),
        *,
        on_change: Callable[[], None] = lambda: None,
        vanished: Callable[[], Collection[str]] = frozenset,
        on_lease: Callable[[str, Obj | None], None] = lambda name, lease: None,
        on_sign: Callable[[str], None] = lambda node: None,
        supervise: Supervise = lambda name, part: part(),
        on_challenge: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._me = Member(node, address, port, 0, subnets)
        self._on_change = on_change
        self._vanished = vanished
        self._on_lease = on_lease
        self._on_sign = on_sign
        self._supervise = supervise
        self._on_challenge = on_challenge
        self._on_end = on_end
        self._instance = secrets.token_hex(8)
        self._answered = ""  # the last challenger that was reported
        self._ended = False
        self._known = False  # whether our boot number has been written
        self._stale = asyncio.Event()
        self._last: LeaseRecord | None = None  # as last written; None: it may have changed since
        self._sign: int | None = None  # ours
        self._signs: Mapping[str, str] = {}  # of the other replicas, as last seen
        self.members: Mapping[str, Member] = {}

    def describe(self, me: Member) -> None:
        """Our address or interfaces have changed: the Lease is written again. The boot number is kept."""
        new = replace(me, boot=self._me.boot)
        if new != self._me:
            self._me = new
            self._stale.set()

    async def claim(self) -> bool:
        """Decides whether we are the only manager with our node's name; nothing may be announced before. False: we are
        not the only one, and must end."""
        name = membership.lease_name(self._me.node)
        challenged: float | None = None
        while True:
            try:
                async with asyncio.timeout(5.0):
                    old = await self._cluster.read_lease(name)
                    said = namesake.read(old.annotations) if old else Claim()
                    waited = 0.0 if challenged is None else time.monotonic() - challenged
                    verdict = namesake.starting(said, self._instance, challenged is not None, waited)
                    if verdict is ClaimStep.END:
                        self._end()
                        return False
                    if verdict is ClaimStep.TAKE and old is None:
                        return True
                    if old is not None and verdict is not ClaimStep.WAIT:
                        new = replace(said, challenger=self._instance)
                        if verdict is ClaimStep.TAKE:
                            new = Claim(owner=self._instance)
                        annotations = {**old.annotations, **namesake.written(new)}
                        await self._cluster.write_lease(replace(old, annotations=annotations))
                        if verdict is ClaimStep.TAKE:
                            return True
                        challenged = time.monotonic()
                    pause = LOOK
            except Conflict:
                pause = 0.0
            except (Unavailable, TimeoutError, Denied) as error:
                log.debug("the lease %s cannot be claimed: %s", name, error)
                pause = RETRY
            await asyncio.sleep(pause)

    def _end(self) -> None:
        self._ended = True
        self._on_end()

    def sign(self, cut_off: bool) -> None:
        """Whether the other replicas may consider our node dead: each call with True writes a sign of life."""
        if cut_off:
            self._sign = int(time.time() * 1000)  # differs from all earlier ones; it is never compared with a clock
            self._stale.set()
        elif self._sign is not None:
            self._sign = None
            self._stale.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        parts = {"keep": self._keep, "follow": self._follow, "sweep": self._sweep}
        async with asyncio.TaskGroup() as group:
            for name, part in parts.items():
                group.create_task(self._supervise(f"membership-{name}", part), name=f"membership-{name}")

    async def _keep(self) -> None:
        name = membership.lease_name(self._me.node)
        while True:
            while not self._me.address:  # nothing that other replicas could use yet: see describe()
                await self._stale.wait()
                self._stale.clear()
            self._stale.clear()
            pause = RENEW * random.uniform(0.9, 1.1)
            try:
                async with asyncio.timeout(5.0):
                    # A sign of life is urgent, so skip the read: the Lease is usually as we last wrote it.
                    held = self._last if self._sign is not None else None
                    self._last = await self._write(name, held or await self._cluster.read_lease(name))
            except Conflict:
                self._last, pause = None, 0.0
            except (Unavailable, TimeoutError) as error:
                self._last = None
                log.debug("the lease %s cannot be written: %s", name, error)
                pause = RETRY
            except Denied as error:
                self._last = None
                log.warning("The lease %s cannot be written: %s", name, error)
                pause = RETRY * 10
            try:
                async with asyncio.timeout(pause):
                    await self._stale.wait()
            except TimeoutError:
                continue

    async def _write(self, name: str, old: LeaseRecord | None) -> LeaseRecord | None:
        before = membership.parse(name, old.annotations).value if old else None
        me = self._me
        said = namesake.read(old.annotations) if old else Claim()
        if self._ended or self._judged(said, before) is ClaimStep.END:
            return None
        if not self._known or (before and before.boot > me.boot):
            # The wall clock only helps if the Lease was deleted; it is never compared with anything.
            me = replace(me, boot=max(before.boot + 1 if before else 0, me.boot, int(time.time())))
        written = await self._cluster.write_lease(
            LeaseRecord(
                name=name,
                holder=me.node,
                duration=RENEW * 2,
                transitions=old.transitions if old else 0,
                renewals=(old.renewals if old else 0) + 1,
                annotations={
                    **self._signed(),
                    **membership.described(me),
                    **namesake.written(Claim(owner=self._instance, answered=said.challenger or said.answered)),
                },
                version=old.version if old else "",
            )
        )
        self._me = replace(self._me, boot=me.boot)
        self._known = True
        return written

    def _signed(self) -> dict[str, str]:
        return {} if self._sign is None else {membership.SIGN: str(self._sign)}

    def _judged(self, said: Claim, member: Member | None) -> ClaimStep:
        """What the Lease in our name says about other managers with that name."""
        verdict = namesake.owning(said, self._instance, member is not None and member.boot > self._me.boot)
        if verdict is ClaimStep.END:
            self._end()
        elif verdict is ClaimStep.ANSWER and said.challenger != self._answered:
            self._answered = said.challenger
            log.warning(
                "Another manager was started with the name of this node, %s, and is told to end. "
                "Give each manager its own --node.",
                self._me.node,
            )
            self._on_challenge()
        return verdict

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            for node in sorted(self._vanished()):
                try:
                    await self._cluster.delete_lease(membership.lease_name(node))
                except (Conflict, Unavailable, Denied) as error:
                    log.debug("the lease of %s cannot be deleted: %s", node, error)
                    break
                log.info("%s is gone: its lease is deleted", node)

    async def _follow(self) -> None:
        listed = False
        async for event in self._cluster.watch([Kind.LEASE]):
            found = dict(self.members)
            if isinstance(event, Replaced):
                for lease in event.objects:
                    self._hear(lease)
                signs = {node: sign for lease in event.objects for node, sign in _sign_of(lease)}
                fresh = [node for node, sign in sorted(signs.items()) if self._signs.get(node) != sign]
                self._signs = signs
                for node in fresh if listed else ():  # the first list does not show when a sign was written
                    self._on_sign(node)
                listed = True
                found = {m.node: m for obj in event.objects if (m := _member(obj))}
            elif isinstance(event, Changed):
                self._hear(event.object)
                member = _member(event.object)
                if member:
                    found[member.node] = member
                for node, sign in _sign_of(event.object):
                    if self._signs.get(node) != sign:
                        self._signs = {**self._signs, node: sign}
                        self._on_sign(node)
            elif isinstance(event, Deleted):
                found.pop(membership.node_of(event.name), None)
                if not membership.node_of(event.name):
                    self._on_lease(event.name, None)
                if event.name == membership.lease_name(self._me.node):
                    self._last = None
                    self._stale.set()  # we are still here: write it again at once
            if found != self.members:
                self.members = found
                self._on_change()

    def _hear(self, lease: Obj) -> None:
        metadata = lease.get("metadata") or {}
        name = str(metadata.get("name", ""))
        if not membership.node_of(name):
            self._on_lease(name, lease)
        elif name == membership.lease_name(self._me.node) and self._known:
            said = namesake.read(metadata.get("annotations") or {})
            if self._judged(said, _member(lease)) in (ClaimStep.ANSWER, ClaimStep.TAKE):
                self._stale.set()


def _sign_of(lease: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The node and its sign of life, if the Lease has one."""
    metadata = lease.get("metadata", {})
    node = membership.node_of(str(metadata.get("name", "")))
    sign = (metadata.get("annotations") or {}).get(membership.SIGN)
    return ((node, sign),) if node and isinstance(sign, str) else ()


def _member(lease: Mapping[str, Any]) -> Member | None:
    metadata = lease.get("metadata", {})
    name = str(metadata.get("name", ""))
    if not membership.node_of(name):
        return None
    parsed = membership.parse(name, metadata.get("annotations") or {})
    for problem in parsed.problems:
        log.warning("%s", problem)
    return parsed.value
