"""A small cluster for the status tests: real plans, and the replicas' view of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from porterlb.core.bgp import words
from porterlb.core.bgp.reasons import Loss, LossKind
from porterlb.core.known import Known
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Address, Protocol, ServiceKey, Snapshot, View
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import Answering, BgpReport, FreshReplica, SessionState, WireReport
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import Plan, plan
from porterlb.core.served import Served
from porterlb.core.status.serving import Acknowledged, served_now
from tests.core.test_plan import NAMES, cluster

POLICY = ModePolicy()
EXPIRED = Loss(LossKind.NOTIFICATION, 4, local=True)
EXPIRED_WORDS = words.loss(EXPIRED)
NOW = "2026-01-31T12:00:00Z"
LATER = "2026-01-31T12:05:00Z"
AUTO_VIP = ip_address("10.77.0.201")
BGP_VIP = ip_address("172.16.0.1")
LAYER2_VIP = ip_address("10.77.0.221")
SHOP, WEB, MAIL = (ServiceKey("default", name) for name in ("shop", "web", "mail"))


def snapshot(node: str = "node-a", up: Iterable[str] = NAMES, **view: Any) -> Snapshot:
    """``up``: the replicas that have a session with the peer ``tor``."""
    return cluster(node, sessions=frozenset((name, "tor") for name in up), **view)


def session(*, up: bool, loss: Loss | None = None, losses: int = 0) -> SessionState:
    return SessionState("tor", "established" if up else "active", 0.0, loss, losses)


def seen(
    made: Plan,
    of: Snapshot,
    *,
    applied: int | None = None,
    answerer: str | None = None,
    loss: Loss | None = None,
    losses: int = 0,
    wire: Mapping[str, Any] | None = None,
    bgp: Mapping[str, Any] | None = None,
    **more: Any,
) -> Known:
    """The knowledge of node-a after everything in the plan was applied. ``applied``: a digest other than the plan's.

    The view of the wire is not computed yet. ``more``: other fields of :class:`Known`.
    """
    digest = made.digest if applied is None else applied
    view: View = of.view
    up = {replica for replica, _ in view.sessions}
    fresh = {
        name: FreshReplica(name, 1, frozenset({"tor"}) if name in up else frozenset(), digest=digest, applied=digest)
        for name in view.fresh
        if name != view.node
    }
    answering: dict[Address, Answering] = {
        address: Answering(vip.candidates[0], vip.candidates[0] if answerer is None else answerer)
        for address, vip in made.wire.vips.items()
        if vip.candidates
    }
    reported: dict[str, Any] = {"fresh": fresh, "answering": answering, **(wire or {})}
    sessions = {"tor": session(up=view.node in up, loss=loss, losses=losses)}
    return Known(
        of,
        made,
        BgpReport(**({"sessions": sessions} | dict(bgp or {}))),
        WireReport(**reported),
        digest,
        **({"generations": generations(of)} | more),
    )


def generations(of: Snapshot) -> dict[ObjectKey, int]:
    """The generation of every object of a snapshot, as if all of them were usable."""
    return {
        **{ObjectKey("Service", *key): service.generation for key, service in of.services.items()},
        **{ObjectKey("Eip", "", name): eip.generation for name, eip in of.eips.items()},
        **{ObjectKey("BgpPeer", "", name): peer.generation for name, peer in of.peers.items()},
        ObjectKey("BgpConf", "", "default"): of.conf.generation,
    }


def wire_view(known: Known, acknowledged: Acknowledged) -> dict[Address, Served]:
    """How every VIP of the plan is served, computed one by one."""
    return {address: served_now(vip, known, acknowledged) for address, vip in known.plan.vips.items()}


def situation(of: Snapshot, previous: Plan | None = None, at: float = 0.0, now: str = NOW, **more: Any) -> Known:
    """The knowledge about ``of`` after it was planned and applied. ``more``: for :func:`seen`."""
    made = plan(of, previous, at, POLICY, AT_ONCE)
    saw = seen(made, of, now=now, **more)
    return replace(saw, on_wire=wire_view(saw, Acknowledged().updated(saw)))


def with_protocol(of: Snapshot, eip: str, protocol: Protocol) -> Snapshot:
    changed = replace(of.eips[eip], protocol=protocol, generation=of.eips[eip].generation + 1)
    return replace(of, eips={**of.eips, eip: changed})
