"""The lab's API objects on a real control plane, with the same operations as a directory of manifests."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kubernetes import dynamic
from kubernetes.client.exceptions import ApiException

from lab.backend import Object
from lab.host import Host, Nic, segment_nic
from lab.net import Net
from lab.netns import LabError
from porterlb import crds
from tests.cluster.controlplane.plane import ControlPlane
from tests.cluster.rights import ACCOUNT, NAMESPACE, rights

CONTROL = 240
"""The control plane's number on the segment: 10.77.0.240."""

FRESH = 0.1
"""Lifetime of a cached list, in seconds. The proxies of all nodes request the same lists."""

KINDS = {
    "Node": "v1",
    "Namespace": "v1",
    "Secret": "v1",
    "Service": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Lease": "coordination.k8s.io/v1",
    "Event": "v1",
    "Eip": "network.kubesphere.io/v1alpha2",
    "BgpConf": "network.kubesphere.io/v1alpha2",
    "BgpPeer": "network.kubesphere.io/v1alpha2",
}


class KubeBackend:
    """A control plane on its own machine on the lab's segment. The managers reach it through a kubeconfig.

    Use it as the factory of a Lab: ``Lab(backend=KubeBackend)``. Its service account has exactly the rights of
    :mod:`tests.cluster.rights`.
    """

    nic = segment_nic(CONTROL)
    gateway: Nic | None = None
    """The machine's network interface and default router, for a topology other than the segment."""

    def __init__(self, net: Net, **options: Any) -> None:
        self.net = net
        self.host = Host(net, "control", [self.nic], self.gateway)
        net.plug(self.host.cables())
        self.host.configure()
        options = {"service_cidr": "10.96.0.0/16,fd96::/108", **options}  # both families: Services may request them
        self.plane = ControlPlane(self.host.ns.name, self.host.v4, **options)
        self.plane.start()
        try:
            self._prepare()
        except BaseException:
            self.plane.stop()
            raise
        self._cut: set[str] = set()
        self._lists: dict[str, tuple[float, list[Object]]] = {}

    def _prepare(self) -> None:
        self.plane.apply([crds.load()[kind] for kind in ("Eip", "BgpConf", "BgpPeer")])
        self.plane.apply(rights())
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        hello = {"name": "porterlb-hello", "namespace": NAMESPACE}
        self.plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": hello, "data": {"key": key}})
        self.kubeconfig: Path = self.plane.kubeconfig_for(ACCOUNT, NAMESPACE)
        self._talk: Any = dynamic.DynamicClient(
            self.plane.api, cache_file=str(self.plane.directory / "backend-kinds.json")
        )

    def attach(self, nodes: Iterable[str]) -> None:
        """Every node reaches the control plane over the segment."""

    def _resource(self, kind: str) -> Any:
        return self._talk.resources.get(api_version=KINDS[kind], kind=kind)

    def apply(self, obj: Object) -> None:
        self.plane.apply(obj)
        self._lists.pop(obj["kind"], None)

    def patch(self, kind: str, name: str, body: Mapping[str, Any], *more: str) -> None:
        """A merge patch. ``more``: options of kubectl."""
        self.plane.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(body), *more)

    def delete(self, kind: str, name: str, namespace: str = "") -> None:
        try:
            self._resource(kind).delete(name=name, namespace=namespace or None)
        except ApiException as error:
            raise LabError(f"{kind} {namespace}/{name} cannot be deleted: {error.reason}") from None
        self._lists.pop(kind, None)

    def objects(self, kind: str) -> list[Object]:
        known = self._lists.get(kind)
        if known is None or time.monotonic() - known[0] > FRESH:
            try:
                found = self._resource(kind).get().to_dict()["items"]
            except Exception as error:
                if known is None:
                    raise LabError(f"the API does not list {kind}: {error}") from None
                return known[1]  # the API is unavailable: keep the last known state, as kube-proxy does
            for item in found:
                item.setdefault("kind", kind)
            known = self._lists[kind] = (time.monotonic(), found)
        return known[1]

    def status(self, kind: str, name: str, namespace: str = "") -> Object:
        for obj in self.objects(kind):
            meta = obj["metadata"]
            if meta["name"] == name and meta.get("namespace", "") == namespace:
                status: Object = obj.get("status") or {}
                return status
        return {}

    def events(self, kind: str, name: str, namespace: str = "") -> list[Object]:
        about = (kind, name, namespace)
        found = [(event, event["involvedObject"]) for event in self.objects("Event")]
        return [e for e, obj in found if (obj.get("kind"), obj.get("name"), obj.get("namespace", "")) == about]

    def leader(self) -> str:
        for lease in self.objects("Lease"):
            if lease["metadata"]["name"] == "porterlb" and lease["metadata"]["namespace"] == NAMESPACE:
                return str(lease["spec"].get("holderIdentity") or "")
        return ""

    def manager_args(self, node: str) -> list[str]:
        return ["--cluster", "kube", "--kubeconfig", str(self.kubeconfig), "--namespace", NAMESPACE]

    # The path from a node to the API

    def cut(self, node: str) -> None:
        """Drops packets silently in both directions: neither side gets a FIN or a RST."""
        self._cut.add(node)
        self.net.namespace(node).nft(
            "table inet plbapi { chain out { type filter hook output priority 0; "
            f"ip daddr {self.host.v4} tcp dport 6443 drop; }}; chain in {{ type filter hook input priority 0; "
            f"ip saddr {self.host.v4} tcp sport 6443 drop; }}; }}\n"
        )

    def restore(self, node: str) -> None:
        self._cut.discard(node)
        self.net.namespace(node).run(["nft", "delete", "table", "inet", "plbapi"], check=False)

    def reachable(self, node: str) -> bool:
        return node not in self._cut

    def close(self) -> None:
        self.plane.stop()
        for process in self.host.processes:
            process.close()
