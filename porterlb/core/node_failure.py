"""When Kubernetes is told that a node has failed, so that kube-proxy stops sending new connections to its pods.

With externalTrafficPolicy Cluster, kube-proxy on every living node keeps sending a share of new connections to the pods
of a dead node until the node controller marks them NotReady, about 40 s after the power loss. The leader marks them as
soon as the replicas agree: it sets the condition Ready=False in the status of the node's pods.

A wrong verdict deprives the node of its share of new connections for some seconds, so the rules are strict: see
:class:`NotMarked`. The marks are undone when the node lives and its pods have not been corrected otherwise.

A node without power and a node that is separated from its segment (a partition, a dead switch port) are equally silent.
Two signs show that the node lives (:attr:`Seen.signs`): its replica is cut off and writes that to the API, or its
kernel answers the leader's TCP connections. A node that is also cut off from the API, or that runs no replica, cannot
be distinguished from one without power. Its pods are marked, as Kubernetes itself does after the grace period.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from porterlb.core.model import Endpoint, Node, Ready, Service, TrafficPolicy
from porterlb.core.observed import WireReport

REASON = "PorterLBNodeDead"
"""Reason of the condition Ready=False: it identifies our conditions, also for the next leader."""

MESSAGE = "PorterLB found that the node of this pod does not answer; a majority of its replicas agrees."


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings. Times in seconds.

    ``confirm``: time for which the replicas must agree without a break, in addition to three probes (150 ms). In this
    time a cut-off replica writes to the API, and the leader learns of it.
    ``sign_lasts``: time for which a sign of life counts. A replica that is cut off repeats it every SIGN_EVERY.
    ``again_after``: time for which a marked node is not marked again.
    ``restore_after``: time for which a node must live before its pods are restored, unless their status has been
    corrected. A running kubelet corrects it within seconds.
    ``lease_margin``: time for which the leader must still hold the lease when it begins to write.
    """

    enabled: bool = False
    confirm: float = 0.3
    sign_lasts: float = 3.0
    again_after: float = 300.0
    restore_after: float = 10.0
    lease_margin: float = 0.5


SIGN_EVERY = 1.0
"""Seconds between two signs of life of a cut-off replica (:func:`cut_off`)."""


@dataclass(frozen=True, slots=True)
class Consensus:
    """The findings of the replicas on one node, on the segment of its InternalIP.

    ``voters``: replicas that can judge the node, never its own. ``silent``: voters that the node does not answer.
    ``hello_fresh``: the node's own replica sends hellos. ``heard``: the node answers a replica, there or on another
    segment.
    """

    voters: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    hello_fresh: bool = False
    heard: bool = False

    @property
    def majority(self) -> bool:
        """Whether most of the voters find the node silent."""
        return 2 * len(self.silent & self.voters) > len(self.voters)

    @property
    def dead(self) -> bool:
        """As after a power loss: no hello, no answer to any replica, and at least two voters, most of which find the
        node silent."""
        return not (self.hello_fresh or self.heard) and len(self.voters) >= 2 and self.majority

    @property
    def alive(self) -> bool:
        """A replica hears the node. If a node is neither dead nor alive, its state is unknown."""
        return self.hello_fresh or self.heard


@dataclass(frozen=True, slots=True)
class Seen:
    """The inputs of the decision. ``lease_left``: seconds for which we certainly lead, 0: we do not lead.

    ``bounded``: an admission policy is enforced that bounds the right to change the status of pods.
    ``signs``: when a node last showed that it lives, although the segment does not hear it (monotonic seconds).
    """

    nodes: Mapping[str, Node]
    verdicts: Mapping[str, Consensus]
    lease_left: float = 0.0
    doubt: bool = False
    outage: bool = False
    bounded: bool = True
    signs: Mapping[str, float] = field(default_factory=dict)

    def alive(self, node: str, rules: Rules, now: float) -> bool:
        """Whether the node is known to live."""
        verdict = self.verdicts.get(node)
        return (verdict is not None and verdict.alive) or self.signed(node, rules, now)

    def signed(self, node: str, rules: Rules, now: float) -> bool:
        """Whether the node has shown a sign of life that still counts."""
        return node in self.signs and now < self.signs[node] + rules.sign_lasts


class Marking(enum.Enum):
    """Whether the pods of a dead node are marked. The value: the consequence if they are not."""

    ON = ""
    OFF = (
        "When a node dies, new connections fail until Kubernetes notices (some 40 s): set the chart's value "
        "nodeFailure.markPodsNotReady to auto, or the Service's spec.trafficDistribution to PreferSameNode."
    )
    UNBOUNDED = (
        "When a node dies, new connections fail until Kubernetes notices (some 40 s): the admission policy that bounds "
        "the right to change the status of pods is not enforced, and PorterLB does not use the right without it. "
        "Install the chart again, or set the Service's spec.trafficDistribution to PreferSameNode."
    )


class Stage(enum.StrEnum):
    """The state of a failed node's pods. The value is written in the record for the next leader."""

    MARKING = "marking"  # in progress
    MARKED = "marked"
    RESTORING = "restoring"  # the node lives again
    OVER = "over"  # kept, so that the node is not marked again soon


@dataclass(frozen=True, slots=True)
class Failure:
    """One node. ``since``: when it was marked, or read from the record. ``alive_since``: None while it is dead."""

    stage: Stage
    since: float
    alive_since: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """State passed from one step to the next: failures by node, and since when the replicas agree that a node is
    dead."""

    failures: Mapping[str, Failure] = field(default_factory=dict)
    dead_since: Mapping[str, float] = field(default_factory=dict)


class NotMarked(enum.Enum):
    """Why the pods of a silent node are not marked. The value is a sentence."""

    OFF = "Marking pods is off (markPodsNotReady): new connections go to the node's pods until Kubernetes notices."
    UNBOUNDED = "The admission policy that bounds the right to change the status of pods is not enforced."
    DOUBT = "This replica hears no other host: it may be cut off itself, and marks nothing."
    OUTAGE = "The API is unavailable."
    LEASE = "It is not certain that this replica is the leader."
    FEW_VOTERS = "Fewer than two replicas can tell whether the node is dead: run replicas on at least three nodes."
    NO_MAJORITY = "Fewer than half of the replicas find the node silent."
    SIGN_OF_LIFE = (
        "The node lives, but does not answer the probes: its replica writes to the API, or its kernel answers TCP. "
        "Look at the network of the node."
    )
    HEARD = "The node answers some replicas, and others not. Look at the network of the node."
    HELLO_FRESH = "The replica on the node still sends hellos: only the probes fail. Look at the network of the node."
    TOO_MANY = "More than a third of the nodes are silent at once: this looks like a fault of the network."
    RECENT = "The pods of this node were marked a short time ago (markAgainAfter)."
    CONFIRMING = "The replicas have just agreed."


@dataclass(frozen=True, slots=True)
class MarkingStep:
    """The actions to take now. The caller records ``memory.failures`` before it marks anything, retries failed actions,
    and calls :func:`marked` and :func:`restored`.

    ``mark``, ``restore``: nodes. ``ask``: nodes that the caller must check for a sign of life. ``refused``: silent
    nodes that Kubernetes considers Ready, and why their pods are not marked. ``next_at``: when the result next changes
    only because time passes (monotonic seconds), or None.
    """

    memory: Memory
    mark: tuple[str, ...] = ()
    restore: tuple[str, ...] = ()
    ask: tuple[str, ...] = ()
    refused: Mapping[str, NotMarked] = field(default_factory=dict)
    next_at: float | None = None


def verdicts(nodes: Iterable[str], report: WireReport, own: str) -> dict[str, Consensus]:
    """The verdict on each node. A node without votes is alive if it answers our own probes.

    The node of the calling replica (``own``) is alive: an earlier leader may have marked its pods.
    """
    found = {}
    for node in nodes:
        if node == own:
            found[node] = Consensus(hello_fresh=True)
            continue
        fresh = node in report.fresh
        counted = report.votes.get(node)
        if counted is None:
            heard = node in report.probed and node not in report.dead and not report.doubt
            found[node] = Consensus(hello_fresh=fresh, heard=heard)
        else:
            found[node] = Consensus(counted.voters, counted.silent, fresh, bool(counted.heard))
    return found


def cut_off(me: str, members: Collection[str], report: WireReport, *, deaf: bool = False) -> bool:
    """Whether the other replicas may consider our node dead. Then our replica writes a sign of life to the API.

    This is the case if at most half of the replicas' nodes answer us or send hellos, if another replica considers our
    node dead, or if our wire process is stalled (``deaf``). With only two replicas there is no majority, and nothing
    is written.
    """
    if len(set(members) | {me}) < 3:
        return False
    heard = len(report.fresh.keys() | {me})
    accused = me in report.dead or any(me in replica.dead for replica in report.fresh.values())
    return deaf or report.alone or report.doubt or accused or 2 * heard <= len(set(members) | {me})


def step(memory: Memory, seen: Seen, rules: Rules, now: float) -> MarkingStep:
    """The next step. ``now``: monotonic seconds."""
    dead_since = {
        name: memory.dead_since.get(name, now)
        for name, verdict in sorted(seen.verdicts.items())
        if name in seen.nodes and verdict.dead
    }
    waits: list[float] = []
    failures = {}
    for name, failure in sorted(memory.failures.items()):
        kept = _followed(failure, seen.alive(name, rules, now), rules, now) if name in seen.nodes else None
        if kept is not None:
            failures[name] = kept
            if kept.alive_since is not None and kept.stage in (Stage.MARKING, Stage.MARKED):
                waits.append(kept.alive_since + rules.restore_after)
            if kept.stage is Stage.OVER:
                waits.append(kept.since + rules.again_after)

    fresh: list[str] = []
    refused: dict[str, NotMarked] = {}
    believed = {name for name, node in seen.nodes.items() if node.ready is Ready.TRUE}
    for name in sorted(believed & seen.verdicts.keys()):
        if not seen.verdicts[name].silent:
            continue
        why = _refusal(name, failures, seen, rules, now)
        if why is None and now < dead_since[name] + rules.confirm:
            why = NotMarked.CONFIRMING
            waits.append(dead_since[name] + rules.confirm)
        if why is not None:
            refused[name] = why
        elif name not in failures:
            fresh.append(name)
    if len(believed & dead_since.keys()) > max(1, len(seen.nodes) // 3):
        refused.update(dict.fromkeys(fresh, NotMarked.TOO_MANY))
        fresh = []
    failures.update({name: Failure(Stage.MARKING, now) for name in fresh})

    waits += [
        seen.signs[name] + rules.sign_lasts
        for name in sorted(seen.nodes.keys() & seen.signs.keys())
        if seen.signed(name, rules, now) and (name in dead_since or name in failures)
    ]
    acting = _may_act(seen, rules) is None
    # A marking by an earlier leader is continued only while the replicas agree: the node may have returned since.
    begun = {name for name, one in failures.items() if one.stage is Stage.MARKING and one.alive_since is None}
    mark = tuple(name for name in failures if name in begun and name in dead_since)
    restore = tuple(name for name, one in failures.items() if one.stage is Stage.RESTORING)
    return MarkingStep(
        Memory(failures, dead_since),
        tuple(name for name in mark if name not in refused) if acting else (),
        restore if acting else (),
        _to_ask(seen, failures, dead_since) if acting else (),
        refused,
        min(waits, default=None),
    )


def _may_act(seen: Seen, rules: Rules) -> NotMarked | None:
    """Why no pod may be written to now; None: writing is allowed."""
    if not rules.enabled:
        return NotMarked.OFF
    if not seen.bounded:
        return NotMarked.UNBOUNDED
    if seen.doubt:
        return NotMarked.DOUBT
    if seen.outage:
        return NotMarked.OUTAGE
    if seen.lease_left < rules.lease_margin:
        return NotMarked.LEASE
    return None


def _to_ask(seen: Seen, failures: Mapping[str, Failure], dead: Collection[str]) -> tuple[str, ...]:
    """The nodes that may be marked next, and marked nodes that no replica hears."""
    marked = {name for name, one in failures.items() if one.stage in (Stage.MARKING, Stage.MARKED)}
    unheard = {name for name in marked & seen.verdicts.keys() if not seen.verdicts[name].alive}
    return tuple(sorted((unheard | set(dead)) & seen.nodes.keys()))


def _refusal(name: str, failures: Mapping[str, Failure], seen: Seen, rules: Rules, now: float) -> NotMarked | None:
    verdict = seen.verdicts[name]
    why = _may_act(seen, rules)
    if why is not None:
        return why
    if seen.signed(name, rules, now):
        return NotMarked.SIGN_OF_LIFE
    if verdict.hello_fresh:
        return NotMarked.HELLO_FRESH
    if len(verdict.voters) < 2:
        return NotMarked.FEW_VOTERS
    if not verdict.majority:
        return NotMarked.NO_MAJORITY
    if verdict.heard:
        return NotMarked.HEARD
    if name in failures and failures[name].stage not in (Stage.MARKING, Stage.MARKED):
        return NotMarked.RECENT
    return None


def _followed(failure: Failure, alive: bool, rules: Rules, now: float) -> Failure | None:
    """The present state of the failure; None when it is forgotten."""
    if failure.stage is Stage.OVER:
        return None if now >= failure.since + rules.again_after else failure
    if failure.stage is Stage.RESTORING:
        return failure
    if not alive:
        return replace(failure, alive_since=None)
    alive_since = now if failure.alive_since is None else failure.alive_since
    stage = Stage.RESTORING if now >= alive_since + rules.restore_after else failure.stage
    return replace(failure, stage=stage, alive_since=alive_since)


def marked(memory: Memory, node: str) -> Memory:
    """Records that every Ready pod of the node has been marked."""
    return _moved(memory, node, Stage.MARKING, Stage.MARKED)


def restored(memory: Memory, node: str) -> Memory:
    """Records that none of the node's pods has our mark any longer."""
    return _moved(memory, node, Stage.RESTORING, Stage.OVER)


def _moved(memory: Memory, node: str, old: Stage, new: Stage) -> Memory:
    failure = memory.failures.get(node)
    if failure is None or failure.stage is not old:
        return memory
    return replace(memory, failures={**memory.failures, node: replace(failure, stage=new)})


def written(memory: Memory) -> dict[str, str]:
    """The record for the next leader: the stage by node."""
    return {name: failure.stage.value for name, failure in sorted(memory.failures.items())}


def read(record: Mapping[str, object], now: float) -> Memory:
    """The record of an earlier leader. Its times do not apply here: all entries count from ``now``."""
    stages = {stage.value: stage for stage in Stage}
    found = {name: stages[str(text)] for name, text in record.items() if str(text) in stages}
    return Memory({name: Failure(stage, now) for name, stage in sorted(found.items())})


def exposed(service: Service, endpoints: Iterable[Endpoint], usable: int) -> bool:
    """Whether new connections to the Service fail after a node's death until Kubernetes notices, if no pods are marked:
    traffic may arrive at one node (of ``usable`` ones) and go to a pod on another."""
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    spread = len({endpoint.node for endpoint in ready}) > 1 and usable > 1
    same_node = all(endpoint.same_node for endpoint in ready)
    return service.traffic_policy is TrafficPolicy.CLUSTER and spread and not same_node


def cost(service: Service, endpoints: Iterable[Endpoint], usable: int, marking: Marking) -> str:
    """The effect of a node's death on a Service and the setting that helps, as text; empty: no effect."""
    return marking.value if marking is not Marking.ON and exposed(service, endpoints, usable) else ""


def behind_load_balancers(services: Iterable[Service]) -> Callable[[str, Mapping[str, str]], bool]:
    """A function that tells whether a Service of type LoadBalancer selects a pod, by its namespace and labels."""
    selectors: dict[str, list[frozenset[tuple[str, str]]]] = {}
    for service in services:
        if service.selector:
            selectors.setdefault(service.key.namespace, []).append(frozenset(service.selector))

    def selects(namespace: str, labels: Mapping[str, str]) -> bool:
        pairs = frozenset(labels.items())
        return any(selector <= pairs for selector in selectors.get(namespace, ()))

    return selects
