"""The nodes on our segments: which nodes are dead as a whole, and the MAC of each node.

If a node has a replica, its MAC comes from the hello of that replica, and an answer with another MAC is ignored.
Without a replica the MAC is learned from answers, and changes only while the old one does not answer: a forged reply
neither replaces it nor keeps a dead node alive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from porterlb.core.hello import Hello
from porterlb.core.layer2.failure_detector import FailureDetector, Step, Timing
from porterlb.core.layer2.probes import Heard, Probe
from porterlb.core.layer2.targets import GATEWAY, Target, TargetKey
from porterlb.core.layer2.verdict import Judgement, Place
from porterlb.core.model import Address
from porterlb.core.observed import Nic

MOST_CONTESTED = 64
"""Maximum number of contested addresses kept: a host that forges replies must not fill our memory."""


class Nodes:
    """Combines `FailureDetector` with the MACs from hellos and answers."""

    def __init__(self, own: str, timing: Timing, heard: Collection[str] = ()) -> None:
        self._own = own
        self.detector = FailureDetector(own, timing, heard)
        self._said: dict[str, frozenset[bytes]] = {}  # MACs by node, from its fresh hello
        self._on_nic: dict[tuple[str, int], bytes] = {}  # MAC by node and segment, from its hello
        self._ours: frozenset[bytes] = frozenset()
        self._internal: dict[str, frozenset[int]] = {}
        self._known: frozenset[bytes] | None = None
        self.contested: dict[bytes, bytes] = {}
        """Addresses of nodes for which another MAC answered, with that MAC."""

    # ---- events

    def set_nics(self, nics: Mapping[int, Nic]) -> None:
        """Our own interfaces changed."""
        self._ours = frozenset(nic.mac for nic in nics.values())
        self._known = None
        self.detector.set_nics(nics)

    def set_targets(self, targets: Iterable[Target], members: Collection[str], own: Collection[Address]) -> None:
        """What is probed, which nodes have a replica, and the InternalIPs of our own node."""
        targets = list(targets)
        self.detector.set_targets(targets, members)
        internal: dict[str, set[int]] = {}
        for target in targets:
            if target.decides:
                internal.setdefault(target.node, set()).add(target.key.nic)
        for index, nic in self.detector.nics.items():
            if any(interface.ip in own for interface in nic.addresses):
                internal.setdefault(self._own, set()).add(index)
        self._internal = {node: frozenset(nics) for node, nics in internal.items()}
        self._known = None

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> Heard | None:
        """An answer from the segment; None if it says nothing new about a node."""
        found = self.detector.probes.findings.get(TargetKey(nic, address))
        if found is None:
            return None
        if not self._believable(found.target, mac, suspect=found.since is not None or found.silent):
            if address in self.contested or len(self.contested) < MOST_CONTESTED:
                self.contested[address] = mac
            return None
        heard = self.detector.heard(nic, address, mac, now)
        if heard is not None and heard.mac:
            self._known = None
        return heard

    def _believable(self, target: Target, mac: bytes, suspect: bool) -> bool:
        said = self._said.get(target.node)
        if said:
            return mac in said
        return not target.mac or target.mac == mac or suspect

    def said(self, hello: Hello, now: float) -> bool:
        """A fresh replica sent a hello. Returns whether it says anything new about segments: then call `step`."""
        news = self.detector.said(hello, now)
        if news:
            self._said[hello.node] = frozenset(state.mac for state in hello.segments if any(state.mac))
            for nic, state in self.detector.statements.on(hello.node).items():
                self._on_nic[hello.node, nic] = state.mac
            self._known = None
        return news

    def left(self, node: str) -> None:
        """A replica is no longer fresh. Its node keeps the MACs that answered."""
        self.detector.left(node)
        self._said.pop(node, None)
        self._on_nic = {key: mac for key, mac in self._on_nic.items() if key[0] != node}
        self._known = None

    def due(self, usable: Collection[int]) -> Iterator[Probe]:
        """The probes of a tick, on ``usable`` interfaces; call `sent` for each."""
        return self.detector.due(usable.__contains__)

    def sent(self, key: TargetKey) -> None:
        self.detector.sent(key)

    def step(self, now: float, evidence: float) -> Step:
        return self.detector.step(now, evidence)

    # ---- current state

    @property
    def judgement(self) -> Judgement:
        return self.detector.judgement

    @property
    def latest(self) -> float:
        """When any probed address last answered."""
        return self.detector.probes.latest

    @property
    def probed(self) -> frozenset[str]:
        """Nodes whose InternalIP is on a segment of ours: probes decide about them."""
        return frozenset(self._internal) - {self._own}

    @property
    def gateways(self) -> bool:
        """Whether any gateway is probed."""
        return any(found.target.node == GATEWAY for found in self.detector.probes.findings.values())

    @property
    def dead(self) -> frozenset[str]:
        """Nodes that are dead on the segments of their InternalIPs: kube-proxy cannot forward to or from them."""
        dead = self.judgement.dead
        return frozenset(
            node
            for node in {place.node for place in dead}
            if self._is_dead(node, self._internal.get(node, frozenset()))
        )

    def _is_dead(self, node: str, nics: frozenset[int]) -> bool:
        return bool(nics) and all(Place(node, nic) in self.judgement.dead for nic in nics)

    def known(self) -> frozenset[bytes]:
        """Every MAC of a node, of a gateway or of ours. Bounded by the number of probed addresses and members."""
        if self._known is None:
            learned = (found.target.mac for found in self.detector.probes.findings.values() if found.target.mac)
            self._known = self._ours.union(learned, *self._said.values())
        return self._known

    def is_known(self, mac: bytes) -> bool:
        return mac in self.known()

    def node_with(self, mac: bytes, nic: int) -> str:
        """The node with a MAC on an interface of ours; empty: no known node."""
        names = {place.node for place in self.detector.places if place.nic == nic}
        return next((node for node in sorted(names) if self.mac(node, nic) == mac), "")

    def mac(self, node: str, nic: int) -> bytes:
        """A node's MAC on an interface of ours; empty: not known."""
        said = self._on_nic.get((node, nic))
        return said if said and any(said) else self.detector.mac(node, nic)
