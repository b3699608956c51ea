"""Who serves a VIP on the segment: the next hop (a node), and the replica that answers for it.

A function of the plan's order and of the live nodes: replicas with the same view reach the same result without
communication. While views differ, two replicas may answer, but they name the same next hop wherever their views of the
nodes agree. Therefore answering needs no lease.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from porterlb.core.observed import Answering
from porterlb.core.rendezvous import ranked

NOBODY = Answering("", "")


def answering(
    vip: str,
    candidates: Sequence[str],
    dead: Collection[str],
    replicas: Collection[str],
    leader: str,
    stale: Collection[str] = (),
    own: str = "",
) -> Answering:
    """The next hop and the answerer of a VIP.

    Args:
        vip: the VIP as text, the key of the rendezvous order.
        candidates: usable nodes, best first.
        dead: nodes that do not answer probes. A node that answers probes is alive even if its replica is silent, and a
            node that was never seen is not dead.
        replicas: the replicas on the segment that answer now: members whose hello is fresh, and ourselves.
        leader: the leader as we know it; may be empty or not among the replicas.
        stale: replicas whose plan may be outdated. While another replica answers, they answer for their own nodes
            only, and the others answer for these nodes too: a stale replica may not know of the VIP.
        own: our node.

    Returns:
        The first live candidate as the next hop. The answerer is the next hop's own replica, else the leader on its
        behalf, else the first replica by rank. NOBODY when every candidate is dead.
    """
    next_hop = next((node for node in candidates if node not in dead), "")
    if not next_hop:
        return NOBODY
    if next_hop in replicas and (next_hop == own or next_hop in _up_to_date(replicas, stale)):
        return Answering(next_hop, next_hop)
    return Answering(next_hop, deputy(vip, replicas, leader, stale))


def deputy(vip: str, replicas: Collection[str], leader: str, stale: Collection[str] = ()) -> str:
    """The replica that answers for nodes whose own replica does not: the leader if it answers, else the first by rank;
    empty: none. Arguments as for `answering`."""
    current = _up_to_date(replicas, stale)
    if leader in current:
        return leader
    order = ranked(vip, current)
    return order[0] if order else ""


def _up_to_date(replicas: Collection[str], stale: Collection[str]) -> Collection[str]:
    """The replicas whose plan is not outdated; all of them if every plan may be."""
    if not stale:
        return replicas
    return [node for node in replicas if node not in stale] or replicas
