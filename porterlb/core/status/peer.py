"""What the user reads in the status of a BgpPeer: each node's session, and whether the peer is of use at all.

Each replica writes the entry of its own node; the leader writes the conditions. No password is ever in it: a
:class:`~porterlb.core.desired.Neighbor` has one, so its fields are named here one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.desired import Neighbor
from porterlb.core.known import Known
from porterlb.core.model import Peer
from porterlb.core.observed import SessionState
from porterlb.core.problems import Problem, Reason
from porterlb.core.status import conditions
from porterlb.core.status.build import Status
from porterlb.core.status.conditions import FALSE, TRUE, condition, sentences
from porterlb.core.status.serving import listed

DEGRADED = "Degraded"
"""Reason of Ready=False: some wanted sessions are established, others are not."""


def own_entry(known: Known, name: str, old: Mapping[str, Any] | None) -> Status:
    """``nodesPeerStatus`` with the entry of this replica's node; empty where it is to have no session.

    ``old``: the whole status that is there.
    """
    neighbor = known.plan.bgp.neighbors.get(name)
    if neighbor is None:
        return {}
    node = known.node
    session = known.bgp.sessions.get(name)
    before = entries(old).get(node, {})
    peer = known.snapshot.peers.get(name)
    entry: Status = {
        "peerState": _peer_state(neighbor, session, peer),
        "timersState": _timers(neighbor, session, before, known.now),
        "announced": _announced(known, name, session, before),
    }
    loss = _last_loss(session, before, known.now)
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


def _announced(known: Known, peer: str, session: SessionState | None, before: Mapping[str, Any]) -> int:
    """Routes that were applied to an established session. Without one the router has none of ours.

    While a plan is being applied the last count stays: nothing newer is known.
    """
    if session is None or not session.up:
        return 0
    if known.applied != known.plan.digest:
        counted = before.get("announced")
        return counted if isinstance(counted, int) else 0
    wanted = sum(len(prefixes) for path, prefixes in known.plan.bgp.routes.items() if path.peer == peer)
    return max(0, wanted - sum(path.peer == peer for path, _ in known.bgp.rejected))


def peer_conditions(known: Known, name: str, old: Mapping[str, Any] | None) -> Status:
    """``sessions`` (``19/20``: established of wanted) and the condition Ready: the peer is valid, and every live
    replica that is to have a session with it has one."""
    peer = known.snapshot.peers.get(name)
    problems = [*known.problems_of("BgpPeer", "", name), *known.plan.peers.get(name, ())]
    wanted = [node for node in sorted(known.live - {""}) if peer and _selected(known, peer, node)]
    up = [node for node in wanted if known.established(node, name)]
    status, reason, message = _verdict(known, name, peer, problems, wanted, up)
    generation = known.generation_of("BgpPeer", "", name)
    return {
        "sessions": f"{len(up)}/{0 if peer and peer.admin_down else len(wanted)}",
        "conditions": [
            condition(conditions.of(old), "Ready", status, reason, message, known.now, generation),
        ],
    }


def _verdict(
    known: Known, name: str, peer: Peer | None, problems: list[Problem], wanted: list[str], up: list[str]
) -> tuple[str, str, str]:
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        return FALSE, fatal[0].reason.value, sentences(problems)
    if peer is None:
        return FALSE, "Unknown", "It has not been looked at yet."
    warnings = f" {sentences(problems)}".rstrip()
    if peer.admin_down:
        return FALSE, "AdminDown", f"spec.conf.adminDown is set: no session is held.{warnings}"
    if not wanted:
        return FALSE, "NoNode", f"No live replica is on a node that spec.nodeSelector matches.{warnings}"
    down = [node for node in wanted if node not in up]
    text = f"{len(up)} of {len(wanted)} sessions established."
    if not down:
        return TRUE, problems[0].reason.value if problems else "Established", f"{text}{warnings}"
    text += f" Down: {_why_down(known, name, down)}."
    return FALSE, DEGRADED if up else Reason.NO_SESSION.value, f"{text}{warnings}"


def _selected(known: Known, peer: Peer, node: str) -> bool:
    if peer.node_selector is None:
        return True
    found = known.snapshot.nodes.get(node)
    return found is not None and peer.node_selector.matches(found.labels)


def _why_down(known: Known, name: str, nodes: list[str]) -> str:
    reasons = known.losses.get(name, {})
    own = known.bgp.sessions.get(name)
    told = {**reasons, **({known.node: own.reason} if own and own.reason else {})}
    return listed(f"{node} ({told[node].rstrip('.')})" if told.get(node) else node for node in nodes)
