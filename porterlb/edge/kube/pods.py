"""The Ready conditions of the pods of one node: set to False when the node has failed, and restored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from porterlb.cluster import Conflict, Denied, Labels, Marked, Unavailable
from porterlb.edge.kube import paths
from porterlb.edge.kube.api import STRATEGIC_MERGE, Api, Json, Request

log = logging.getLogger("porterlb.kube")

POLICY_SAYS = "PorterLB may "
"""Beginning of the messages of the chart's admission policy."""

AT_ONCE = 16
"""Simultaneous patches: 110 pods, the most that a kubelet runs by default, take seven rounds."""


def ready(pod: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Ready condition of a pod; empty if it has none."""
    conditions = (pod.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == "Ready"), {})


def patch(pod: Mapping[str, Any], status: str, reason: str, message: str, now: datetime) -> Json:
    """A strategic merge patch of the Ready condition alone. The uid makes the API refuse another pod of that name.

    ``reason`` empty: the field is removed.
    """
    condition = {
        "type": "Ready",
        "status": status,
        "reason": reason or None,
        "message": message or None,
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [condition]}}


async def mark(
    api: Api, node: str, first: Callable[[str, Labels], bool], reason: str, message: str, deadline: float
) -> Marked:
    """Sets Ready=False for each pod of the node that is Ready; those that ``first`` selects before all others."""
    pods = [pod for pod in await _of_node(api, node, deadline) if ready(pod).get("status") == "True"]
    urgent = [pod for pod in pods if first(pod["metadata"]["namespace"], pod["metadata"].get("labels") or {})]
    rest = [pod for pod in pods if pod not in urgent]
    done = [await _patch(api, group, "False", reason, message, deadline) for group in (urgent, rest)]
    return Marked(sum(one.done for one in done), sum(one.failed for one in done))


async def restore(api: Api, node: str, reason: str, deadline: float) -> Marked:
    """Sets Ready=True for each pod of the node whose Ready=False has this reason, and for no other."""
    condition = {"status": "False", "reason": reason}
    ours = [pod for pod in await _of_node(api, node, deadline) if condition.items() <= ready(pod).items()]
    return await _patch(api, ours, "True", "", "", deadline)


async def bounded(api: Api, deadline: float) -> bool:
    """Whether the chart's admission policy is in force, that is, whether the API server refuses what it forbids. A dry
    run: nothing is changed in any case. False if there is no pod: then there is nothing to mark either."""
    try:
        found = (await api.call(Request("GET", paths.PODS, (("limit", "1"),)), deadline)).get("items")
    except Denied:
        return False  # the right itself is missing
    if not found:
        return False
    metadata = found[0]["metadata"]
    path = paths.pod_status(metadata["namespace"], metadata["name"])
    body = {"metadata": {"uid": metadata["uid"]}, "status": {"message": "PorterLB asks whether its right is bounded"}}
    try:
        await api.call(Request("PATCH", path, (("dryRun", "All"),), body, STRATEGIC_MERGE), deadline)
    except Denied as refused:
        if getattr(refused, "named", False):
            raise Unavailable("The pod is gone.") from None
        return POLICY_SAYS in str(refused)
    except Conflict:
        raise Unavailable("The pod is gone.") from None
    return False


async def _of_node(api: Api, node: str, deadline: float) -> list[Json]:
    # Version 0: answered from the API server's cache, which has an index by node. Else it reads all pods from etcd.
    query = (("fieldSelector", f"spec.nodeName={node}"), ("resourceVersion", "0"))
    answer = await api.call(Request("GET", paths.PODS, query), deadline)
    return list(answer.get("items") or [])


async def _patch(api: Api, pods: list[Json], status: str, reason: str, message: str, deadline: float) -> Marked:
    turn = asyncio.Semaphore(AT_ONCE)
    now = datetime.now(UTC)

    async def one(pod: Json) -> bool:
        metadata = pod["metadata"]
        path = paths.pod_status(metadata["namespace"], metadata["name"])
        body = patch(pod, status, reason, message, now)
        try:
            async with turn:
                await api.call(Request("PATCH", path, (), body, STRATEGIC_MERGE), deadline)
        except Conflict:
            return True  # another pod of that name, not the one to mark
        except (Denied, Unavailable) as error:
            log.warning("The condition Ready of the pod %s/%s: %s", metadata["namespace"], metadata["name"], error)
            return getattr(error, "named", False)  # it is gone
        return True

    results = await asyncio.gather(*(one(pod) for pod in pods))
    return Marked(sum(results), len(results) - sum(results))
