"""The status writes: every status that differs from the one in the cluster, as values that only need to be sent.

The leader writes, as ``porterlb``, Eips, Services, the conditions of BgpPeers and the BgpConf. Each replica writes,
as ``porterlb-<node>``, its own ``BgpPeer.status.nodesPeerStatus[node]``, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from porterlb.core.bgp import words
from porterlb.core.known import Known
from porterlb.core.model import Service, ServiceKey
from porterlb.core.objects import ObjectKey
from porterlb.core.status import conditions
from porterlb.core.status.build import Status, conf_status, eip_status, service_status
from porterlb.core.status.notices import Notice, eip_notices, object_notices, service_notices, session_notices
from porterlb.core.status.peer import loss_reasons, own_entry, peer_conditions
from porterlb.core.status.reading import entries, ingress, status_of, version_of

LEADER = "porterlb"
"""Field manager for writes of the leader."""


def owner_of(node: str) -> str:
    """Field manager for writes of the replica on ``node``."""
    return f"{LEADER}-{node}"


OUR_CONDITIONS: Mapping[str, tuple[str, ...]] = {
    "Service": ("AddressAssigned", "Serving"),
    "Eip": ("Ready", "Conflicting", "Layer2Possible"),
    "BgpPeer": ("Ready",),
    "BgpConf": ("Ready",),
}

EIP_FIELDS = (
    "occupied",
    "usage",
    "poolSize",
    "firstIP",
    "lastIP",
    "ready",
    "v4",
    "mode",
    "used",
    "layer2NextHops",
    "rebalanced",
)


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """One status that must be written.

    ``version``: the resourceVersion that the decision is based on; empty: any. ``leader_only``: not sent by a replica
    that is not the leader when it sends. ``urgent``: adds or removes an address. ``placing``: records a next hop.
    """

    key: ObjectKey
    status: Status
    owner: str
    version: str = ""
    leader_only: bool = True
    urgent: bool = False
    placing: bool = False
    notices: tuple[Notice, ...] = ()


Have = Callable[[ObjectKey], Mapping[str, Any] | None]
"""The object as in the cluster, or None."""


def _first_version(service: Service) -> str:
    return service.resource_version


def service_write(
    known: Known, key: ServiceKey, have: Have, decided_on: Callable[[Service], str] = _first_version
) -> StatusWrite | None:
    """The write for a Service that we manage, usable or not; None if the cluster already has this status.

    Also None for a Service that has not been planned: a leader in doubt keeps its last plan, which may be older than
    the Service. Then the status written by others stays.

    ``decided_on``: the newest resourceVersion of the Service with the values that the plan was made from.
    """
    object_key = ObjectKey("Service", *key)
    obj = have(object_key)
    if obj is None or known.is_behind(key):
        return None
    old = status_of(obj)
    new = service_status(known, key, old)
    if not service_differs(old, new):
        return None
    service = known.snapshot.services.get(key)
    return StatusWrite(
        object_key,
        new,
        LEADER,
        version=decided_on(service) if service else version_of(obj),
        urgent=ingress(old) != ingress(new),
        notices=tuple(service_notices(old, new)),
    )


def release(key: ObjectKey, obj: Mapping[str, Any]) -> StatusWrite | None:
    """For a Service that we no longer manage: removes our status, if we wrote any."""
    ours = OUR_CONDITIONS["Service"]
    if not any(conditions.find(conditions.of(status_of(obj)), type_) for type_ in ours):
        return None
    return StatusWrite(key, {}, LEADER, version=version_of(obj), urgent=True)


def context_writes(known: Known, key: ObjectKey, have: Have, *, leading: bool) -> list[StatusWrite]:
    """The writes of this replica for an Eip, a BgpPeer or a BgpConf."""
    obj = have(key)
    if obj is None:
        return []
    old = status_of(obj)
    writes = (
        _leader_write(known, key, old) if leading else None,
        _own_write(known, key, old) if key.kind == "BgpPeer" else None,
    )
    return [write for write in writes if write is not None]


def _leader_write(known: Known, key: ObjectKey, old: Mapping[str, Any]) -> StatusWrite | None:
    if key.kind == "Eip":
        new = eip_status(known, key.name, old)
        different = any(old.get(field) != new.get(field) for field in EIP_FIELDS)
        notices = eip_notices(old, new)
    elif key.kind == "BgpPeer":
        new = peer_conditions(known, key.name, old)
        different, notices = old.get("sessions") != new["sessions"], object_notices(old, new)
    else:
        new = conf_status(known, key.name, old)
        different = old.get("nodesConfStatus") != new.get("nodesConfStatus")
        notices = object_notices(old, new)
    if not different and not conditions_differ(key.kind, old, new):
        return None
    placing = old.get("layer2NextHops") != new.get("layer2NextHops")
    return StatusWrite(key, new, LEADER, placing=placing, notices=tuple(notices))


def _own_write(known: Known, key: ObjectKey, old: Mapping[str, Any]) -> StatusWrite | None:
    node = known.node
    new = own_entry(known, key.name, old)
    if entries(old).get(node) == entries(new).get(node):
        return None
    notices = session_notices(node, key.name, old, new)
    return StatusWrite(key, new, owner_of(node), leader_only=False, notices=tuple(notices))


def removal(key: ObjectKey, node: str) -> StatusWrite:
    """Removes the entry of a vanished node from a BgpPeer: its field manager gives up all fields (KEP-555)."""
    return StatusWrite(key, {}, owner_of(node))


def taking(key: ObjectKey, node: str) -> StatusWrite:
    """Makes that node's field manager the owner of its entry, whoever has written it: then it can be removed."""
    return StatusWrite(key, {"nodesPeerStatus": {node: {}}}, owner_of(node))


def service_differs(old: Mapping[str, Any], new: Status) -> bool:
    """Whether our status for a Service differs from the one in the cluster."""
    return ingress(old) != ingress(new) or conditions_differ("Service", old, new)


def conditions_differ(kind: str, old: Mapping[str, Any], new: Status) -> bool:
    """Compares only our conditions: others may have conditions in the same list."""
    before, after = conditions.of(old), conditions.of(new)
    return any(conditions.find(before, t) != conditions.find(after, t) for t in OUR_CONDITIONS[kind])


def losses_of(known: Known, objects: Iterable[tuple[str, Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """Why sessions were last lost, by peer, by node: from the replicas' entries in the BgpPeers, and our own report."""
    losses = {name: loss_reasons(status_of(obj)) for name, obj in objects}
    for name, session in known.bgp.sessions.items():
        if reason := words.why_down(session):
            losses.setdefault(name, {})[known.node] = reason
    return losses
