"""Conditions of the segments and of the other replicas that operators should know, as values and as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from porterlb.core.layer2.nodes import Nodes
from porterlb.core.layer2.verdict import Cause
from porterlb.core.observed import Notice, NoticeKind
from porterlb.core.problems import Problem, Reason

_KINDS: Mapping[Cause, NoticeKind] = {
    Cause.NO_VOTER: NoticeKind.NO_VOTER,
    Cause.LINK_DOWN: NoticeKind.LINK_DOWN,
    Cause.NO_CONTACT: NoticeKind.NO_CONTACT,
    Cause.NOT_THERE: NoticeKind.NOT_THERE,
    Cause.OUTVOTED: NoticeKind.OUTVOTED,
}

_SENTENCES: Mapping[NoticeKind, tuple[Reason, str]] = {
    NoticeKind.NO_VOTER: (
        Reason.NODE_UNREACHABLE,
        "Node {nodes} does not answer on {subject}, and no third host there shows whose link is at fault: nothing "
        "changes. Add a gateway or a third node to that network.",
    ),
    NoticeKind.LINK_DOWN: (
        Reason.NODE_UNREACHABLE,
        "The interface of node {nodes} on {subject} is down: it serves no VIP there. Check its cable.",
    ),
    NoticeKind.NO_CONTACT: (
        Reason.NODE_UNREACHABLE,
        "Node {nodes} reaches no other host on {subject}: it serves no VIP there. Check its switch port and its VLAN.",
    ),
    NoticeKind.NOT_THERE: (
        Reason.NODE_UNREACHABLE,
        "Node {nodes} no longer has an interface on {subject}: it serves no VIP there.",
    ),
    NoticeKind.OUTVOTED: (
        Reason.NODE_UNREACHABLE,
        "Most replicas get no answer of node {nodes} on {subject}, although its hellos arrive: it serves no VIP there. "
        "Check filters of ARP and NDP at its port.",
    ),
    NoticeKind.DIFFERS: (
        Reason.NODE_UNREACHABLE,
        "This node gets no answer of nodes on {subject} that two other replicas hear. Check its link, and filters of "
        "ARP and NDP at its port.",
    ),
    NoticeKind.HELLOS_MISSING: (
        Reason.HELLO_REFUSED,
        "No hello of {nodes} arrives, although the node answers. Allow UDP port 7473 between the nodes.",
    ),
    NoticeKind.WRONG_KEY: (
        Reason.HELLO_REFUSED,
        "The hellos of {nodes} are signed with another key. Give all managers the same hello key and restart {nodes}.",
    ),
    NoticeKind.OLD_BOOT: (
        Reason.HELLO_REFUSED,
        "The hellos of {nodes} are refused: their boot number is below an earlier one. Correct the clock of that node "
        "and restart its manager.",
    ),
    NoticeKind.OTHER_VERSION: (
        Reason.HELLO_REFUSED,
        "The hellos of {nodes} have a version that this release does not know. Update the managers.",
    ),
    NoticeKind.OWN_NAME: (
        Reason.DUPLICATE_NODE,
        "Another manager was started with the name of this node, {nodes}. Give each manager its own --node.",
    ),
    NoticeKind.CONTESTED: (
        Reason.ADDRESS_CONTESTED,
        "Another MAC than that of node {nodes} answers for its address {subject}: it is ignored. Find the host.",
    ),
    NoticeKind.TWO_ANSWERS: (
        Reason.ADDRESS_CONTESTED,
        "This replica and node {nodes} answered for VIP {subject} at once; the rank of the nodes has decided.",
    ),
}


def sentence(notice: Notice) -> Problem:
    """A notice in words."""
    reason, words = _SENTENCES[notice.kind]
    return Problem(reason, words.format(nodes=", ".join(notice.nodes), subject=notice.subject), fatal=False)


def of_segments(nodes: Nodes, own: str) -> list[Notice]:
    """The notices of the failure detector. ``own``: our node."""
    found: list[Notice] = []
    detector = nodes.detector
    for nic in detector.nics:
        subnet = ", ".join(sorted(str(network) for network in detector.statements.networks(nic)))
        for cause, kind in _KINDS.items():
            named = [p.node for p, why in nodes.judgement.causes.items() if p.nic == nic and why is cause]
            if cause is Cause.NO_VOTER:
                named = [node for node in named if node != own and detector.is_silent(node, nic)]
            if named:
                found.append(Notice(kind, subnet, tuple(sorted(named))))
        if nic in nodes.judgement.differs:
            found.append(Notice(NoticeKind.DIFFERS, subnet, (own,)))
    for address in nodes.contested:
        node = detector.node_at(address)
        if node:
            found.append(Notice(NoticeKind.CONTESTED, str(ip_address(address)), (node,)))
    return found
