"""The Kubernetes API as a Cluster."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from porterlb.cluster import (
    Conflict,
    Denied,
    Event,
    Kind,
    Labels,
    LeaseRecord,
    Marked,
    Obj,
    ReplicaState,
    Tunnel,
    Unavailable,
)
from porterlb.core.doctor.installed import Installation
from porterlb.edge.kube import installation, lease, paths, pods, port_forward
from porterlb.edge.kube.access import Access, Source, find_source
from porterlb.edge.kube.api import APPLY, Api, Request, shaped
from porterlb.edge.kube.errors import Missing
from porterlb.edge.kube.events import EventWriter
from porterlb.edge.kube.watch import Watch
from porterlb.errors import PorterError

DEADLINE = 5.0
"""Seconds for one answer, unless the caller specifies another deadline."""

LEASE_DEADLINE = 1.0
"""Seconds to read a Lease: less than half of the renew deadline (2.5 s), so that there is time for another try."""

HELLO_SECRET = "porterlb-hello"  # noqa: S105  # the name of a Secret
HELLO_SECRET_KEY = "key"  # noqa: S105  # a name in it
HELLO_KEY_AT_LEAST = 16
"""Bytes: a shorter key can be guessed (RFC 2104 recommends the length of the hash, and allows any length)."""


class KubeCluster:
    """The Kubernetes API server as a :class:`porterlb.cluster.Cluster`.

    Secrets are read by name only, Leases in the release namespace only: no right to list Secrets is needed.

    Args:
        namespace: the release namespace, where Leases, the hello key and the peers' passwords are.
        source: the source of address and credentials, see :func:`connect`.
    """

    shares_state = False  # the web servers are reached through the API server

    def __init__(self, namespace: str, source: Source) -> None:
        self.namespace = namespace
        self._access = Access(source)
        self._api = Api(self._access)
        self._events = EventWriter(self._api)

    @classmethod
    def connect(cls, namespace: str, kubeconfig: str = "", context: str = "") -> KubeCluster:
        """Chooses kubeconfig, KUBECONFIG, the pod's service account or ~/.kube/config, in this order.

        Nothing is read before the first call, which raises PorterError if the configuration cannot be used.
        """
        return cls(namespace, find_source(kubeconfig, context, os.environ))

    def watch(self, kinds: Iterable[Kind]) -> AsyncIterator[Event]:
        """See the protocol. Raises ValueError for Secrets: read them by name."""
        wanted = list(kinds)
        for kind in wanted:
            _listable(kind)
        return Watch(self._api, wanted, self.namespace).events()

    async def objects(self, kind: Kind) -> list[Obj]:
        _listable(kind)
        path = paths.collection(kind, self.namespace if kind is Kind.LEASE else "")
        found, _ = await self._api.pages(path, deadline=DEADLINE)
        return [shaped(kind, obj) for obj in found]

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Obj | None:
        """The object, or None. ``namespace`` empty: the release namespace, for kinds that have one."""
        path = paths.item(kind, name, namespace or self.namespace)
        try:
            return shaped(kind, await self._api.call(Request("GET", path), DEADLINE))
        except Missing as missing:
            if missing.named:
                return None
            raise

    async def apply_status(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        status: Mapping[str, Any],
        *,
        owner: str,
        version: str = "",
        deadline: float = 2.0,
    ) -> Obj:
        metadata = {"resourceVersion": version} if version else {}
        body = {"metadata": metadata, "status": _with_ip_mode(status) if kind is Kind.SERVICE else status}
        request = self._request(kind, name, namespace, body, owner)
        return shaped(kind, await self._api.call(replace(request, path=request.path + "/status"), deadline))

    async def apply(self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], *, owner: str) -> Obj:
        """See the protocol. Never creates an object: Denied if there is none (any longer).

        That needs a read for the object's uid, unless ``body`` contains it (metadata.uid).
        """
        metadata = dict(body.get("metadata") or {})
        if not metadata.get("uid"):
            path = paths.item(kind, name, namespace or self.namespace)
            metadata["uid"] = (await self._api.call(Request("GET", path), DEADLINE))["metadata"]["uid"]
        request = self._request(kind, name, namespace, {**body, "metadata": metadata}, owner)
        return shaped(kind, await self._api.call(request, DEADLINE))

    async def emit(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        """See the protocol. Returns at once: Events are written in the background, rate-limited per object."""
        self._events.tell(kind, obj, type_=type_, reason=reason, message=message, reporter=reporter)

    async def read_lease(self, name: str) -> LeaseRecord | None:
        try:
            path = paths.item(Kind.LEASE, name, self.namespace)
            return lease.from_object(await self._api.call(Request("GET", path), LEASE_DEADLINE))
        except Missing as missing:
            if missing.named:
                return None
            raise

    async def write_lease(self, record: LeaseRecord, *, deadline: float = 1.0) -> LeaseRecord:
        body = lease.to_object(record, self.namespace, time.time_ns() // 1000)
        try:
            if record.version:
                request = Request("PUT", paths.item(Kind.LEASE, record.name, self.namespace), body=body)
            else:
                request = Request("POST", paths.collection(Kind.LEASE, self.namespace), body=body)
            written = await self._api.call(request, deadline)
        except Missing as missing:
            if record.version and missing.named:  # the version that we know no longer exists
                raise Conflict(str(missing)) from None
            raise
        return lease.from_object(written)

    async def delete_lease(self, name: str) -> None:
        try:
            await self._api.call(Request("DELETE", paths.item(Kind.LEASE, name, self.namespace)), DEADLINE)
        except Missing as missing:
            if not missing.named:
                raise

    async def leases(self) -> list[LeaseRecord]:
        return [lease.from_object(obj) for obj in await self.objects(Kind.LEASE)]

    async def mark_endpoints(
        self, node: str, first: Callable[[str, Labels], bool], *, reason: str, message: str, deadline: float
    ) -> Marked:
        """See the protocol. The EndpointSlice controller copies it from the pods' status within milliseconds."""
        return await pods.mark(self._api, node, first, reason, message, deadline)

    async def marking_bounded(self, deadline: float) -> bool:
        """Asks the API server itself: the policy may exist without being in force."""
        return await pods.bounded(self._api, deadline)

    async def restore_endpoints(self, node: str, *, reason: str, deadline: float) -> Marked:
        return await pods.restore(self._api, node, reason, deadline)

    async def hello_key(self) -> bytes:
        secret = await self.get(Kind.SECRET, HELLO_SECRET)
        where = f"the Secret {HELLO_SECRET} in the namespace {self.namespace}"
        remedy = (
            f"Make it: kubectl -n {self.namespace} create secret generic {HELLO_SECRET} "
            f'--from-literal={HELLO_SECRET_KEY}="$(openssl rand -hex 32)"'
        )
        if secret is None:
            raise PorterError(f"The key of the hellos is missing: {where}.", remedy)
        try:
            key = base64.b64decode((secret.get("data") or {})[HELLO_SECRET_KEY], validate=True)
        except (KeyError, TypeError, binascii.Error):
            raise PorterError(f"The key of the hellos is missing: {where} has no {HELLO_SECRET_KEY}.", remedy) from None
        if len(key) < HELLO_KEY_AT_LEAST:
            raise PorterError(
                f"The key of the hellos in {where} has {len(key)} bytes, fewer than {HELLO_KEY_AT_LEAST}.", remedy
            )
        return key

    async def share_state(self, node: str, text: str | None) -> None:
        """Does nothing: see ``shares_state``."""

    async def unshare_state(self, node: str) -> None:
        """Does nothing: see ``shares_state``."""

    async def replica_state(self, node: str) -> ReplicaState:
        return await port_forward.replica_state(self._api, self.namespace, node)

    async def replica_page(self, node: str, path: str) -> str:
        _, answer = await port_forward.page(self._api, self.namespace, node, path)
        if not port_forward.found(answer):
            raise Unavailable(port_forward.body(answer).strip() or f"The replica on {node} has not answered.")
        return port_forward.body(answer)

    async def tunnel(self, node: str) -> Tunnel:
        _, opened = await port_forward.connect(self._api, self.namespace, node)
        return opened

    async def installation(self) -> Installation:
        return await installation.installation(self._api, self.namespace)

    async def replica_texts(self, node: str) -> dict[str, str]:
        found = await installation.texts(self._api, self.namespace, node)
        with contextlib.suppress(Unavailable, Denied):
            for path, name in (("/metrics", "metrics.txt"), ("/record", "recording.jsonl")):
                _, answer = await port_forward.page(self._api, self.namespace, node, path)
                if port_forward.found(answer):
                    found[name] = port_forward.body(answer)
        return found

    async def close(self) -> None:
        await self._events.close()
        await self._access.close()

    def _request(self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], owner: str) -> Request:
        """A server-side apply (KEP-555) of ``body``, completed with apiVersion, kind and metadata."""
        namespace = namespace or self.namespace
        metadata = {**body["metadata"], "name": name, **({"namespace": namespace} if kind.namespaced else {})}
        whole = {**body, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        # Force: take over fields that another manager owns, as a controller should.
        query = (("fieldManager", owner), ("force", "true"))
        return Request("PATCH", paths.item(kind, name, namespace), query, whole, APPLY)


def _listable(kind: Kind) -> None:
    if kind is Kind.SECRET:
        raise ValueError("Secrets are read by name (get): PorterLB has no right to list them")


def _with_ip_mode(status: Mapping[str, Any]) -> Mapping[str, Any]:
    """The API server fills in ipMode (KEP-1860). We write it too, so that the wanted status equals the stored one."""
    balancer = status.get("loadBalancer")
    if not isinstance(balancer, Mapping) or not balancer.get("ingress"):
        return status
    ingress = [{"ipMode": "VIP", **entry} if entry.get("ip") else entry for entry in balancer["ingress"]]
    return {**status, "loadBalancer": {**balancer, "ingress": ingress}}
