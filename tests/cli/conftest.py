"""A directory of manifests, and a stand-in for the manager: it plans, reports all as applied, and writes status."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from porterlb.cli.loading import load
from porterlb.cli.main import run
from porterlb.cluster import Kind, LeaseRecord
from porterlb.core.bgp.reasons import Loss
from porterlb.core.known import Known
from porterlb.core.membership import described, lease_name
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Member, ServiceKey, Snapshot, View
from porterlb.core.objects import ObjectKey, Objects
from porterlb.core.placement.policy import AT_ONCE
from porterlb.core.plan import plan
from porterlb.core.status.serving import Acknowledged
from porterlb.core.status.writes import StatusWrite, context_writes, losses_of, service_write
from porterlb.edge.manifests import ManifestsCluster
from tests.core.stage import NOW, seen, wire_view

NODES = ("node-a", "node-b", "node-c")
MEMBERS = {
    name: Member(name, f"10.77.0.{11 + i}", 7473, 1, (ip_interface(f"10.77.0.{11 + i}/24"),))
    for i, name in enumerate(NODES)
}

MANIFESTS = """
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool}
spec:
  address: 10.77.0.200-10.77.0.210  # on the segment
---
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: routed}
spec: {address: 172.16.0.0/29, protocol: bgp, autoAssign: false}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpConf
metadata: {name: default}
spec: {as: 64512}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: tor}
spec:
  conf: {neighborAddress: 10.77.0.1, peerAs: 64500}
  afiSafis: [{config: {family: {afi: AFI_IP, safi: SAFI_UNICAST}}, addPaths: {config: {sendMax: 8}}}]
"""

NODE = """
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
status: {{addresses: [{{type: InternalIP, address: {address}}}]}}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: default, annotations: {annotations}}}
spec: {{type: LoadBalancer, ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, namespace: default, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
endpoints:
- {{addresses: [10.1.0.5], nodeName: node-a, conditions: {{ready: true}}}}
- {{addresses: [10.1.1.5], nodeName: node-b, conditions: {{ready: true}}}}
ports: [{{port: 80, protocol: TCP, name: ""}}]
"""


@dataclass
class Folder:
    """The directory. ``up``: replicas with a session, as reported by the stand-in for the manager."""

    path: Path
    up: Sequence[str] = NODES
    lost: Loss | None = None
    capsys: pytest.CaptureFixture[str] | None = None
    out: str = field(default="", init=False)
    err: str = field(default="", init=False)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(text, encoding="utf-8")

    def add_service(self, name: str, **annotations: str) -> None:
        shown = "{" + ", ".join(f"{key.replace('_', '/')}: {value}" for key, value in annotations.items()) + "}"
        self.write(f"svc-{name}.yaml", SERVICE.format(name=name, annotations=shown))

    def cli(self, *args: str) -> int:
        """Runs ``porterlb --cluster dir:... ARGS``; its output is in ``out`` and ``err``."""
        assert self.capsys is not None
        self.capsys.readouterr()
        code = run(["--cluster", f"dir:{self.path}", *args])
        self.out, self.err = self.capsys.readouterr()
        return code

    def manage(self, rounds: int = 2) -> None:
        """Does the manager's work until nothing changes: round 1 assigns addresses, round 2 serves them."""
        asyncio.run(self._manage(rounds))

    async def _manage(self, rounds: int) -> None:
        cluster = ManifestsCluster(self.path)
        try:
            for lease in [*map(self._lease, MEMBERS.values()), LeaseRecord("porterlb", "node-a_1234", 4.0)]:
                if await cluster.read_lease(lease.name) is None:
                    await cluster.write_lease(lease)
            for _ in range(rounds):
                await self._round(cluster)
        finally:
            await cluster.close()

    @staticmethod
    def _lease(member: Member) -> LeaseRecord:
        return LeaseRecord(lease_name(member.node), member.node, 60.0, annotations=described(member))

    async def _round(self, cluster: ManifestsCluster) -> None:
        objects = (await load(cluster)).objects
        sessions = frozenset((name, "tor") for name in self.up)
        for node in reversed(NODES):  # every replica writes its own sessions; the leader, node-a, writes the rest
            view = View(node, probed=frozenset(NODES), fresh=frozenset(NODES), sessions=sessions, leader="node-a")
            snapshot = Snapshot(
                view,
                objects.nodes,
                objects.services,
                objects.endpoints,
                objects.eips,
                objects.peers,
                objects.conf,
                objects.namespaces,
                MEMBERS,
            )
            made = plan(snapshot, None, 0.0, ModePolicy(), AT_ONCE)
            lost = node not in self.up and self.lost is not None
            saw = seen(
                made,
                snapshot,
                loss=self.lost if lost else None,
                losses=int(lost),
                problems=objects.problems,
                generations=objects.generations,
                now=NOW,
            )
            await self._write(cluster, objects, replace(saw, on_wire=wire_view(saw, Acknowledged().updated(saw))))

    @staticmethod
    async def _write(cluster: ManifestsCluster, objects: Objects, known: Known) -> None:
        """Writes every status that the replica of ``known`` must write."""

        def have(key: ObjectKey) -> Mapping[str, Any] | None:
            return objects.raw(*key)

        leading = known.node == known.snapshot.view.leader
        peers = [(key.name, obj) for key, obj in objects.all_raw("BgpPeer").items()]
        known = replace(known, leading=leading, losses=losses_of(known, peers))
        writes: list[StatusWrite | None] = []
        for kind in ("Eip", "BgpPeer", "BgpConf"):
            for key in objects.all_raw(kind):
                writes += context_writes(known, key, have, leading=leading)
        if leading:
            judged = [key for key in known.generations if key.kind == "Service"]
            ours = [key for key in judged if ServiceKey(*key[1:]) in known.snapshot.services or key in known.problems]
            writes += [service_write(known, ServiceKey(*key[1:]), have) for key in ours]
        for write in writes:
            if write is not None:
                kind_ = next(kind for kind in Kind if kind.kind == write.key.kind)
                await cluster.apply_status(
                    kind_, write.key.name, write.key.namespace, write.status, owner=write.owner, version=write.version
                )

    @contextlib.contextmanager
    def managed(self) -> Iterator[None]:
        """A manager that runs in parallel to the test, until the end of the block."""
        stop = threading.Event()

        def work() -> None:
            while not stop.wait(0.05):
                self.manage(1)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Folder:
    for name in ("PORTERLB_CLUSTER", "NODE_NAME", "POD_NAMESPACE", "PORTERLB_HTTP", "PORTERLB_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    made = Folder(tmp_path, capsys=capsys)
    nodes = [NODE.format(name=name, address=member.address) for name, member in MEMBERS.items()]
    made.write("nodes.yaml", "---".join(nodes))
    made.write("network.yaml", MANIFESTS)
    made.add_service("web")
    return made


Check = Callable[[Folder], None]
