"""The periodic reports: notices for operators, counters, askers, and the VIPs that were asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from ipaddress import ip_address

from porterlb.core.layer2.action_list import ActionList
from porterlb.core.layer2.address_claims import AddressClaims
from porterlb.core.layer2.hellos import Hellos
from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.notices import of_segments
from porterlb.core.layer2.refused_hellos import RefusedHellos
from porterlb.core.layer2.serving import Serving
from porterlb.core.layer2.spread import Spread
from porterlb.core.layer2.vips import VipTable
from porterlb.core.observed import Notice, NoticeKind


class Reports:
    """Reads the other parts; decides nothing about them. Only what has changed is reported, except counters.

    Args:
        own: our node.
    """

    def __init__(
        self,
        own: str,
        nodes: Nodes,
        hellos: Hellos,
        serving: Serving,
        refused: RefusedHellos,
        vips: VipTable,
        spread: Spread,
        claims: AddressClaims,
        actions: ActionList,
    ) -> None:
        self._own = own
        self._nodes = nodes
        self._hellos = hellos
        self._serving = serving
        self._refused = refused
        self._vips = vips
        self._spread = spread
        self._claims = claims
        self._actions = actions
        self._notices: tuple[Notice, ...] = ()
        self._asked: frozenset[str] = frozenset()
        self._askers: dict[str, Mapping[str, int]] = {}

    def second(self, members: Collection[str], now: float) -> None:
        """Call once a second."""
        notices = self._found(members, now)
        if notices != self._notices:
            self._notices = notices
            self._actions.report(notices=notices)
        askers = {str(ip_address(vip)): by_node for vip, by_node in self._spread.counts().items()}
        if askers != self._askers:
            self._askers = askers
            self._actions.report(askers=askers)
        self._actions.report(counters=dict(self._actions.counters))

    def asked(self, now: float) -> None:
        """Reports the VIPs that were asked for recently."""
        asked = self._vips.asked_lately(now)
        if asked != self._asked:
            self._asked = asked
            self._actions.report(asked=asked)

    def _found(self, members: Collection[str], now: float) -> tuple[Notice, ...]:
        fresh = self._hellos.fresh
        found = of_segments(self._nodes, self._own) + self._refused.notices(fresh, now)
        others = set(members) - {self._own}
        if self._serving.listened(now) and others and not fresh:
            quiet = [node for node in sorted(others - self._refused.nodes) if self._nodes.detector.answers(node)]
            if quiet:
                found.append(Notice(NoticeKind.HELLOS_MISSING, "", tuple(quiet)))
        return (*found, *self._claims.notices())
