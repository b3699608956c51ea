"""Objects, peers, pools and Services, checked with the manager's own code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from porterlb.core.bgp.peers import peer_problems
from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Check, Finding, Severity
from porterlb.core.doctor.text import grouped, some
from porterlb.core.eip_plan import EipPlan
from porterlb.core.mode import ModePolicy
from porterlb.core.model import AddressRange, Eip, Network, Protocol, ServiceKey, Snapshot
from porterlb.core.plan import Plan
from porterlb.core.problems import Reason
from porterlb.core.whatif import settled

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def findings(facts: Facts) -> Iterator[Finding]:
    yield from _objects(facts)
    yield from _conflicts(facts)
    if facts.snapshot is None:
        return
    plan, _ = settled(facts.snapshot, None, 0.0, ModePolicy())
    yield from _peers(facts, facts.snapshot)
    for name, eip in sorted(facts.snapshot.eips.items()):
        if name in plan.eips:
            yield from _pool(facts, facts.snapshot, eip, plan.eips[name])
    yield from _services(facts, plan)


def _objects(facts: Facts) -> Iterator[Finding]:
    for where, text in sorted(facts.broken.items()):
        yield Finding(Check.OBJECTS, ERROR, where, text, "Correct the file.")
    for key, problems in sorted(facts.problems.items()):
        check = Check.SERVICES if key.kind == "Service" else Check.OBJECTS
        for problem in problems:
            if problem.reason is not Reason.KEPT:
                severity = ERROR if problem.fatal else WARNING
                yield Finding(check, severity, str(key), str(problem), _DO.get(problem.reason, "Correct this field."))


_DO: Mapping[Reason, str] = {
    Reason.PLAIN_PASSWORD: "Put the password into a Secret, and name it in spec.conf.authPasswordSecret.",
    Reason.NO_LOCAL_AS: "Set spec.as of the BgpConf default.",
    Reason.NO_NODE: "Correct the node selector, or label the nodes: kubectl get nodes --show-labels.",
    Reason.SECRET_MISSING: "Create the Secret in the release namespace; list it in bgp.passwordSecrets of the chart.",
    Reason.OVERLAPPING: "Change spec.address of one of the pools.",
    Reason.NO_EIP: "Create an Eip that these Services may use (autoAssign, namespaces), or name one in the annotation.",
    Reason.COMMUNITY_UNKNOWN: "Define the community in spec.communities of the BgpConf, or correct its name.",
    Reason.EIP_UNKNOWN: "Name an Eip that exists: porterlb eip list.",
    Reason.EIP_EXHAUSTED: "Extend spec.address of the Eip: it may grow at any time.",
    Reason.ADDRESS_CLAIMED: "Find the host with that address, or take the address out with spec.exclude of the Eip.",
    Reason.PROXY_ARP: "Switch proxy ARP off on that host, or set spec.probe: false of the Eip.",
    Reason.NO_READY_ENDPOINT: "Check the pods and the selector: kubectl get endpointslices, kubectl describe service.",
    Reason.NO_USABLE_NODE: "Use externalTrafficPolicy Cluster, or run a pod on a usable node.",
    Reason.NO_SESSION: "See the findings about BgpPeers, and porterlb peer list.",
    Reason.NO_PEER: "Create a BgpPeer, or correct spec.advertise of the peers.",
    Reason.OFF_SEGMENT: "Use addresses of a subnet of the nodes, set spec.interface, or serve the Eip by BGP.",
    Reason.SHARING_DENIED: "Change the sharing key, or the ports of one of the Services.",
}


def _conflicts(facts: Facts) -> Iterator[Finding]:
    conflicts: dict[str, str] = {}
    for state in facts.states.values():
        wire = state.get("wire") or {}
        for address, mac in {**(wire.get("claimed") or {}), **(wire.get("conflicts") or {})}.items():
            conflicts[address] = mac
    for mac, addresses in grouped(conflicts):
        what = f"A foreign host with the MAC {mac} answers for this address."
        do = "Find the host (MAC table of the switch), or take the address out with spec.exclude of the Eip."
        yield Finding(Check.CONFLICTS, ERROR, f"address {addresses}", what, do)


def _peers(facts: Facts, snapshot: Snapshot) -> Iterator[Finding]:
    told = set()
    for name, problems in peer_problems(snapshot).items():
        for problem in problems:
            told.add((name, str(problem)))
            # A selector that matches no node is valid in form, but a peer without nodes is never intended.
            severity = ERROR if problem.fatal or problem.reason is Reason.NO_NODE else WARNING
            do = _DO.get(problem.reason, "Correct this field of the BgpPeer.")
            yield Finding(Check.PEERS, severity, f"BgpPeer {name}", str(problem), do)
    for state in facts.states.values():
        for name, peer in (state.get("peers") or {}).items():
            for text in peer.get("problems") or ():
                if (name, text) not in told:
                    told.add((name, text))
                    do = "Correct the BgpPeer, or create what it names."
                    yield Finding(Check.PEERS, ERROR, f"BgpPeer {name}", text, do)


def _pool(facts: Facts, snapshot: Snapshot, eip: Eip, plan: EipPlan) -> Iterator[Finding]:
    where = f"Eip {eip.name}"
    told = set()
    for problem in dict.fromkeys((*plan.use.problems, *plan.problems)):
        told.add(str(problem))
        severity = ERROR if problem.fatal or plan.use.conflicting else WARNING
        yield Finding(Check.POOLS, severity, where, str(problem), _DO.get(problem.reason, "Correct the Eip."))
    if plan.use.conflicting and not told:
        what = f"It overlaps with the older Eip {some(plan.use.conflicting)}, and gives out nothing."
        yield Finding(Check.POOLS, ERROR, where, what, _DO[Reason.OVERLAPPING])
    for state in facts.states.values():
        for text in ((state.get("eips") or {}).get(eip.name) or {}).get("problems") or ():
            if text not in told:
                told.add(text)
                yield Finding(Check.POOLS, WARNING, where, text, "See porterlb eip list.")
    if plan.use.full:
        what = f"All {plan.use.size} addresses are in use."
        yield Finding(Check.POOLS, WARNING, where, what, _DO[Reason.EIP_EXHAUSTED])
    if plan.layer2_possible is False:
        needed = eip.protocol is Protocol.LAYER2 or not snapshot.peers
        severity = ERROR if needed else WARNING
        yield Finding(Check.POOLS, severity, where, plan.layer2_reason, _DO[Reason.OFF_SEGMENT])
    for network, what in sorted(facts.ranges.items(), key=lambda entry: (entry[0].version, str(entry))):
        if any(_overlap(part, network) for part in eip.ranges):
            text = f"It overlaps with {network}, {what}."
            do = "Use addresses that nothing else in the cluster uses: traffic for them would never leave a node."
            yield Finding(Check.POOLS, ERROR, where, text, do)
    inside = [name for name, node in sorted(snapshot.nodes.items()) if any(a in eip for a in node.addresses)]
    if inside:
        what = f"It contains addresses of the nodes {some(inside)}: they are never given out."
        yield Finding(Check.POOLS, WARNING, where, what, "Take them out with spec.exclude, or use another range.")


def _overlap(part: AddressRange, network: Network) -> bool:
    if part.first.version != network.version:
        return False
    first, last = int(network.network_address), int(network.broadcast_address)
    return int(part.first) <= last and first <= int(part.last)


def _services(facts: Facts, plan: Plan) -> Iterator[Finding]:
    """Findings about Services, similar ones merged: a broken pool may affect a thousand Services."""
    found: dict[tuple[Reason, bool], dict[ServiceKey, str]] = {}
    for key, allocation in sorted(plan.services.items()):
        for problem in allocation.refusals:
            found.setdefault((problem.reason, not allocation.addresses), {})[key] = str(problem)
    for vip in plan.vips.values():
        for key in vip.services:
            for problem in vip.problems:
                found.setdefault((problem.reason, problem.fatal), {})[key] = f"{vip.address}: {problem}"
    for (reason, bad), services in found.items():
        texts = list(dict.fromkeys(services.values()))
        others = f" ({len(texts) - 1} more like this.)" if len(texts) > 1 else ""
        do = _DO.get(reason) or f"See porterlb explain {min(services)}."
        severity = ERROR if bad else WARNING
        yield Finding(Check.SERVICES, severity, f"Service {some(sorted(services))}", f"{texts[0]}{others}", do)


def ranges_of(
    pods: Mapping[str, Iterable[Network]], services: Iterable[Network], cluster_ips: Iterable[Network]
) -> dict[Network, str]:
    """The networks that a pool may not overlap. ``pods``: by node."""
    found: dict[Network, str] = dict.fromkeys(cluster_ips, "the address of a Service in the cluster")
    found |= {network: f"the pod range of node {node}" for node, own in sorted(pods.items()) for network in own}
    found |= dict.fromkeys(services, "the range of cluster IPs")
    return found
