"""What the user reads in the status of a BgpPeer: each node's session, and whether the peer is of use at all.

Each replica writes the entry of its own node; the leader writes the conditions. No password is ever in it: a
:class:`~porterlb.core.desired.Neighbor` has one, so its fields are named here one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.desired import Neighbor
from porterlb.core.model import Peer
from porterlb.core.observed import SessionState
from porterlb.core.problems import Problem, Reason
from porterlb.core.status import conditions
from porterlb.core.status.build import Situation, Status
from porterlb.core.status.conditions import FALSE, TRUE, condition, sentences
from porterlb.core.status.serving import listed


def own_entry(situation: Situation, name: str, old: Mapping[str, Any] | None) -> Status:
    """``nodesPeerStatus`` with the entry of this replica's node; empty where it is to have no session.

    ``old``: the whole status that is there.
    """
    neighbor = situation.plan.bgp.neighbors.get(name)
    if neighbor is None:
        return {}
    node = situation.seen.node
    session = situation.seen.bgp.sessions.get(name)
    before = entries(old).get(node, {})
    peer = situation.snapshot.peers.get(name)
    entry: Status = {
        "peerState": _peer_state(neighbor, session, peer),
        "timersState": _timers(neighbor, session, before, situation.now),
        "announced": _announced(situation, name),
    }
    loss = _last_loss(session, before, situation.now)
    if loss:
        entry["lastLoss"] = loss
    return {"nodesPeerStatus": {node: entry}}


def entries(status: Mapping[str, Any] | None) -> Mapping[str, Mapping[str, Any]]:
    """The entries of all nodes in a BgpPeer's status, however odd it is."""
    found = (status or {}).get("nodesPeerStatus")
    if not isinstance(found, Mapping):
        return {}
    return {str(node): entry for node, entry in found.items() if isinstance(entry, Mapping)}


def loss_reasons(status: Mapping[str, Any] | None) -> dict[str, str]:
    """Why each node lost its session last, by node, as the replicas have written it."""
    found = {node: (entry.get("lastLoss") or {}).get("reason") for node, entry in entries(status).items()}
    return {node: str(reason) for node, reason in found.items() if reason}


def _peer_state(neighbor: Neighbor, session: SessionState | None, peer: Peer | None) -> Status:
    state: Status = {
        "sessionState": (session.state if session else "idle").upper(),
        "neighborAddress": str(neighbor.address),
        "peerAs": neighbor.peer_as,
        "localAs": neighbor.local_as,
        "adminState": "DOWN" if neighbor.admin_down else "UP",
    }
    if peer is not None and peer.description:
        state["description"] = peer.description
    return state


def _timers(neighbor: Neighbor, session: SessionState | None, before: Mapping[str, Any], now: str) -> Status:
    timers: Status = {
        "holdTime": str(neighbor.hold_time),
        # A third of the hold time where nothing is asked for (RFC 4271, 10).
        "keepaliveInterval": str(neighbor.keepalive or neighbor.hold_time // 3),
    }
    if neighbor.connect_retry:
        timers["connectRetry"] = str(neighbor.connect_retry)
    up = session is not None and session.up
    word = "uptime" if up else "downtime"
    old_timers = before.get("timersState") or {}
    unbroken = not (session and session.losses != _count(before))
    timers[word] = old_timers[word] if unbroken and old_timers.get(word) else now
    return timers


def _count(before: Mapping[str, Any]) -> int:
    count = (before.get("lastLoss") or {}).get("count")
    return count if isinstance(count, int) else 0


def _last_loss(session: SessionState | None, before: Mapping[str, Any], now: str) -> Status:
    """Kept until the next loss, also through a restart of the replica, which begins to count anew."""
    old = dict(before.get("lastLoss") or {})
    if session is None:
        return old
    if session.losses and session.losses != _count(before):
        return {"reason": session.reason or "No reason is known.", "time": now, "count": session.losses}
    return old | {"count": session.losses} if old else {}


def _announced(situation: Situation, peer: str) -> int:
    wanted = sum(len(prefixes) for path, prefixes in situation.plan.bgp.routes.items() if path.peer == peer)
    return max(0, wanted - sum(path.peer == peer for path, _ in situation.seen.bgp.rejected))


def peer_conditions(situation: Situation, name: str, old: Mapping[str, Any] | None) -> Status:
    """The condition Ready: the peer is valid, and at least one live replica has a session with it."""
    peer = situation.snapshot.peers.get(name)
    problems = [*situation.problems_of("BgpPeer", "", name), *situation.plan.peers.get(name, ())]
    status, reason, message = _verdict(situation, name, peer, problems)
    generation = peer.generation if peer else 0
    return {
        "conditions": [
            condition(conditions.of(old), "Ready", status, reason, message, situation.now, generation),
        ]
    }


def _verdict(situation: Situation, name: str, peer: Peer | None, problems: list[Problem]) -> tuple[str, str, str]:
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        return FALSE, fatal[0].reason.value, sentences(problems)
    if peer is None:
        return FALSE, "Unknown", "It has not been looked at yet."
    warnings = f" {sentences(problems)}".rstrip()
    if peer.admin_down:
        return FALSE, "AdminDown", f"spec.conf.adminDown is set: no session is held.{warnings}"
    wanted = [node for node in _live(situation) if _selected(situation, peer, node)]
    if not wanted:
        return FALSE, "NoNode", f"No live replica is on a node that spec.nodeSelector matches.{warnings}"
    up = [node for node in wanted if situation.seen.established(node, name)]
    down = [node for node in wanted if node not in up]
    text = f"{len(up)} of {len(wanted)} sessions established."
    if down:
        text += f" Down: {_why_down(situation, name, down)}."
    if up:
        return TRUE, problems[0].reason.value if problems else "Established", f"{text}{warnings}"
    return FALSE, Reason.NO_SESSION.value, f"{text}{warnings}"


def _live(situation: Situation) -> list[str]:
    return sorted({situation.seen.node, *situation.seen.wire.fresh} - {""})


def _selected(situation: Situation, peer: Peer, node: str) -> bool:
    if peer.node_selector is None:
        return True
    known = situation.snapshot.nodes.get(node)
    return known is not None and peer.node_selector.matches(known.labels)


def _why_down(situation: Situation, name: str, nodes: list[str]) -> str:
    reasons = situation.losses.get(name, {})
    own = situation.seen.bgp.sessions.get(name)
    told = {**reasons, **({situation.seen.node: own.reason} if own and own.reason else {})}
    return listed(f"{node} ({told[node].rstrip('.')})" if told.get(node) else node for node in nodes)
