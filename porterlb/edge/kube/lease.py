"""A LeaseRecord as a coordination.k8s.io/v1 Lease, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from porterlb.cluster import Kind, LeaseRecord, Obj, lease_version
from porterlb.edge.kube import micro_time

EXACT_DURATION = "network.kubesphere.io/lease-duration"
"""Annotation: the duration in seconds if it is not a whole number, because spec.leaseDurationSeconds must be one."""

LABELS = {"app.kubernetes.io/name": "porterlb"}


def from_object(obj: Obj) -> LeaseRecord:
    """A Lease as a record; ``renewals`` is its renewTime in microseconds: it changes with every renewal.

    Missing and invalid fields become empty and zero (the API server requires none of them).
    """
    metadata: Mapping[str, Any] = obj.get("metadata") or {}
    spec: Mapping[str, Any] = obj.get("spec") or {}
    annotations = dict(metadata.get("annotations") or {})
    seconds = _number(spec.get("leaseDurationSeconds"))
    exact = _number(annotations.pop(EXACT_DURATION, None))
    return LeaseRecord(
        name=str(metadata.get("name") or ""),
        holder=str(spec.get("holderIdentity") or ""),
        # Another writer may have changed the whole number since: then that one counts.
        duration=exact if exact and math.ceil(exact) == seconds else seconds,
        transitions=int(_number(spec.get("leaseTransitions"))),
        renewals=micro_time.read(spec.get("renewTime")),
        annotations=annotations,
        version=lease_version(obj),
    )


def to_object(record: LeaseRecord, namespace: str, now: int) -> dict[str, Any]:
    """The Lease of a record. ``now``: microseconds since 1970 by the local clock, which only people will read.

    renewTime never goes back, even if the clock does, as long as the record's ``renewals`` continues from what was
    read: readers detect a renewal by the change.
    """
    annotations = dict(record.annotations)
    seconds = max(1, math.ceil(record.duration))
    if seconds != record.duration:
        annotations[EXACT_DURATION] = repr(float(record.duration))
    spec: dict[str, Any] = {
        "leaseDurationSeconds": seconds,
        "leaseTransitions": record.transitions,
        "renewTime": micro_time.write(max(now, record.renewals)),
    }
    if record.holder:  # a released Lease has no holder; an empty one is refused
        spec["holderIdentity"] = record.holder
    metadata: dict[str, Any] = {
        "name": record.name,
        "namespace": namespace,
        "labels": LABELS,
        "annotations": annotations,
    }
    if record.version:
        metadata["uid"], _, metadata["resourceVersion"] = record.version.partition("/")
    return {
        "apiVersion": Kind.LEASE.api_version,
        "kind": Kind.LEASE.kind,
        "metadata": metadata,
        "spec": spec,
    }


def _number(value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        return 0.0
    return number if math.isfinite(number) and number >= 0 else 0.0
