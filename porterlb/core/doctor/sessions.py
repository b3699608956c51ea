"""BGP sessions that are not established, each with its likely cause (RFC 4271 6, RFC 4486, RFC 5492)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from porterlb.core.bgp import words
from porterlb.core.bgp.overrides import on_node
from porterlb.core.bgp.reasons import HOLD_TIMER_EXPIRED, SEND_HOLD_TIMER_EXPIRED, Loss, LossKind, read
from porterlb.core.doctor.facts import Facts, State
from porterlb.core.doctor.finding import Check, Finding, Severity
from porterlb.core.doctor.text import some
from porterlb.core.model import BgpConf, Peer

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def findings(facts: Facts) -> Iterator[Finding]:
    """One finding for each peer and cause, with the affected nodes."""
    snapshot = facts.snapshot
    found: dict[tuple[str, str, str], list[str]] = {}
    up: set[str] = set()
    for node, state in sorted(facts.states.items()):
        for name, session in sorted((state.get("peers") or {}).items()):
            if session.get("state") == "established":
                up.add(name)
            elif session.get("wanted"):
                peer = snapshot.peers.get(name) if snapshot else None
                if peer is not None and peer.admin_down:
                    continue
                if peer is not None and snapshot is not None:
                    peer = on_node(peer, snapshot, node)
                what, do = _cause(name, session, peer, snapshot.conf if snapshot else BgpConf())
                found.setdefault((name, what, do), []).append(node)
    for (name, what, do), nodes in sorted(found.items()):
        severity = WARNING if name in up else ERROR
        yield Finding(Check.SESSIONS, severity, f"BgpPeer {name}, node {some(nodes)}", what, do)


def _cause(name: str, session: State, peer: Peer | None, conf: BgpConf) -> tuple[str, str]:
    refusal = str(session.get("refusal") or "")
    if refusal:
        return refusal, "Change the BgpPeer, the BgpConf or the node as the sentence says."
    attempt, lost = read(session.get("attempt")), read(session.get("loss"))
    loss = attempt if attempt is not None and (attempt.kind is LossKind.NOTIFICATION or lost is None) else lost
    return cause(loss, peer, conf)


def cause(loss: Loss | None, peer: Peer | None, conf: BgpConf) -> tuple[str, str]:
    """The problem of a session, and what to do. ``loss``: why it ended or was not opened; None: nothing known."""
    at = str(peer.address) if peer and peer.address else "the router"
    if peer is not None and not peer.passive:
        at = f"{at} port {peer.remote_port}"
    if loss is None or loss.kind in (LossKind.TIMED_OUT, LossKind.CONNECTION, LossKind.UNHEARD, LossKind.OTHER):
        said = words.loss(loss) or "The session is not established, and no answer has come."
        key = " The BgpPeer has a password: another one on the router looks the same." if _has_password(peer) else ""
        if peer is not None and peer.passive:
            return (
                f"{said}{key}",
                f"Check that the router opens the session, and filters of TCP port {conf.listen_port}.",
            )
        hop = " If the router is not directly connected, set ebgpMultihop." if peer and not peer.multihop_ttl else ""
        return f"{said}{key}", f"Check the route to {at}, and filters of that TCP port on both sides.{hop}"
    if loss.kind is LossKind.REFUSED:
        return words.loss(loss), f"Start BGP on the router, and check that it listens on {at}."
    if loss.kind in (LossKind.RESET, LossKind.CLOSED):
        what = f"{words.loss(loss)} The router probably has no neighbor with this node's address."
        return what, "Configure the node's address as a neighbor on the router, or its subnet as a listen range."
    if loss.kind is LossKind.NOTIFICATION:
        return words.loss(loss), _notification(loss, peer, conf)
    return words.loss(loss), "See porterlb peer list, and the log of the manager there."


def _has_password(peer: Peer | None) -> bool:
    return peer is not None and bool(peer.password or peer.password_secret)


_REMEDIES: Mapping[tuple[int, int], str] = {
    (2, 3): "Two routers have one BGP identifier: set another router ID on the router (ours is the node's address).",
    (2, 4): "The router does not take the options of our OPEN: switch authentication options off there.",
    (2, 6): "Set spec.timers.holdTime of the BgpPeer to what the router accepts (0 or 3 s and more).",
    (2, 7): "Switch the address family or capability on at the router, or take it out of spec.afiSafis.",
    (6, 1): "Raise the prefix limit of the router for this neighbor (maximum-prefix).",
    (6, 2): "Somebody has shut the session down: enable the neighbor on the router (no neighbor ... shutdown).",
    (6, 3): "Configure the node as a neighbor on the router again.",
    (6, 4): "Somebody has reset the session; it comes back by itself.",
    (6, 5): "The router rejects the connection: configure the node's address and AS as a neighbor there.",
    (6, 6): "The router's configuration was changed; the session comes back by itself.",
    (6, 7): "Both sides opened a session at once; it comes back by itself. Set passiveMode on one side if it does not.",
    (6, 8): "The router is out of resources: look at its memory and number of routes.",
    (6, 10): "BFD went down: check the path between the node and the router, and the BFD timers.",
}


def _notification(loss: Loss, peer: Peer | None, conf: BgpConf) -> str:
    if (loss.code, loss.subcode) == (2, 2):
        ours = (peer.local_as if peer else 0) or conf.local_as or "asPerRack"
        if loss.local:
            expected = f" ({peer.dynamic or peer.peer_as})" if peer else ""
            return f"The router's AS is not spec.conf.peerAs{expected}: correct the BgpPeer, or the router."
        return f"The router expects another AS than ours ({ours}): correct its remote-as, or spec.as of the BgpConf."
    if loss.code == SEND_HOLD_TIMER_EXPIRED:
        return "Check the BGP process of the router: it does not read what is sent to it."
    if loss.code == HOLD_TIMER_EXPIRED:
        return "Check for packet loss and a wrong MTU on the path, and for load on the router."
    if (loss.code, loss.subcode) in _REMEDIES:
        return _REMEDIES[loss.code, loss.subcode]
    if loss.code == 3:
        return "The router does not accept our routes: check communities and attributes in spec.advertise, and its log."
    return "See the log of the router."
