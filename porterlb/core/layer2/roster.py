"""Which nodes share the askers of a spread VIP, and which of these nodes this replica answers for."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from porterlb.core.layer2.answering import deputy
from porterlb.core.layer2.interfaces import Usage
from porterlb.core.layer2.spread import Roster
from porterlb.core.layer2.surroundings import Surroundings


def roster_of(
    vip: str,
    candidates: Iterable[str],
    takers: Collection[str],
    dead: Collection[str],
    replicas: Collection[str],
    around: Surroundings,
    usage: Usage | None,
) -> Roster:
    """Builds the roster of a VIP. ``vip`` to ``replicas``: as for `answering`; ``takers``: as in `Vip`.

    A node whose MAC is unknown keeps its askers and gets no new ones. While none of the ``takers`` is alive, the other
    candidates take the askers.
    """
    if usage is None:
        return Roster(0)
    keep = frozenset(node for node in candidates if node not in dead)
    macs = {node: mac for node in sorted(keep) if (mac := around.mac(node, usage))}
    own = around.own
    ours = (node for node in macs if around.answering(vip, [node], (), replicas).answerer == own)
    take = macs.keys() & set(takers) or macs.keys()
    return Roster(
        usage.ifindex,
        keep,
        frozenset(take),
        frozenset(ours),
        macs,
        serves=own in replicas,
        places=own == deputy(vip, replicas, around.leader, around.stale),
    )
