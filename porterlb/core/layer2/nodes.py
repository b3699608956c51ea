"""The nodes on our segments: who is dead, all told, and who has which MAC."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from porterlb.core.hello import Hello
from porterlb.core.layer2.liveness import Heard, Liveness, Verdict
from porterlb.core.layer2.targets import GATEWAY, Target
from porterlb.core.observed import Nic


class Nodes:
    """Composes `Liveness` with the MACs that answers told."""

    def __init__(self, own: str, interval: float, misses: int) -> None:
        self._own = own
        self.liveness = Liveness(interval, misses)
        self._macs: dict[tuple[str, int], bytes] = {}
        self._learned: set[bytes] = set()
        self._ours: frozenset[bytes] = frozenset()

    # ---- events

    def set_nics(self, nics: Mapping[int, Nic]) -> None:
        """Our own interfaces have changed."""
        self._ours = frozenset(nic.mac for nic in nics.values())

    def set_targets(self, targets: Iterable[Target]) -> None:
        self.liveness.set_targets(targets)

    def heard(self, nic: int, address: bytes, mac: bytes, now: float) -> Heard | None:
        """An answer from the segment; None when it says nothing new about a node. ``mac`` of the result: it is new on
        that interface."""
        heard = self.liveness.heard(nic, address, mac, now)
        if heard is None:
            return None
        self._learned.add(mac)
        new = self._macs.get((heard.node, nic)) != mac
        self._macs[heard.node, nic] = mac
        return heard._replace(mac=new)

    # ---- what is known

    @property
    def verdict(self) -> Verdict:
        """By our own probes alone."""
        return self.liveness.verdict

    @property
    def latest(self) -> float:
        """When any probed address answered last."""
        return self.liveness.latest

    @property
    def probed(self) -> frozenset[str]:
        """Nodes on a segment of ours: probes decide about them."""
        return frozenset(t.node for t in self._targets() if t.decides)

    @property
    def gateways(self) -> bool:
        """Whether there is a gateway to be heard."""
        return any(target.node == GATEWAY for target in self.liveness.targets.values())

    def known(self) -> frozenset[bytes]:
        """Every MAC that is a node's, a gateway's or our own."""
        return self._ours | self._learned

    def is_known(self, mac: bytes) -> bool:
        return mac in self._learned or mac in self._ours

    def mac(self, node: str, nic: int) -> bytes:
        """A node's MAC on an interface of ours; empty: not known."""
        return self._macs.get((node, nic), b"")

    def dead(self, hellos: Iterable[Hello]) -> frozenset[str]:
        """The dead, all told: by our own probes; those who say so of themselves (their link is gone); and of nodes
        that we probe but have never heard, those that a fresh replica says are dead."""
        hellos = tuple(hellos)
        verdict = self.liveness.verdict
        unknown = {target.node for target in self._targets()} - verdict.seen
        dead = set(verdict.dead)
        dead.update(hello.node for hello in hellos if hello.node in hello.dead)
        dead.update(node for hello in hellos for node in hello.dead if node in unknown)
        return frozenset(dead - {self._own})

    def _targets(self) -> list[Target]:
        return [target for target in self.liveness.targets.values() if target.node != GATEWAY]
