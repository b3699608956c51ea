"""Who serves a VIP on the segment: towards which node, and which replica answers for it.

A function of the plan's order and of who is alive: replicas that see the same say the same, without talking. Two
answers at once (while views differ) name the same next hop wherever the views of the nodes agree, so answering waits
for no lease.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from porterlb.core.observed import Answering
from porterlb.core.rendezvous import ranked

NOBODY = Answering("", "")


def answering(
    vip: str, candidates: Sequence[str], dead: Collection[str], replicas: Collection[str], leader: str
) -> Answering:
    """The next hop and the answerer of a VIP.

    Args:
        vip: its text, the key of the rendezvous order.
        candidates: usable nodes, best first.
        dead: nodes that do not answer probes. A node whose replica is silent but that answers probes is alive, and
            one never seen is not dead.
        replicas: those on the segment that answer now: members whose hello is fresh, and ourselves.
        leader: whom we hold for the leader; may be empty or not among the replicas.

    Returns:
        The first live candidate as the next hop; as the answerer its own replica, else the leader on its behalf,
        else the first replica by rank. NOBODY when every candidate is dead.
    """
    next_hop = next((node for node in candidates if node not in dead), "")
    if not next_hop:
        return NOBODY
    if next_hop in replicas:
        return Answering(next_hop, next_hop)
    if leader in replicas:
        return Answering(next_hop, leader)
    order = ranked(vip, replicas)
    return Answering(next_hop, order[0] if order else "")
