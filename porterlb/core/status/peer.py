"""The status of a BgpPeer for the user: each node's session, and whether the peer is usable at all.

Each replica writes the entry of its own node; the leader writes the conditions. A password is never included: a
:class:`~porterlb.core.desired.SessionConfig` contains one, so its fields are listed here one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.announce import Reach
from porterlb.core.bfd import words as bfd_words
from porterlb.core.bfd.values import BfdSession
from porterlb.core.bgp import words
from porterlb.core.bgp.negotiated import Negotiated, as_configured
from porterlb.core.bgp.overrides import number_of, routers
from porterlb.core.bgp.peers import selects, shadowed
from porterlb.core.bgp.rules import keepalive_of
from porterlb.core.desired import SessionConfig
from porterlb.core.known import Known
from porterlb.core.model import Peer, Protocol
from porterlb.core.observed import SessionState
from porterlb.core.problems import Problem, Reason
from porterlb.core.sentences import listed, no_ipv4_next_hop
from porterlb.core.status import conditions
from porterlb.core.status.build import Status
from porterlb.core.status.conditions import FALSE, TRUE, condition, sentences
from porterlb.core.status.reading import entries

DEGRADED = "Degraded"
"""Reason of Ready=False: some wanted sessions are established, others are not."""

_FAMILIES = {4: "AFI_IP", 6: "AFI_IP6"}


def own_entry(known: Known, name: str, old: Mapping[str, Any] | None) -> Status:
    """``nodesPeerStatus`` with the entry of this replica's node; empty if it must have no session.

    ``old``: the complete present status.
    """
    neighbor = known.plan.bgp.sessions.get(name)
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
    if session is not None and session.negotiated is not None:
        entry["negotiated"] = _negotiated(session.negotiated, neighbor)
    if name in known.plan.bgp.bfd:
        entry["bfd"] = _bfd(session.bfd if session else None)
    if peer is not None and (number := number_of(peer, known.snapshot, node)) is not None:
        entry["override"] = f"spec.overrides[{number}]"
    if reason := _reason(session, neighbor, known):
        entry["reason"] = reason
    loss = _last_loss(session, before, known.now)
    if loss:
        entry["lastLoss"] = loss
    return {"nodesPeerStatus": {node: entry}}


def _negotiated(agreed: Negotiated, neighbor: SessionConfig) -> Status:
    """``tcpMd5``: neither side accepts a segment without the signature, so a session with a password uses it."""
    return {
        "families": [_FAMILIES[version] for version in agreed.families],
        "addPath": [_FAMILIES[version] for version in agreed.add_path],
        "holdTime": agreed.hold_time,
        "gracefulRestart": agreed.graceful_restart,
        "fourOctetAs": agreed.asn4,
        "routeRefresh": agreed.route_refresh,
        "extendedNextHop": agreed.extended_next_hop,
        "tcpMd5": bool(neighbor.password),
    }


def _bfd(session: BfdSession | None) -> Status:
    """The BFD session, without values that change while the state stays the same: each change causes a write."""
    of = session or BfdSession()
    found: Status = {"state": bfd_words.STATES[of.state], "diagnostic": bfd_words.diagnostic(of.diagnostic)}
    if of.heard:
        found["remoteState"] = bfd_words.STATES[of.remote_state]
        found["remoteDiagnostic"] = bfd_words.diagnostic(of.remote_diagnostic)
    if of.up:
        found["transmitInterval"] = round(of.transmit_interval / 1000)
        found["detectionTime"] = round(of.detection_time / 1000)
    if reason := bfd_words.sentence(session):
        found["reason"] = reason
    return found


def _reason(session: SessionState | None, config: SessionConfig, known: Known) -> str:
    """Why there is no session now, or why an established one has limitations."""
    report = known.bgp
    if session is None or not session.up:
        why = words.why_down(session) if session else ""
        return why or words.trouble(report.trouble)
    lacks = words.lacks(config, session.negotiated) if session.negotiated else ""
    obstacle = session.bfd.obstacle if session.bfd is not None else None
    bfd = bfd_words.obstacle(obstacle) if obstacle is not None else ""
    count = report.withheld.get(config.peer, 0)
    overflow = words.overflow(config.max_prefixes, count) if count else ""
    no_hop = no_ipv4_next_hop() if _lacks_ipv4_hop(known, config.peer) else ""
    return " ".join(text for text in (lacks, no_hop, words.refusal(session.limit), bfd, overflow) if text)


def _lacks_ipv4_hop(known: Known, peer: str) -> bool:
    """Whether IPv4 addresses exist that BGP may serve, and no next hop for them can be announced to the router."""
    shared, eips = known.plan.shared, known.snapshot.eips.values()
    wanted = any(eip.protocol is not Protocol.LAYER2 and any(r.first.version == 4 for r in eip.ranges) for eip in eips)
    return wanted and shared is not None and shared.peering.own_lacks_ipv4_hop(peer)


def limit_of(known: Known, name: str) -> str:
    """The limitations of our own established session, as a sentence."""
    config = known.plan.bgp.sessions.get(name)
    session = known.bgp.sessions.get(name)
    return _reason(session, config, known) if config and session and session.up else ""


def negotiated_of(status: Mapping[str, Any] | None, node: str, peer: Peer | None) -> Negotiated | None:
    """The negotiated values of a node's session, as written by its replica; if absent, the configured values."""
    found = entries(status).get(node, {}).get("negotiated")
    if isinstance(found, Mapping):
        families, add_path = (
            tuple(version for version, name in _FAMILIES.items() if name in (found.get(field) or ()))
            for field in ("families", "addPath")
        )
        return Negotiated(families, add_path, extended_next_hop=found.get("extendedNextHop") is True)
    return as_configured(peer.families, add_path=peer.add_path > 1) if peer else None


def limits(status: Mapping[str, Any] | None) -> dict[str, str]:
    """Limitations of established sessions, by node, as written by the replicas."""
    return {
        node: str(entry["reason"])
        for node, entry in entries(status).items()
        if entry.get("reason") and (entry.get("peerState") or {}).get("sessionState") == "ESTABLISHED"
    }


def loss_reasons(status: Mapping[str, Any] | None) -> dict[str, str]:
    """Why each node has no session, or lost its last one, by node, as written by the replicas."""
    found = {
        node: entry.get("reason") or (entry.get("lastLoss") or {}).get("reason")
        for node, entry in entries(status).items()
    }
    return {node: str(reason) for node, reason in found.items() if reason}


def _peer_state(neighbor: SessionConfig, session: SessionState | None, peer: Peer | None) -> Status:
    state: Status = {
        "sessionState": (session.state if session else "idle").upper(),
        "neighborAddress": str(neighbor.address),
        "peerAs": neighbor.peer_as or (session.negotiated.peer_as if session and session.negotiated else 0),
        "localAs": neighbor.local_as,
        "adminState": "DOWN" if neighbor.admin_down else "UP",
    }
    if session is not None and session.negotiated is not None and session.negotiated.router_id:
        state["routerId"] = session.negotiated.router_id
    if peer is not None and peer.description:
        state["description"] = peer.description
    return state


def _timers(neighbor: SessionConfig, session: SessionState | None, before: Mapping[str, Any], now: str) -> Status:
    timers: Status = {
        "holdTime": str(neighbor.hold_time),
        "keepaliveInterval": str(keepalive_of(neighbor.hold_time, neighbor.keepalive)),
    }
    if neighbor.connect_retry:
        timers["connectRetry"] = str(neighbor.connect_retry)
    up = session is not None and session.up
    if up and session is not None and session.negotiated is not None:
        agreed = session.negotiated.hold_time
        timers["negotiatedHoldTime"] = str(agreed)
        timers["keepaliveInterval"] = str(keepalive_of(agreed, neighbor.keepalive))
    word = "uptime" if up else "downtime"
    old_timers = before.get("timersState") or {}
    unbroken = not (session and session.losses != _count(before))
    timers[word] = old_timers[word] if unbroken and old_timers.get(word) else now
    return timers


def _count(before: Mapping[str, Any]) -> int:
    count = (before.get("lastLoss") or {}).get("count")
    return count if isinstance(count, int) else 0


def _last_loss(session: SessionState | None, before: Mapping[str, Any], now: str) -> Status:
    """Kept until the next loss, even after a restart of the replica, which resets its counter."""
    old = dict(before.get("lastLoss") or {})
    if session is None:
        return old
    if session.losses and session.losses != _count(before):
        return {"reason": words.loss(session.loss) or "No reason is known.", "time": now, "count": session.losses}
    return old | {"count": session.losses} if old else {}


def _announced(known: Known, peer: str, session: SessionState | None, before: Mapping[str, Any]) -> int:
    """Routes that were applied to an established session. Without a session, the router has none of our routes.

    While a plan is being applied, the last count stays: no newer value is known.
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
    replica that must have a session with it has one."""
    peer = known.snapshot.peers.get(name)
    problems = [*known.problems_of("BgpPeer", "", name), *known.plan.peers.get(name, ())]
    wanted = _wanted(known, peer)
    if peer is not None and not peer.admin_down and wanted:
        problems += _left_out(known, peer, wanted)
    up = [node for node in wanted if known.established(node, name)]
    limited = _limits(known, name, up, old)
    status, reason, message = _verdict(known, name, peer, problems, wanted, up, limited)
    generation = known.generation_of("BgpPeer", "", name)
    return {
        "sessions": f"{len(up)}/{0 if peer and peer.admin_down else len(wanted)}",
        "conditions": [
            condition(conditions.of(old), "Ready", status, reason, message, known.now, generation),
        ],
    }


def _verdict(
    known: Known,
    name: str,
    peer: Peer | None,
    problems: list[Problem],
    wanted: list[str],
    up: list[str],
    limited: str,
) -> tuple[str, str, str]:
    fatal = [problem for problem in problems if problem.fatal]
    if fatal:
        return FALSE, fatal[0].reason.value, sentences(problems)
    if peer is None:
        return FALSE, "Unknown", "It has not been processed yet."
    warnings = f" {sentences(problems)}".rstrip()
    if peer.admin_down:
        return FALSE, "AdminDown", f"spec.conf.adminDown is set: there is no session.{warnings}"
    if not wanted:
        return FALSE, "NoNode", f"No live replica is on a node that spec.nodeSelector matches.{warnings}"
    down = [node for node in wanted if node not in up]
    text = f"{len(up)} of {len(wanted)} sessions established."
    if limited:
        text += f" {limited}"
    if not down:
        return TRUE, problems[0].reason.value if problems else "Established", f"{text}{warnings}"
    text += f" Down: {_why_down(known, name, down)}."
    return FALSE, DEGRADED if up else Reason.NO_SESSION.value, f"{text}{warnings}"


def _wanted(known: Known, peer: Peer | None) -> list[str]:
    """The live replicas that must have a session with the peer."""
    nodes = sorted(known.live - {""}) if peer else []
    return [
        node
        for node in nodes
        if peer and selects(peer, known.snapshot, node) and peer.name not in shadowed(known.snapshot, node)
    ]


def _left_out(known: Known, peer: Peer, wanted: list[str]) -> list[Problem]:
    """Problems of usable nodes without a replica that no replica of another node can announce to this router. In a
    fabric with one subnet per rack, the router cannot use them as next hops."""
    snapshot, shared = known.snapshot, known.plan.shared
    usable = shared.topology.usable if shared is not None else frozenset()
    alone = [node for node in sorted(usable - known.live) if selects(peer, snapshot, node)]
    if not alone:
        return []
    addresses = {name: node.addresses for name, node in snapshot.nodes.items()}
    ways = routers(peer, snapshot)
    extended = shared.peering.extended.get(peer.name, frozenset()) if shared is not None else frozenset()
    reaches = [
        Reach(peer, version, addresses, snapshot.members, routers=ways, extended=extended) for version in peer.families
    ]
    found = [node for node in alone if not any(reach.address(one, node) for reach in reaches for one in wanted)]
    if not found:
        return []
    message = (
        f"No replica runs on {listed(found)}, and no other replica can announce them to this router: they get no "
        "traffic from it. Run PorterLB there."
    )
    return [Problem(Reason.NO_REPLICA, message, "", fatal=False)]


def wanted_sessions(known: Known, name: str) -> dict[str, str]:
    """The live replicas that must have a session with a peer, and why they have none; empty: established, or the reason
    is unknown."""
    peer = known.snapshot.peers.get(name)
    if peer is None or peer.admin_down:
        return {}
    told = _told(known, name)
    return {node: "" if known.established(node, name) else told.get(node, "") for node in _wanted(known, peer)}


def _limits(known: Known, name: str, nodes: list[str], old: Mapping[str, Any] | None) -> str:
    """The limitations of established sessions."""
    told = {**limits(old), known.node: limit_of(known, name)}
    return " ".join(f"{node}: {told[node].rstrip('.')}." for node in nodes if told.get(node))


def _told(known: Known, name: str) -> dict[str, str]:
    """Why sessions with a peer are down, by node."""
    own = known.bgp.sessions.get(name)
    return {**known.losses.get(name, {}), **({known.node: words.why_down(own)} if own and words.why_down(own) else {})}


def _why_down(known: Known, name: str, nodes: list[str]) -> str:
    told = _told(known, name)
    return listed(f"{node} ({told[node].rstrip('.')})" if told.get(node) else node for node in nodes)
