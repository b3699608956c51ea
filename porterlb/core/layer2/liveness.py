"""Who is alive, this replica included: what a judgement of the nodes, a hello with news, a replica that leaves, and a
transition of serving change."""

from __future__ import annotations

from porterlb.core.hello import Change
from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.actions import End, NoteKind, SendProbes
from porterlb.core.layer2.address_claims import AddressClaims
from porterlb.core.layer2.dead_nodes import DeadNodes
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.own_hello import OwnHello
from porterlb.core.layer2.serving import Serving, ServingEvent, ServingState, Transition
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.layer2.vips import VipTable
from porterlb.core.layer2.votes import CountedVotes


class Liveness:
    """Passes each change on to the VIPs, the votes, the reports and our hello. Times: monotonic seconds.

    Attributes:
        next_at: when to judge again; None: after the next probe.
    """

    def __init__(
        self,
        around: Surroundings,
        nodes: Nodes,
        hellos: Hellos,
        serving: Serving,
        vips: VipTable,
        claims: AddressClaims,
        dead: DeadNodes,
        votes: CountedVotes,
        own_hello: OwnHello,
        actions: ActionList,
    ) -> None:
        self._around = around
        self._nodes = nodes
        self._hellos = hellos
        self._serving = serving
        self._vips = vips
        self._claims = claims
        self._dead = dead
        self._votes = votes
        self._own_hello = own_hello
        self._actions = actions
        self._link_heard = 0.0
        self.next_at: float | None = None

    # ---- nodes

    def tick(self, now: float, lag: float, link_heard: float) -> None:
        """Judges once per probe interval. ``lag``: of our process. ``link_heard``: as for `wake`."""
        self._link_heard = link_heard
        detector = self._nodes.detector
        detector.tick(now, lag)
        self._actions.count("judgements_skipped", int(detector.late(lag)))
        self.judge(now)

    def wake(self, now: float, link_heard: float) -> None:
        """Judges again if that is due. ``link_heard``: when a question was last received from any segment."""
        self._link_heard = link_heard
        if self.next_at is not None and self.next_at <= now:
            self.judge(now)

    def judge(self, now: float) -> None:
        """Asks the failure detector for a judgement and applies deaths, revivals and doubt."""
        evidence = self._link_heard
        if self._around.wanted.sessions and not self._nodes.gateways:
            evidence = now  # only without a gateway: a BGP session stays up for its hold time, so it is weak evidence
        doubted = self._nodes.judgement.doubt
        step = self._nodes.step(now, evidence)
        self.next_at = step.next_at
        if step.probes:
            self._actions.add(SendProbes(step.probes))
        if step.changed:
            self._judged(doubted, now)
        self._votes.update(self._around.wanted, now)
        if step.say:
            self._own_hello.say(now)

    def _judged(self, doubted: bool, now: float) -> None:
        """The judgement of the failure detector changed. ``doubted``: whether we were in doubt before."""
        doubt = self._nodes.judgement.doubt
        if doubt != doubted:
            self._actions.report(True, doubt=doubt)
            others = bool(self._around.members.keys() - {self._around.own})
            self.entered(self._serving.doubt(doubt, others, now), now)
            if not doubt:
                self._vips.touch_again()
        if not doubt and self._dead.update(now):
            # Within this event: clients lose requests until the VIPs move.
            self._actions.add(*self._vips.step(now))
            self._actions.add(*self._vips.announcements(now))
            self._own_hello.say(now)

    # ---- other replicas

    def heard(self, change: Change, now: float) -> bool:
        """A hello of another replica was accepted. Returns whether it says anything new."""
        hello = change.hello
        if change.left:
            self.replica_left(hello.node, now)
            return True
        segments = self._nodes.said(hello, now)
        if change.news:
            self._around.forget()
            if hello.answers:
                self._vips.replica_came(hello.node)
            else:
                self._vips.replica_left(hello.node)
            self._claims.replica_said(hello.node, hello.answers, now)
            self.judge(now)
            self._actions.report(change.came, fresh=self._hellos.fresh)
        elif segments:
            self.judge(now)
        return change.news or segments

    def expire(self, now: float) -> None:
        """Gives up the replicas whose hellos have stopped."""
        if self._hellos.next_at is not None and self._hellos.next_at <= now:
            heard = max(self._nodes.latest, self._link_heard)
            for node in sorted(self._hellos.expire(now, heard, self._nodes.judgement.doubt)):
                self.replica_left(node, now)

    def replica_left(self, node: str, now: float) -> None:
        """A replica said goodbye, is no member any longer, or was given up."""
        self._nodes.left(node)
        self._claims.replica_left(node)
        self._around.forget()
        self._actions.report(True, fresh=self._hellos.fresh)
        self._vips.replica_left(node)
        self.judge(now)

    # ---- this replica

    def entered(self, change: Transition | None, now: float) -> None:
        """Serving made a transition; None: it did not."""
        if change is None:
            return
        self._around.forget()
        if change.event in (ServingEvent.READY, ServingEvent.READY_IN_DOUBT):
            self._vips.touch_all()
            self._own_hello.say(now)
            # Empty values too: the manager may still have values of a previous wire process.
            self._actions.report(
                dead=self._around.dead,
                dead_on=self._dead.by_subnet(),
                unheard=self._dead.unheard,
                votes=self._votes.latest,
                alone=self._votes.alone,
                fresh=self._hellos.fresh,
                doubt=self._serving.frozen,
                conflicts=self._claims.conflicts,
            )
        elif change.state in (ServingState.SILENT, ServingState.LEAVING):
            self._own_hello.repeat_goodbye(now)
            self._own_hello.say(now, goodbye=True)
            if change.state is ServingState.SILENT:
                self._actions.note(NoteKind.MANAGER_SILENT)
        elif change.event is ServingEvent.MANAGER_BACK:
            self._own_hello.cancel_goodbyes()
            self._vips.touch_all()
            self._actions.note(NoteKind.MANAGER_BACK)
        elif change.state is ServingState.RETURNED:
            self._own_hello.say(now)

    def staleness_changed(self, now: float) -> None:
        """Our wanted set may be outdated now, or no longer."""
        self._around.forget()
        self._vips.replica_came(self._around.own)
        self._own_hello.say(now)

    def overlap(self, now: float) -> None:
        """Stops answering when the overlap after a goodbye has ended."""
        if not self._serving.check_overlap(now):
            return
        self._around.forget()
        if self._serving.state is ServingState.LEAVING:
            self._vips.stop_announcing()
            self._actions.add(End())
        else:
            self._vips.touch_all()
