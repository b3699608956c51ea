"""Tells the cluster that a node has failed, so that its pods get no new connections. core/node_failure decides."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from porterlb.cluster import Cluster, Conflict, Denied, Kind, Labels, LeaseRecord, Marked, Unavailable
from porterlb.core import node_failure
from porterlb.core.history import What
from porterlb.core.model import Service
from porterlb.core.node_failure import MarkingStep, Memory, NotMarked, Rules, Seen

log = logging.getLogger(__name__)

RECORD = "porterlb.node-failures"
"""The Lease that records which nodes' pods are marked, for the next leader. No replica's Lease can have this name."""

ANNOTATION = "porter.kubesphere.io/node-failures"
RETRY = 0.2
"""Seconds until a failed request is tried again."""

CHECK, CHECK_UNBOUNDED = 300.0, 10.0
"""Seconds between two checks of the admission policy, while it is in force and while it is not."""

BOUNDED = {
    True: "The pods of dead nodes are marked not ready: the admission policy that bounds this right is in force.",
    False: f"{NotMarked.UNBOUNDED.value} No pods are marked. Install the chart again, or set the chart's value "
    "nodeFailure.markPodsNotReady to false.",
}

_POLICY = ""
"""The name of the task that checks the admission policy: no node has this name."""

DEADLINE = 2.0
"""Seconds, at most, for one request; less if we certainly lead only for a shorter time."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is known now. ``services``: their pods are marked first."""

    seen: Seen
    services: Collection[Service]


class NodeFailures:
    """Marks the pods of failed nodes and restores them while this replica leads; one operation at a time per node.

    Args:
        look: returns what is known now; None while nothing is known.
        on_done: called with what was done, the node, and how many of its pods were changed.
        on_bounded: called after each check with whether an admission policy bounds the right to mark pods.
        ask: called after each step with the nodes that must be asked for a sign of life.
        on_change: called after each step, from the event loop.
    """

    def __init__(
        self,
        cluster: Cluster,
        node: str,
        rules: Rules,
        look: Callable[[], Look | None],
        *,
        ask: Callable[[Collection[str]], None] = lambda nodes: None,
        on_done: Callable[[What, str, int], None] = lambda what, node, pods: None,
        on_bounded: Callable[[bool], None] = lambda bounded: None,
        clock: Callable[[], float] = time.monotonic,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._cluster = cluster
        self._node = node
        self._rules = rules
        self._look = look
        self._ask = ask
        self._on_done = on_done
        self._on_bounded = on_bounded
        self._bounded: bool | None = None  # None: not checked since we began to lead
        self._ask_bounded_at = 0.0
        self._changed: Counter[str] = Counter()  # pods, by node, in the attempts so far
        self._clock = clock
        self._on_change = on_change
        self._memory: Memory | None = None  # None: the record has not been read since we began to lead
        self._record = LeaseRecord(RECORD, node, 1.0)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._marking: set[str] = set()  # the nodes whose task marks their pods
        self._told: list[Callable[[Memory], Memory]] = []  # what the tasks have done since the last step
        self._wake = asyncio.Event()
        self.counts: Counter[str] = Counter()
        """Since the start: nodes marked and restored, pods marked and restored, failed patches."""
        self.refused: Mapping[str, NotMarked] = {}
        """Nodes that do not answer and that the API shows Ready, and why their pods are not marked."""

    @property
    def stages(self) -> dict[str, str]:
        """What was done, by node, as far as this replica knows; empty if it does not lead."""
        return node_failure.written(self._memory) if self._memory else {}

    def state(self) -> dict[str, Any]:
        """The JSON values for /state."""
        return {
            "enabled": self._rules.enabled,
            "stages": self.stages,
            "refused": {node: refusal.value for node, refusal in sorted(self.refused.items())},
            "counts": dict(self.counts),
        }

    def touch(self) -> None:
        """What ``look`` returns has changed."""
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled."""
        if not self._rules.enabled:
            log.info(NotMarked.OFF.value)
        try:
            while True:
                next_at = await self.turn()
                timeout = None if next_at is None else max(0.0, next_at - self._clock())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._wake.wait()
                self._wake.clear()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def turn(self) -> float | None:
        """Takes one step. Returns when the next one is due even if nothing changes (monotonic seconds), or None."""
        look = self._look()
        now = self._clock()
        if look is None:
            return None
        if not look.seen.lease_left or not self._rules.enabled:
            self._memory = self._bounded = None
            self._told.clear()
            # Even without the record, report why nothing is done.
            self.refused = node_failure.step(Memory(), look.seen, self._rules, now).refused
            self._ask(())
            self._on_change()
            return None
        try:
            if self._memory is None:
                memory, _ = await asyncio.gather(self._read(), self._check_bounded())
            else:
                memory = self._memory
            told, self._told = self._told, []
            for change in told:
                memory = change(memory)
            seen = replace(look.seen, bounded=bool(self._bounded))
            made = node_failure.step(memory, seen, self._rules, now)
            await self._keep(made)
        except (Unavailable, Denied, Conflict) as error:
            log.warning("The record of failed nodes cannot be read or written: %s", error)
            self._memory = None
            return self._clock() + RETRY
        self._memory, self.refused = made.memory, made.refused
        if self._told:
            return now  # something was done while the record was written: the next step must know it
        self._ask(made.ask)
        for node in self._marking - set(made.mark):
            self._tasks[node].cancel()  # the node is alive, or we may no longer act
        for node in made.mark:
            self._start(node, self._mark(node, look))
            self._marking.add(node)
        for node in made.restore:
            self._start(node, self._restore(node))
        if now >= self._ask_bounded_at:
            self._start(_POLICY, self._check_bounded_again())
        self._on_change()
        return min(self._ask_bounded_at, made.next_at or self._ask_bounded_at)

    async def _check_bounded(self) -> None:
        before, self._bounded = self._bounded, await self._cluster.marking_bounded(DEADLINE)
        self._ask_bounded_at = self._clock() + (CHECK if self._bounded else CHECK_UNBOUNDED)
        if self._bounded is not before:
            log.log(logging.INFO if self._bounded else logging.WARNING, "%s", BOUNDED[self._bounded])
        self._on_bounded(self._bounded)

    async def _check_bounded_again(self) -> None:
        self._ask_bounded_at = self._clock() + CHECK_UNBOUNDED
        try:
            await self._check_bounded()
        except (Unavailable, Denied, Conflict) as error:
            log.debug("whether an admission policy is in force cannot be asked: %s", error)

    def _start(self, node: str, work: Any) -> None:
        """Starts ``work`` unless the node's last task still runs. A later step requests failed work again."""
        if node in self._tasks and not self._tasks[node].done():
            work.close()
            return
        task = self._tasks[node] = asyncio.create_task(work, name=f"node-failure {node}")
        task.add_done_callback(lambda ended: self._ended(node, ended))

    def _ended(self, node: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(node) is task:  # else the next task has started before this callback
            del self._tasks[node]
            self._marking.discard(node)
        self.touch()

    async def _mark(self, node: str, look: Look) -> None:
        begun = self._clock()
        first: Callable[[str, Labels], bool] = node_failure.behind_load_balancers(look.services)
        done = await self._attempt(
            node,
            lambda deadline: self._cluster.mark_endpoints(
                node, first, reason=node_failure.REASON, message=node_failure.MESSAGE, deadline=deadline
            ),
        )
        if done is None:
            return
        self._told.append(lambda memory: node_failure.marked(memory, node))
        self._marking.discard(node)  # only the report is left
        count = self._changed.pop(node, 0)
        self.counts["nodes_marked"] += 1
        self.counts["pods_marked"] += count
        message = (
            f"The node does not answer and a majority of the replicas agrees: {count} of its pods were marked not "
            "ready, so that no new connection is sent to them."
        )
        log.debug("the pods of %s were marked in %.2f s", node, self._clock() - begun)
        self._on_done(What.PODS_MARKED, node, count)
        await self._tell(node, "Warning", message)

    async def _restore(self, node: str) -> None:
        done = await self._attempt(
            node, lambda deadline: self._cluster.restore_endpoints(node, reason=node_failure.REASON, deadline=deadline)
        )
        if done is None:
            return
        self._told.append(lambda memory: node_failure.restored(memory, node))
        count = self._changed.pop(node, 0)
        self.counts["nodes_restored"] += 1
        self.counts["pods_restored"] += count
        message = f"The node answers again: {count} of its pods that were still marked not ready were restored."
        self._on_done(What.PODS_RESTORED, node, count)
        await self._tell(node, "Normal", message)

    async def _attempt(self, node: str, work: Callable[[float], Any]) -> Marked | None:
        """Does ``work`` within the time for which we certainly lead; None if it must be tried again."""
        look = self._look()
        deadline = min(DEADLINE, look.seen.lease_left if look else 0.0)
        done: Marked | None = None
        if deadline > 0:
            try:
                async with asyncio.timeout(deadline):
                    done = await work(deadline)
            except (Unavailable, Denied, Conflict, TimeoutError) as error:
                log.warning("The endpoints of a failed node cannot be changed: %s", error or "no answer in time")
            else:
                self.counts["failed"] += done.failed
                self._changed[node] += done.done
        if done is None or done.failed:
            await asyncio.sleep(RETRY)
            return None
        return done

    async def _tell(self, node: str, type_: str, message: str) -> None:
        with contextlib.suppress(Unavailable, Denied):
            about = {"metadata": {"name": node}}
            reason = node_failure.REASON if type_ == "Warning" else "PorterLBNodeBack"
            await self._cluster.emit(Kind.NODE, about, type_=type_, reason=reason, message=message, reporter="porterlb")

    async def _read(self) -> Memory:
        found = await self._cluster.read_lease(RECORD)
        self._record = found or LeaseRecord(RECORD, self._node, 1.0)
        try:
            content = json.loads(self._record.annotations.get(ANNOTATION, "{}"))
        except ValueError:
            content = {}
        return node_failure.read(content if isinstance(content, dict) else {}, self._clock())

    async def _keep(self, made: MarkingStep) -> None:
        """Writes the decision to the record before it is carried out: the next leader must know it."""
        text = json.dumps(node_failure.written(made.memory), sort_keys=True)
        if text == self._record.annotations.get(ANNOTATION, "{}"):
            return
        record = LeaseRecord(
            RECORD,
            self._node,
            self._record.duration,
            self._record.transitions,
            self._record.renewals + 1,
            {**self._record.annotations, ANNOTATION: text},
            self._record.version,
        )
        self._record = await self._cluster.write_lease(record)
