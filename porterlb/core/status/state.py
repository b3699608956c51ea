"""The content of /state: everything that one replica knows, as JSON values, in a stable format.

====================  =====================================================================================
``version``           1; raised when a field here changes its meaning or is removed
``node``, ``leader``  this replica, and the replica that it considers the leader
``time``              when this was valid (RFC 3339)
``plan``              digest; applied (the digest that its BGP speaker has acknowledged); wakeIn (seconds or null)
``replicas``          by node: fresh, boot, sessions (established, by peer name), leader, digest, applied
``nodes``             by name: addresses, ready, usable, why (not), dead, deadBy (the live replicas that report it),
                      deadOn, probed, cordoned, drain (empty, announced: with the community GRACEFUL_SHUTDOWN, or
                      withdrawn)
``eips``              by name: protocol, size, used, layer2Possible, problems
``services``          by namespace/name: addresses, eips, problems, atNodeDeath (the effect of a node's death on new
                      connections, and which setting helps; empty: none)
``vips``              by address: eip, services, protocol, mode (planned), served (now), phase, age (seconds
                      in this phase), since (RFC 3339, the last move; empty: before this replica could know),
                      nextHops, candidates, layer2 (the node that serves it there; empty: it cannot), recorded (the
                      node in Eip.status.layer2NextHops), announced {peer: {replica: [node]}},
                      carried {peer: [node]}, answering {nextHop, answerer} or null, servedOn (the nodes that its
                      traffic reaches), hosts (the same if each host on the segment has its own next hop, else
                      empty), askers {node: number of known hosts}, conflict, problems
``peers``             by name: state, age (seconds in this state), reason and number of losses, loss and attempt (the
                      last ones: kind, code, subcode, local, text; or null), bfd (state, remoteState, diagnostic,
                      reason, transmitInterval and detectionTime in ms, failures, transitions; or null), sessions (of
                      the live replicas that must have one, by node: established, why not), problems
``bgp``               trouble, restarts, rejected [{peer, nextHop, prefix, words}]
``wire``              trouble, nics, dead, deadOn, notices (sentences), noticed (the same: kind, subject, nodes),
                      probed, doubt, conflicts, claimed, counters, inKernel (if the kernel is to answer: by
                      interface why it does not; empty: it does)
``host``              release, all and nics (kernel settings), ipvs, memory (used, limit: bytes); see edge/host
``clock``             the node's clock when this was shown, seconds since 1970
``history``           the last entries, the oldest first: time, what, subject, before, after, why, cause, detail, count,
                      vips, message
``problems``          by object ("Eip pool"): sentences
``broken``            by place in a file: sentences
``outage``            why the API is unavailable; empty if it is available
====================  =====================================================================================

Passwords are not included: objects with a password (peers, neighbours) are shown by name and state only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from porterlb.core.bfd import words as bfd_words
from porterlb.core.bfd.values import BfdSession
from porterlb.core.bgp import reasons, words
from porterlb.core.drain import Stages
from porterlb.core.ebpf.refusals import Refusal
from porterlb.core.ebpf.refusals import sentence as sentence_of
from porterlb.core.history import History, ServedBy
from porterlb.core.history.words import as_json
from porterlb.core.known import Known
from porterlb.core.layer2.notices import sentence
from porterlb.core.model import Ready
from porterlb.core.nexthops import unusable_because
from porterlb.core.observed import Nic
from porterlb.core.problems import Problem
from porterlb.core.served import Served
from porterlb.core.status.build import at_a_nodes_death
from porterlb.core.status.peer import wanted_sessions
from porterlb.core.vip import VipPlan

State = dict[str, Any]


def state_of(known: Known, history: History, now: float) -> State:
    """The state described above. ``now``: monotonic seconds, the clock of plan and reports."""
    snapshot, plan, view = known.snapshot, known.plan, known.snapshot.view
    usable = plan.shared.topology.usable if plan.shared else frozenset()
    at = plan.shared.topology.drain if plan.shared else Stages()
    nobody_ready = not any(node.ready is Ready.TRUE for node in snapshot.nodes.values())
    return {
        "version": 1,
        "node": view.node,
        "time": known.now,
        "leader": view.leader,
        "outage": known.outage,
        "broken": dict(known.broken),
        "problems": {str(key): _sentences(found) for key, found in known.problems.items()},
        "plan": {
            "digest": plan.digest,
            "applied": known.applied,
            "wakeIn": None if plan.wake_at is None else round(max(0.0, plan.wake_at - now), 3),
        },
        "replicas": {name: _replica(known, name) for name in {view.node, *snapshot.members, *view.fresh}},
        "nodes": {
            name: {
                "addresses": [str(address) for address in node.addresses],
                "ready": node.ready.value,
                "usable": name in usable,
                "why": unusable_because(node, view, ignore_ready=nobody_ready),
                "dead": name in view.dead,
                "deadBy": _dead_by(known, name),
                "deadOn": sorted(str(subnet) for node, subnet in view.dead_on if node == name),
                "probed": name in view.probed,
                "cordoned": node.cordoned,
                "drain": "withdrawn" if name in at.withdrawn else "announced" if name in at.announced else "",
            }
            for name, node in snapshot.nodes.items()
        },
        "eips": {
            name: {
                "protocol": snapshot.eips[name].protocol.value,
                "size": eip.use.size,
                "used": len(eip.use.used),
                "layer2Possible": eip.layer2_possible,
                "layer2LeftOut": dict(eip.left_out),
                "problems": _sentences((*eip.use.problems, *eip.problems)),
            }
            for name, eip in plan.eips.items()
            if name in snapshot.eips
        },
        "services": {
            str(key): {
                "addresses": [str(address) for address in allocation.addresses],
                "eips": list(allocation.eips),
                "problems": _sentences(allocation.refusals),
                "atNodeDeath": at_a_nodes_death(known, key),
            }
            for key, allocation in plan.services.items()
        },
        "vips": {
            str(address): _vip(vip, known.on_wire.get(address), history.places.get(address), _askers(known, vip), now)
            for address, vip in plan.vips.items()
        },
        "peers": {name: _peer(known, name, now) for name in {**snapshot.peers, **plan.peers}},
        "bgp": {
            "trouble": words.trouble(known.bgp.trouble),
            "restarts": known.bgp.restarts,
            "rejected": [
                {"peer": path.peer, "nextHop": str(path.next_hop), "prefix": prefix, "words": told}
                for (path, prefix), told in known.bgp.rejected.items()
            ],
        },
        "wire": _wire(known),
        "history": [as_json(entry) for entry in history.entries],
    }


def _sentences(problems: Iterable[Problem]) -> list[str]:
    return list(dict.fromkeys(map(str, problems)))


def _dead_by(known: Known, name: str) -> list[str]:
    said = [replica for replica, fresh in known.wire.fresh.items() if name in fresh.dead]
    return sorted([*said, *([known.node] if name in known.wire.dead else [])])


def _replica(known: Known, name: str) -> State:
    member = known.snapshot.members.get(name)
    if name == known.node:
        up = [peer for peer, session in known.bgp.sessions.items() if session.up]
        own = {"leader": known.snapshot.view.leader, "applied": known.applied}
        return {"fresh": True, "boot": member.boot if member else None, "sessions": sorted(up), **own}
    said = known.wire.fresh.get(name)
    if said is None:
        return {"fresh": False, "boot": member.boot if member else None}
    return {
        "fresh": True,
        "boot": said.boot,
        "sessions": sorted(said.sessions),
        "leader": said.leader,
        "digest": said.digest,
        "applied": said.applied,
    }


def _askers(known: Known, vip: VipPlan) -> Mapping[str, int]:
    return known.wire.askers.get(vip.address, {}) if vip.takers else {}


def _vip(vip: VipPlan, served: Served | None, place: ServedBy | None, askers: Mapping[str, int], now: float) -> State:
    answering = served.answered if served else None
    return {
        "eip": vip.eip,
        "services": [str(key) for key in vip.services],
        "protocol": vip.protocol.value,
        "mode": vip.mode.mode.value,
        "served": served.mode.value if served else "none",
        "phase": vip.mode.phase.value,
        "age": round(now - vip.mode.since, 3),
        "since": place.since if place else "",
        "nextHops": list(vip.next_hops),
        "candidates": list(vip.candidates),
        "layer2": vip.place,
        "recorded": vip.recorded,
        "announced": {
            peer: {replica: list(hops) for replica, hops in by_replica.items()}
            for peer, by_replica in vip.announced.items()
        },
        "carried": {peer: list(hops) for peer, hops in served.carried.items()} if served else {},
        "answering": {"nextHop": answering.next_hop, "answerer": answering.answerer} if answering else None,
        "servedOn": list(served.next_hops) if served else [],
        "hosts": list(served.hosts) if served else [],
        "askers": dict(askers),
        "conflict": served.conflict if served else "",
        "problems": _sentences(vip.problems),
    }


def _peer(known: Known, name: str, now: float) -> State:
    session = known.bgp.sessions.get(name)
    config = known.plan.bgp.sessions.get(name)
    return {
        "router": str(config.address) if config else "",
        "wanted": name in known.plan.bgp.sessions,
        "state": session.state if session else "",
        "age": round(now - session.since, 3) if session else None,
        "reason": words.loss(session.loss) if session else "",
        "lastAttempt": words.loss(session.attempt) if session else "",
        "refusal": words.refusal(session.refusal or session.limit) if session else "",
        "losses": session.losses if session else 0,
        "bfd": _bfd(session.bfd if session else None, wanted=name in known.plan.bgp.bfd),
        "loss": reasons.written(session.loss) if session else None,
        "attempt": reasons.written(session.attempt) if session else None,
        "sessions": {
            node: {"established": known.established(node, name), "why": why}
            for node, why in wanted_sessions(known, name).items()
        },
        "problems": _sentences(known.plan.peers.get(name, ())),
    }


def _bfd(session: BfdSession | None, *, wanted: bool) -> State | None:
    """None if no BFD is wanted. Times in milliseconds."""
    if not wanted:
        return None
    of = session or BfdSession()
    return {
        "state": bfd_words.STATES[of.state],
        "remoteState": bfd_words.STATES[of.remote_state] if of.heard else "",
        "diagnostic": bfd_words.diagnostic(of.diagnostic),
        "reason": bfd_words.sentence(session),
        "transmitInterval": round(of.transmit_interval / 1000),
        "detectionTime": round(of.detection_time / 1000),
        "failures": of.failures,
        "transitions": of.transitions,
    }


def _wire(known: Known) -> State:
    wire = known.wire
    return {
        "trouble": wire.trouble,
        "nics": [_nic(nic) for nic in wire.nics],
        "dead": sorted(wire.dead),
        "notices": [str(sentence(notice)) for notice in wire.notices],
        "noticed": [
            {"kind": notice.kind.value, "subject": notice.subject, "nodes": list(notice.nodes)}
            for notice in wire.notices
        ],
        "deadOn": {subnet: sorted(nodes) for subnet, nodes in sorted(wire.dead_on.items())},
        "probed": sorted(wire.probed),
        "doubt": wire.doubt,
        "conflicts": {str(address): conflict.mac.hex(":") for address, conflict in wire.conflicts.items()},
        "claimed": {str(address): mac.hex(":") for address, mac in wire.claimed.items()},
        "counters": dict(wire.counters),
        "inKernel": {nic: sentence_of(Refusal(why)) if why else "" for nic, why in sorted(wire.in_kernel.items())},
    }


def _nic(nic: Nic) -> State:
    return {
        "name": nic.name,
        "mac": nic.mac.hex(":"),
        "up": nic.up,
        "addresses": [str(address) for address in nic.addresses],
    }
