"""The status of Eips, Services and the BgpConf for the user: what is in effect on the network, not what was planned.

Pure: from :class:`~porterlb.core.known.Known` and the present status to the required status, as JSON values. Times
are RFC 3339 text, and change only if the value changed. No password is ever in a status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from porterlb.core import node_failure, records
from porterlb.core.allocation import EipUse
from porterlb.core.bgp import words
from porterlb.core.bgp.peers import own_as, router_id
from porterlb.core.eip_plan import EipPlan
from porterlb.core.known import Known
from porterlb.core.layer2.notices import sentence
from porterlb.core.model import Address, Eip, Mode, Protocol, ServiceKey
from porterlb.core.observed import Notice, NoticeKind
from porterlb.core.problems import Problem, Reason
from porterlb.core.sentences import listed
from porterlb.core.served import Served
from porterlb.core.status import conditions, mode_record
from porterlb.core.status.conditions import FALSE, TRUE, UNKNOWN, condition, sentences
from porterlb.core.vip import VipPlan

Status = dict[str, Any]

INT64_MAX = 2**63 - 1
"""The largest number that the API accepts: an IPv6 /64 has more addresses."""


# --- Service


def service_status(known: Known, key: ServiceKey, old: Mapping[str, Any] | None) -> Status:
    """``loadBalancer.ingress`` and the conditions AddressAssigned and Serving of a Service that we manage.

    ``ipMode`` is always written (KEP-1860): otherwise the API server adds it, and the two would never be equal.
    """
    addresses = known.addresses_of(key)
    generation = known.generation_of("Service", key.namespace, key.name)
    before = conditions.of(old)
    told = [_assigned(known, key, addresses), _serving(known, key, addresses)]
    status: Status = {
        "conditions": [
            condition(before, type_, value, reason, message, known.now, generation)
            for type_, (value, reason, message) in zip(("AddressAssigned", "Serving"), told, strict=True)
        ]
    }
    allocation = known.plan.services.get(key)
    shown = dict.fromkeys((*addresses, *(allocation.contested if allocation else ())))
    if shown:
        status["loadBalancer"] = {"ingress": [{"ip": str(address), "ipMode": "VIP"} for address in shown]}
    return status


ConditionValues = tuple[str, str, str]
"""Of a condition: status, reason, message."""


def _assigned(known: Known, key: ServiceKey, addresses: tuple[Address, ...]) -> ConditionValues:
    allocation = known.plan.services.get(key)
    own = known.problems_of("Service", key.namespace, key.name)
    refusals = (*own, *(allocation.refusals if allocation else ()))
    fatal = [problem for problem in refusals if problem.fatal]
    if fatal:
        return FALSE, fatal[0].reason.value, sentences(refusals)
    if not addresses:
        if allocation is not None and allocation.addresses:
            probed = listed(allocation.addresses)
            return FALSE, "Probing", f"Checking whether another host uses {probed} before its first use."
        return (FALSE, refusals[0].reason.value, sentences(refusals)) if refusals else (UNKNOWN, "Pending", "Waits.")
    pools = dict(zip(allocation.addresses, allocation.eips, strict=False)) if allocation else {}
    given = listed(f"{address} from Eip {pools[address]}" if address in pools else address for address in addresses)
    verb = "is" if len(addresses) == 1 else "are"
    text = f"{given} {verb} assigned. {sentences(refusals)}".strip()
    if key in known.rewriters:
        text += (
            f" {known.rewriters[key]} writes status.loadBalancer of this Service too. The address stays served, and "
            "the status is written back less and less often. Stop the other writer."
        )
    return TRUE, "Assigned", text


def _serving(known: Known, key: ServiceKey, addresses: tuple[Address, ...]) -> ConditionValues:
    if not addresses:
        return FALSE, "NoAddress", "There is no address to serve."
    verdicts = [_serving_one(known, address) for address in addresses]
    text = " ".join(message for _, _, message in verdicts)
    # If one address (of two families) is not served, its verdict is the most important one for the user.
    status, reason, _ = next((v for v in verdicts if v[0] != TRUE), verdicts[0])
    return status, reason, f"{text} {at_a_nodes_death(known, key)}".rstrip() if status == TRUE else text


def at_a_nodes_death(known: Known, key: ServiceKey) -> str:
    """The effect of a node's death on the Service and the setting that helps; empty: no effect."""
    service, shared = known.snapshot.services.get(key), known.plan.shared
    if service is None or shared is None:
        return ""
    return node_failure.cost(service, known.snapshot.endpoints.get(key, ()), len(shared.topology.usable), known.marking)


_MODE_REASON = {Mode.BGP: "BGP", Mode.LAYER2: "Layer2"}


def _serving_one(known: Known, address: Address) -> ConditionValues:
    vip = known.plan.vips.get(address)
    if vip is None:
        return FALSE, "Pending", f"{address} has just been assigned and is not announced yet."
    served = known.on_wire.get(address, Served(Mode.NONE))
    conflict = f" A foreign host ({served.conflict}) claims the address." if served.conflict else ""
    refused = "".join(f" {sentence}" for sentence in served.refused)
    if served.mode is Mode.NONE:
        reason, why = _why_not_served(known, vip)
        return FALSE, reason, f"{address} is not served: {why}{refused}{conflict}"
    text = _bgp_sentence(known, vip, served) if served.mode is Mode.BGP else _layer2_sentence(known, vip, served)
    reason = Reason.ADDRESS_CONFLICT.value if served.conflict else _MODE_REASON[served.mode]
    return TRUE, reason, f"{text}{refused}{conflict}"


def _why_not_served(known: Known, vip: VipPlan) -> tuple[str, str]:
    if vip.problems:
        lost = ""
        if any(problem.reason is Reason.NO_SESSION for problem in vip.problems):
            lost = f" {_lost(known, vip.announced or known.losses)}"
        return vip.problems[0].reason.value, f"{sentences(vip.problems)}{lost}".rstrip()
    if known.bgp.trouble and vip.announced:
        return "NotYetServed", words.trouble(known.bgp.trouble)
    return "NotYetServed", "it is planned, but the speakers have not confirmed it yet."


def _bgp_sentence(known: Known, vip: VipPlan, served: Served) -> str:
    hops = served.next_hops
    text = f"{vip.address} is served by BGP: {listed(served.carried)} {_have(served.carried)} {_next_hops(hops)}."
    without = [peer for peer, planned in vip.announced.items() if planned and peer not in served.carried]
    silent = [peer for peer in without if not _session_with(known, peer)]
    if silent:
        text += f" No session with {listed(silent)}. {_lost(known, silent)}".rstrip()
    waiting = [peer for peer in without if peer not in silent]
    if waiting:
        text += f" Not confirmed yet for {listed(waiting)}."
    drained = known.plan.shared.topology.drain.withdrawn if known.plan.shared else frozenset()
    wanted = _may_be_announced(known, vip)
    missing = [hop for hop in wanted if hop not in hops and hop not in drained]
    if missing:
        text += f" Not announced: {listed(sorted(missing))}."
    if vip.mode.mode is Mode.LAYER2:
        text += " It is switching to Layer 2."
    return f"{text} {sentences(_of(vip, Reason.NOT_NEGOTIATED))}".rstrip()


def _may_be_announced(known: Known, vip: VipPlan) -> tuple[str, ...]:
    """The next hops that the rules of at least one peer allow."""
    shared, eip = known.plan.shared, known.snapshot.eips.get(vip.eip)
    if shared is None or eip is None:
        return vip.next_hops
    services = [service for key in vip.services if (service := known.snapshot.services.get(key))]
    told = shared.rules.recipients(eip, vip.address.version, services).told.values()
    allowed = {hop for of in told for hop in of.allowed(vip.next_hops)}
    return tuple(hop for hop in vip.next_hops if hop in allowed)


def _layer2_sentence(known: Known, vip: VipPlan, served: Served) -> str:
    assert served.answered is not None  # Mode.LAYER2 implies this
    hop, answerer = served.answered.next_hop, served.answered.answerer
    behalf = f", answered by {answerer}" if answerer != hop else ""
    text = f"{vip.address} is served by Layer 2 on {hop}{behalf}."
    if served.hosts:
        text = f"{vip.address} is served by Layer 2 with {_next_hops(served.hosts)}, one for each host on the segment."
    if vip.mode.mode is Mode.BGP:
        text += f" BGP is planned, but not confirmed yet. {_lost(known, vip.announced)}".rstrip()
    return f"{text} {sentences(_of(vip, Reason.ROUTES_LOST, Reason.NOT_NEGOTIATED))}".rstrip()


def _of(vip: VipPlan, *reasons: Reason) -> list[Problem]:
    return [problem for problem in vip.problems if problem.reason in reasons]


def _have(peers: Iterable[str]) -> str:
    return "has" if len(list(peers)) == 1 else "have"


def _next_hops(hops: Sequence[str]) -> str:
    return f"next hop {hops[0]}" if len(hops) == 1 else f"next hops {listed(hops)}"


def _session_with(known: Known, peer: str) -> bool:
    return any(known.established(replica, peer) for replica in known.live)


def _lost(known: Known, peers: Iterable[str]) -> str:
    """Why the sessions with ``peers`` that are down were lost, if known."""
    return mode_record.loss_sentence(
        {
            (node, peer): reason
            for peer in peers
            for node, reason in known.losses.get(peer, {}).items()
            if not known.established(node, peer)
        }
    )


# --- Eip


def eip_status(known: Known, name: str, old: Mapping[str, Any] | None) -> Status:
    """The complete status of an Eip, usable or not."""
    own = known.problems_of("Eip", "", name)
    eip = known.snapshot.eips.get(name)
    planned = known.plan.eips.get(name)
    before = conditions.of(old)
    generation = known.generation_of("Eip", "", name)
    if eip is None or planned is None:
        reason, message = _first(own, "Unknown", "It has not been processed yet.")
        told = [condition(before, "Ready", FALSE, reason, message, known.now, generation)]
        return {"ready": False, "usage": 0, "occupied": False, "conditions": told}
    use = planned.use
    first, last = eip.ranges[0].first, eip.ranges[-1].last
    verdicts = _eip_verdicts(known, name, planned, own)
    used = _used(known, use) | _recorded(known, old)
    status: Status = {
        "occupied": use.full,
        "usage": len(used),
        "poolSize": min(use.size, INT64_MAX),
        "firstIP": str(first),
        "lastIP": str(last),
        "ready": verdicts["Ready"][0] == TRUE,
        "v4": any(r.first.version == 4 for r in eip.ranges),
        "conditions": [
            condition(before, type_, *verdict, known.now, generation) for type_, verdict in verdicts.items()
        ],
        "mode": mode_record.mode_record(
            eip,
            [vip for address in use.used if (vip := known.plan.vips.get(address)) and vip.eip == name],
            known.on_wire,
            _lost(known, known.losses),
            (old or {}).get("mode"),
            known.now,
            generation,
        ),
    }
    if used:
        status["used"] = {str(address): ";".join(map(str, keys)) for address, keys in used.items()}
    hops = _layer2_next_hops(known, used, (old or {}).get("layer2NextHops"))
    if hops:
        status["layer2NextHops"] = hops
    answered = _answered_request(known, eip, old)
    if answered:
        status["rebalanced"] = answered
    return status


def _layer2_next_hops(known: Known, used: Mapping[Address, Sequence[ServiceKey]], old: object) -> dict[str, str]:
    """The node that serves or will serve each address in Layer 2: the decided one, otherwise the one it moved to.

    Until the cluster has settled, and while no replica answers for an address, the last record stays.
    """
    before = old if isinstance(old, Mapping) else {}
    placement = known.plan.memory.placement
    decided: Mapping[ServiceKey, str] = placement.decided if placement else {}
    settled = placement is not None and placement.settling.settled
    found: dict[str, str] = {}
    for address, keys in used.items():
        vip = known.plan.vips.get(address)
        last = before.get(str(address))
        if vip is not None and vip.takers:
            continue  # several nodes serve it
        chosen = decided.get(vip.services[0] if vip is not None else keys[0])
        if chosen:
            found[str(address)] = chosen
        elif settled and vip is not None and vip.recorded and vip.mode.answer and vip.candidates:
            found[str(address)] = vip.candidates[0]
        elif isinstance(last, str) and last:
            found[str(address)] = last
    return found


def _answered_request(known: Known, eip: Eip, old: Mapping[str, Any] | None) -> str:
    """The last request to rebalance that has been carried out."""
    placement = known.plan.memory.placement
    if eip.rebalance and placement is not None and eip.rebalance in placement.answered:
        return eip.rebalance
    last = (old or {}).get("rebalanced")
    return last if isinstance(last, str) else ""


def _used(known: Known, use: EipUse) -> dict[Address, tuple[ServiceKey, ...]]:
    """Our record of assigned addresses, valid from the next plan on. Addresses that are still checked are absent."""
    found = {}
    for address, keys in use.used.items():
        given = tuple(key for key in keys if address in known.addresses_of(key) or _has(known, key, address))
        if given:
            found[address] = given
    return found


def _recorded(known: Known, old: Mapping[str, Any] | None) -> dict[Address, tuple[ServiceKey, ...]]:
    """Entries of the previous record for Services that the plan does not know yet. They stay valid."""
    if not known.snapshot.view.doubt:
        return {}
    entries = records.used(old)
    return {address: keys for address, keys in entries.items() if any(known.is_behind(key) for key in keys)}


def _has(known: Known, key: ServiceKey, address: Address) -> bool:
    service = known.snapshot.services.get(key)
    return service is not None and service.has(address)


def _eip_verdicts(known: Known, name: str, planned: EipPlan, own: Sequence[Problem]) -> dict[str, ConditionValues]:
    use = planned.use
    # Both the plan and its use may contain a problem of the pool: it is reported once.
    problems = list(dict.fromkeys((*own, *use.problems, *planned.problems, *_of_segments(known, name))))
    fatal = [problem for problem in problems if problem.fatal]
    verdicts: dict[str, ConditionValues] = {}
    if fatal or use.conflicting:
        reason, message = _first(fatal or problems, Reason.OVERLAPPING.value, "")
        verdicts["Ready"] = (FALSE, reason, message or f"It overlaps with {listed(use.conflicting)}.")
    else:
        eip = known.snapshot.eips[name]
        text = "Disabled: no new addresses are assigned." if eip.disabled else "Addresses are assigned."
        reason = problems[0].reason.value if problems else "Ready"
        verdicts["Ready"] = (TRUE, reason, f"{text} {sentences(problems)}".strip())
    if use.conflicting:
        older = f"It overlaps with the older Eip {listed(use.conflicting)}, which has precedence."
        older += " This Eip assigns no addresses."
        verdicts["Conflicting"] = (TRUE, Reason.OVERLAPPING.value, older)
    else:
        verdicts["Conflicting"] = (FALSE, "NoOverlap", "It overlaps with no older Eip.")
    if planned.layer2_possible is not None:
        possible = planned.layer2_possible
        reason = "OnSegment" if possible else Reason.OFF_SEGMENT.value
        verdicts["Layer2Possible"] = (
            TRUE if possible else FALSE,
            reason,
            f"{planned.layer2_reason} {_sharing(known, name)}".rstrip(),
        )
    return verdicts


def _sharing(known: Known, name: str) -> str:
    """The number of next hops over which its addresses are spread, if each host has its own next hop."""
    vips = known.plan.vips
    used = known.plan.eips[name].use.used
    counts = {len(s.hosts) for a in used if (vip := vips.get(a)) and vip.takers and (s := known.on_wire.get(a))}
    counts.discard(0)
    if not counts:
        return ""
    few, many = min(counts), max(counts)
    count = f"{few}" if few == many else f"{few} to {many}"
    return f"The hosts on the segment share {count} next hop{'' if many == 1 else 's'} for each address."


def _of_segments(known: Known, name: str) -> list[Problem]:
    """The findings of this replica about the segments of an Eip that Layer 2 may serve, and about other replicas."""
    eip = known.snapshot.eips[name]
    if eip.protocol is Protocol.BGP:
        return []
    return [sentence(notice) for notice in known.wire.notices if _concerns(notice, eip)]


def _concerns(notice: Notice, eip: Eip) -> bool:
    """Whether a notice concerns the Eip. Its subject is one or several subnets, an address, or empty (replicas)."""
    if notice.kind is NoticeKind.TWO_ANSWERS:
        return ip_address(notice.subject) in eip
    if notice.kind is NoticeKind.CONTESTED or not notice.subject:
        return True
    subnets = [ip_network(text) for text in notice.subject.split(", ")]
    within = any(
        r.first.version == net.version and int(r.first) <= int(net[-1]) and int(net[0]) <= int(r.last)
        for r in eip.ranges
        for net in subnets
    )
    return within or bool(eip.interface or eip.can_reach)


def _first(problems: Sequence[Problem], reason: str, message: str) -> tuple[str, str]:
    return (problems[0].reason.value, sentences(problems)) if problems else (reason, message)


# --- BgpConf


def conf_status(known: Known, name: str, old: Mapping[str, Any] | None) -> Status:
    """The settings that each live replica uses, and whether the BgpConf is in use."""
    problems = known.problems_of("BgpConf", "", name)
    fatal = [problem for problem in problems if problem.fatal]
    before = conditions.of(old)
    generation = known.generation_of("BgpConf", "", name)
    if fatal:
        verdict: ConditionValues = (FALSE, fatal[0].reason.value, sentences(problems))
    else:
        reason = problems[0].reason.value if problems else "Ready"
        verdict = (TRUE, reason, f"The settings are in use. {sentences(problems)}".strip())
    status: Status = {"conditions": [condition(before, "Ready", *verdict, known.now, generation)]}
    snapshot = known.snapshot
    if not fatal or any(problem.reason is Reason.KEPT for problem in problems):
        status["nodesConfStatus"] = {
            node: {
                "routerId": str(router_id(replace(snapshot, view=replace(snapshot.view, node=node)))),
                "as": own_as(snapshot.conf, snapshot.nodes.get(node)),
            }
            for node in sorted(known.live)
            if node
        }
    return status
