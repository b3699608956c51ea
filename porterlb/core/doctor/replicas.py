"""The replicas: which ones run, which ones hear each other, and what each one reports about its node's network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from porterlb.core.doctor.facts import Facts, State
from porterlb.core.doctor.finding import Check, Finding, Severity
from porterlb.core.doctor.text import grouped, some
from porterlb.core.layer2.notices import sentence
from porterlb.core.membership import lease_name
from porterlb.core.observed import Notice, NoticeKind

ERROR, WARNING = Severity.ERROR, Severity.WARNING

CLOCK_OFF = 5.0
"""Seconds: users compare times in the history and in conditions. Boot numbers also come from the clock."""


def findings(facts: Facts) -> Iterator[Finding]:
    yield from _running(facts)
    yield from _releases(facts)
    yield from _clocks(facts)
    yield from _speakers(facts)
    yield from _notices(facts)
    yield from _unheard(facts)
    yield from _dead(facts)


def _running(facts: Facts) -> Iterator[Finding]:
    members = facts.snapshot.members if facts.snapshot else {}
    for node in sorted(facts.silent.keys() - _seen_dead(facts)):
        heard = [other for other, state in sorted(facts.states.items()) if _fresh(state, node)]
        why = facts.silent[node].rstrip(".")
        if node in facts.gone and facts.states and not heard:
            what, severity = "No replica runs on this node any more, and its Lease is left.", WARNING
            lease = lease_name(node)
            do = f"If it has moved to another node, delete the Lease {lease}. If not, see why no pod runs there."
        elif heard:
            what, severity = f"The replica cannot be asked: {why}. {some(heard)} hears it.", WARNING
            do = "Check the rights to list pods and to port-forward, and the path from the API server to the node."
        else:
            what, severity = f"The replica does not answer, and nobody hears it: {why}.", ERROR
            do = "Check the node and its manager: kubectl get pods -o wide, and the log of the pod there."
        yield Finding(Check.MANAGERS, severity, f"replica on {node}", what, do)
    if facts.snapshot is None:
        return
    if not members and not facts.states:
        what = "No manager runs: nothing is announced, and no Service gets an address."
        yield Finding(Check.MANAGERS, ERROR, "cluster", what, "Install the chart, or start porterlb manager on nodes.")
        return
    if not facts.leader:
        what = "No replica leads: no Service gets an address, and no status is written."
        do = "Check the rights to Leases in the release namespace, and the log of the managers."
        yield Finding(Check.MANAGERS, ERROR, "Lease porterlb", what, do)
    if len(members) == 1:
        what = f"One replica runs ({min(members)}): nobody takes over when its node fails."
        yield Finding(Check.MANAGERS, WARNING, "cluster", what, "Run replicas on two nodes or more, better three.")


def _fresh(state: State, node: str) -> bool:
    return bool(((state.get("replicas") or {}).get(node) or {}).get("fresh"))


def _releases(facts: Facts) -> Iterator[Finding]:
    found = {node: str(host_of(state).get("release") or "") for node, state in facts.states.items()}
    named = {release for release in found.values() if release}
    if len(named) > 1:
        told = "; ".join(f"{release} on {nodes}" for release, nodes in grouped(found))
        do = "Finish the update: kubectl rollout status. Do not run two releases for long."
        yield Finding(Check.RELEASES, WARNING, "managers", f"The replicas run different releases: {told}.", do)
    elif named and facts.release and facts.release not in named:
        what = f"The managers run release {min(named)}, this command is of release {facts.release}."
        yield Finding(Check.RELEASES, WARNING, "porterlb", what, "Use the command of the managers' release.")


def _clocks(facts: Facts) -> Iterator[Finding]:
    for node, ahead in sorted(facts.clocks.items()):
        if abs(ahead) > CLOCK_OFF:
            side = "ahead of" if ahead > 0 else "behind"
            what = f"Its clock is {abs(ahead):.0f} s {side} the clock here."
            do = "Start an NTP client on the node: hellos of a manager that restarts with a clock set back are refused."
            yield Finding(Check.CLOCKS, WARNING, f"node {node}", what, do)


def _speakers(facts: Facts) -> Iterator[Finding]:
    wire = {node: str((state.get("wire") or {}).get("trouble") or "") for node, state in facts.states.items()}
    for text, nodes in grouped(wire):
        do = "See the log of that manager: the wire process needs CAP_NET_RAW and the UDP port of the hellos (7473)."
        if "UDP port" in text:
            do = "Stop the process that has the port (ss -lunp), or set another hello.port for all managers."
        yield Finding(Check.SPEAKERS, ERROR, f"replica on {nodes}", f"Its wire process: {text.rstrip('.')}.", do)
    bgp = {node: str((state.get("bgp") or {}).get("trouble") or "") for node, state in facts.states.items()}
    for text, nodes in grouped(bgp):
        do = "See the log of that manager for the words of ExaBGP."
        yield Finding(Check.SPEAKERS, ERROR, f"replica on {nodes}", text, do)
    doubt = [node for node, state in sorted(facts.states.items()) if (state.get("wire") or {}).get("doubt")]
    if doubt:
        what = "This replica sees every node dead and hears nobody: it is cut off itself, and changes nothing."
        yield Finding(Check.SPEAKERS, ERROR, f"replica on {some(doubt)}", what, "Check the network of that node.")


_OF_HELLOS = frozenset(
    {
        NoticeKind.HELLOS_MISSING,
        NoticeKind.WRONG_KEY,
        NoticeKind.OLD_BOOT,
        NoticeKind.OTHER_VERSION,
        NoticeKind.OWN_NAME,
    }
)
_WARNINGS = frozenset({NoticeKind.TWO_ANSWERS, NoticeKind.CONTESTED, NoticeKind.NO_VOTER})
_INSPECTION = (
    " Also check whether the switch inspects ARP (Dynamic ARP Inspection, IP Source Guard): it drops answers for VIPs "
    "that are in no DHCP lease. Trust the nodes' ports."
)


def _notices(facts: Facts) -> Iterator[Finding]:
    seen: dict[Notice, list[str]] = {}
    for node, state in sorted(facts.states.items()):
        for notice in notices_of(state):
            seen.setdefault(notice, []).append(node)
    for notice, nodes in seen.items():
        whole = str(sentence(notice))
        what, _, do = whole.partition(". ")
        if notice.kind in (NoticeKind.OUTVOTED, NoticeKind.DIFFERS):
            do += _INSPECTION
        check = Check.HELLOS if notice.kind in _OF_HELLOS else Check.NODES
        severity = WARNING if notice.kind in _WARNINGS else ERROR
        yield Finding(check, severity, f"replica on {some(nodes)}", f"{what.rstrip('.')}.", do or "See its history.")


def notices_of(state: State) -> list[Notice]:
    """The notices of a state as values; kinds that this release does not know are omitted."""
    found = []
    for entry in (state.get("wire") or {}).get("noticed") or ():
        kind = next((kind for kind in NoticeKind if kind.value == entry.get("kind")), None)
        if kind is not None:
            found.append(Notice(kind, str(entry.get("subject") or ""), tuple(map(str, entry.get("nodes") or ()))))
    return found


def _unheard(facts: Facts) -> Iterator[Finding]:
    """Live replicas that do not hear each other, if no notice explains why."""
    told = {
        (node, name)
        for node, state in facts.states.items()
        for notice in notices_of(state)
        if notice.kind in _OF_HELLOS
        for name in notice.nodes
    }
    for node, state in sorted(facts.states.items()):
        deaf = [
            other
            for other in sorted(facts.states)
            if other != node and other in (state.get("replicas") or {}) and not _fresh(state, other)
        ]
        deaf = [other for other in deaf if (node, other) not in told]
        if deaf:
            what = f"It does not hear the hellos of {some(deaf)}, whose replicas run."
            do = "Allow UDP port 7473 between the nodes, and check hello_address and the routes between them."
            yield Finding(Check.HELLOS, ERROR, f"replica on {node}", what, do)


def _dead(facts: Facts) -> Iterator[Finding]:
    for name, nodes in sorted(_seen_dead(facts).items()):
        what = f"It does not answer probes of {some(nodes)}."
        if name in facts.states:
            what += " Its own replica answers, so only ARP or NDP is lost."
        do = "Check its power, link and VLAN. VIPs have moved to other nodes."
        yield Finding(Check.NODES, ERROR, f"node {name}", what, do)
    for name, known in sorted(facts.snapshot.nodes.items() if facts.snapshot else ()):
        if not known.addresses:
            what = "It has no InternalIP: no traffic can be sent to it."
            yield Finding(Check.NODES, WARNING, f"node {name}", what, "Give the kubelet --node-ip.")


def _seen_dead(facts: Facts) -> dict[str, list[str]]:
    """The dead nodes, each with the replicas that consider it dead."""
    seen: dict[str, list[str]] = {}
    for node, state in sorted(facts.states.items()):
        for name, shown in (state.get("nodes") or {}).items():
            if shown.get("dead"):
                seen.setdefault(name, []).append(node)
    return seen


def host_of(state: State) -> Mapping[str, Any]:
    """The data that the replica has read from its node; empty for a replica of an older release."""
    found = state.get("host")
    return found if isinstance(found, Mapping) else {}
