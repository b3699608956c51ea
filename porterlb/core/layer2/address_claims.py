"""Other claimants of a VIP: a foreign host, another replica, or a host that has an address before it becomes a VIP.

`Conflicts`, `DoubleAnswers` and `DuplicateDetection` judge what is heard, and `Reunion` decides when to ask. This
module applies the results to the VIPs. Times: monotonic seconds, as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address

from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.actions import Announce, CheckAddress, NoteKind
from porterlb.core.layer2.conflicts import Conflicts
from porterlb.core.layer2.dad import DuplicateDetection
from porterlb.core.layer2.double_answers import DoubleAnswers
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.reunion import Reunion
from porterlb.core.layer2.spread import Spread
from porterlb.core.layer2.surroundings import Surroundings
from porterlb.core.layer2.vips import VipTable
from porterlb.core.model import Address
from porterlb.core.observed import AddressConflict, Notice, NoticeKind


class AddressClaims:
    """Writes ``yielded`` of `Surroundings`.

    Args:
        rate: duplicate address probes per second; also the rate of questions for our own VIPs.
    """

    def __init__(
        self,
        around: Surroundings,
        nodes: Nodes,
        vips: VipTable,
        spread: Spread,
        actions: ActionList,
        rate: int,
        now: float,
    ) -> None:
        self._around = around
        self._nodes = nodes
        self._vips = vips
        self._spread = spread
        self._actions = actions
        self._dad = DuplicateDetection(rate, now)
        self._conflicts = Conflicts()
        self._doubles = DoubleAnswers()
        self._reunion = Reunion(rate, now)

    # ---- claims

    def heard(self, address: bytes, mac: bytes, now: float) -> bool:
        """An ARP reply or an advertisement says that ``address`` is at ``mac``. Returns whether that may change
        anything: ``address`` is a VIP, or is being checked."""
        is_vip, known = address in self._vips.by_packed, self._nodes.is_known(mac)
        checked = (not is_vip or not known) and self._dad.heard(address, mac)
        if checked:
            self._report_checked()
        if is_vip and not known:
            self._conflicts.claim(address, mac, now)
        elif is_vip:
            self._claimed_by_ours(address, mac, now)
            self.settle(now)
        return is_vip or checked

    def asked(self, address: bytes, mac: bytes, now: float) -> None:
        """A question arrived whose sender address is ``address``, which is a VIP."""
        if self._nodes.is_known(mac):
            self._claimed_by_ours(address, mac, now)
        elif not mac[0] & 1:
            self._conflicts.claim(address, mac, now)

    def _claimed_by_ours(self, address: bytes, mac: bytes, now: float) -> None:
        """A node of ours claims a VIP by its own announcement or answer. Several nodes answer a spread VIP, each for
        its own askers: `Spread` resolves two nodes for one asker."""
        vip = self._vips.by_packed.get(address)
        if vip is not None and vip.spread:
            return
        if vip is None or vip.usage is None or vip.mac == mac or not (vip.mac or address in self._around.yielded):
            return
        node = self._nodes.node_with(mac, vip.usage.ifindex)
        if node:
            self._vips.announced_by(address, now)
            self._doubles.claim(address, node, now)

    def forget(self, address: bytes) -> None:
        """``address`` is no longer a VIP."""
        self._conflicts.forget(address)
        self._doubles.forget(address)
        self._around.yielded.pop(address, None)

    # ---- foreign hosts

    def review(self, now: float) -> None:
        """Confirms conflicts, and defends our VIPs."""
        review = self._conflicts.review(now, self._nodes.known())
        for address in review.defend:
            self._defend(address, now)
        if review.changed:
            self._actions.report(conflicts=self._conflicts.found)

    def _defend(self, address: bytes, now: float) -> None:
        """Announces a VIP. A spread VIP is announced to each of its askers by the replica that answers the asker."""
        vip = self._vips.by_packed.get(address)
        if vip is not None and vip.spread:
            if not self._around.frozen and self._spread.defend(address, now):
                self.defended(address, now)
            return
        index = 0 if self._around.frozen else self._vips.announced_on(address)
        if index:
            self._actions.add(Announce(index, address, True))

    def defended(self, address: bytes, now: float) -> None:
        """An announcement that defends a VIP was sent."""
        self._conflicts.defended(address, now)
        self._actions.count("defences", 1)

    @property
    def conflicts(self) -> Mapping[Address, AddressConflict]:
        """Confirmed conflicts."""
        return self._conflicts.found

    # ---- other replicas

    @property
    def settle_at(self) -> float | None:
        """When `settle` is due, unless an answer arrives earlier."""
        return self._doubles.next_at

    def settle(self, now: float) -> None:
        """Asks for, silences or resumes the VIPs that another replica also answers."""

        def ours(address: bytes) -> tuple[str, str]:
            vip = self._vips.by_packed.get(address)
            return (vip.text, vip.served.next_hop) if vip is not None and vip.mac and vip.served else ("", "")

        settled = self._doubles.review(now, ours)
        for address in settled.ask:
            vip = self._vips.by_packed.get(address)
            if vip is not None and vip.usage is not None:
                self._actions.add(CheckAddress(vip.usage.ifindex, vip.address))
            if vip is not None and vip.mac:
                self._defend(address, now)  # so that the other replica notices it too
        for address, node in settled.silence:
            self._around.yielded[address] = node
            self._vips.settled_with(address)
            self._actions.count("double_answers", 1)
            self._actions.note(NoteKind.TWO_ANSWERS, f"{ip_address(address)} ({node})")
        for address in settled.resume:
            self._around.yielded.pop(address, None)
            self._vips.settled_with(address)

    def replica_said(self, node: str, answers: bool, now: float) -> None:
        """A replica is heard for the first time, or with news. When it begins to answer, we ask for our own VIPs."""
        ours = (packed for packed, vip in self._vips.by_packed.items() if vip.mac and not vip.spread)
        self._reunion.said(node, answers, ours, now)

    def replica_left(self, node: str) -> None:
        self._reunion.left(node)

    @property
    def verify_at(self) -> float | None:
        """When `verify` has something to do."""
        return self._reunion.next_at

    def verify(self, now: float) -> None:
        """Asks for VIPs that we answer, to find out whether another replica also answers them."""
        for address in self._reunion.due(now):
            vip = self._vips.by_packed.get(address)
            if vip is not None and vip.mac and vip.usage is not None and not self._around.frozen:
                self._actions.add(CheckAddress(vip.usage.ifindex, vip.address))

    def notices(self) -> list[Notice]:
        """VIPs that two replicas answered."""
        doubles = self._doubles.confirmed.items()
        return [Notice(NoticeKind.TWO_ANSWERS, str(ip_address(address)), (node,)) for address, node in doubles]

    # ---- addresses before their first use

    def check(self, addresses: Collection[Address], now: float) -> None:
        """Takes the whole set of addresses to check."""
        self._dad.want(addresses, now)
        self._report_checked()

    @property
    def probe_at(self) -> float | None:
        """When `probe` has something to do."""
        return self._dad.next_at

    def probe(self, now: float) -> None:
        """Sends the duplicate address probes that are due."""
        interfaces = self._around.interfaces
        step = self._dad.due(now, lambda address: interfaces.on_link(address) is not None)
        decided = step.decided
        for address in step.probes:
            nic = interfaces.on_link(address)
            assert nic is not None
            if any(interface.ip == address for interface in nic.addresses):
                decided = self._dad.heard(address.packed, nic.mac) or decided
            self._actions.add(CheckAddress(nic.index, address))
        if decided:
            self._report_checked()

    def _report_checked(self) -> None:
        self._actions.report(claimed=dict(self._dad.claimed), clear=frozenset(self._dad.clear))
