"""A small cluster over time: the leader's decisions are written to the objects, and the next plan reads them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_interface
from typing import Any

from porterlb.core.mode import ModePolicy
from porterlb.core.model import Address, Member, ServiceKey, Snapshot, View
from porterlb.core.objects import Objects
from porterlb.core.placement.policy import PlacementPolicy
from porterlb.core.placement.state import Placement
from porterlb.core.plan import Plan, plan
from porterlb.core.status.build import eip_status, service_status
from tests.core.stage import seen

POLICY = ModePolicy()
FAST = PlacementPolicy(settle_after=10, rebalance_after=60, pace=1)


class World:
    """``replicas``: the nodes with a replica, the leader first. ``everyone``: all of them plan, not only the leader."""

    def __init__(
        self,
        nodes: Iterable[str],
        replicas: Iterable[str],
        policy: PlacementPolicy = FAST,
        *,
        everyone: bool = False,
    ) -> None:
        self.everyone = everyone
        self.objects = Objects(claim_without_class=True)
        self.policy, self.now = policy, 0.0
        self.nodes = list(nodes)
        self.replicas = list(replicas)
        self.leader = self.replicas[0]
        self.dead: set[str] = set()
        self.outage = False
        self.doubt = False
        self.asked: frozenset[Address] = frozenset()
        self.plans: dict[str, Plan] = {}
        self.version = 0
        for name in self.nodes:
            self.node(name)
        self.change("Eip", "pool", spec={"address": "10.77.0.100-10.77.0.229", "protocol": "layer2"})

    def change(self, kind: str, name: str, namespace: str = "", **fields: Any) -> None:
        self.version += 1
        old = self.objects.raw(kind, namespace, name) or {}
        meta = {"name": name, "namespace": namespace, "uid": name, "resourceVersion": str(self.version)}
        meta |= fields.pop("metadata", {})
        self.objects.change(kind, {**old, **fields, "metadata": {**old.get("metadata", {}), **meta}})

    def node(self, name: str, *, cordoned: bool = False, capacity: str = "") -> None:
        if name not in self.nodes:
            self.nodes.append(name)
        annotations = {"capacity.porter.kubesphere.io/v1alpha1": capacity} if capacity else {}
        address = f"10.77.0.{11 + self.nodes.index(name)}"
        self.change(
            "Node",
            name,
            metadata={"annotations": annotations},
            spec={"unschedulable": cordoned},
            status={"addresses": [{"type": "InternalIP", "address": address}]},
        )

    def serve(self, *names: str, at: Iterable[str] = (), policy: str = "Cluster", weight: str = "") -> None:
        """Services with an endpoint on each of ``at`` (all nodes when empty)."""
        annotations = {"weight.porter.kubesphere.io/v1alpha1": weight} if weight else {}
        for name in names:
            spec = {"type": "LoadBalancer", "externalTrafficPolicy": policy, "ports": [{"port": 80}]}
            self.change("Service", name, "default", spec=spec, metadata={"annotations": annotations})
            self.endpoints(name, *at)

    def endpoints(self, name: str, *at: str) -> None:
        self.change(
            "EndpointSlice",
            name,
            "default",
            metadata={"labels": {"kubernetes.io/service-name": name}},
            addressType="IPv4",
            endpoints=[{"nodeName": node, "conditions": {"ready": True}} for node in (at or self.nodes)],
        )

    def snapshot(self, me: str) -> Snapshot:
        fresh = frozenset(self.replicas) | {me}
        members = {
            name: Member(name, f"10.77.0.{11 + at}", 7473, 1, (ip_interface(f"10.77.0.{11 + at}/24"),))
            for at, name in enumerate(self.nodes)
            if name in fresh
        }
        view = View(
            me,
            dead=frozenset(self.dead),
            probed=frozenset(self.nodes),
            fresh=fresh,
            leader=self.leader,
            outage=self.outage,
            doubt=self.doubt,
            asked=self.asked,
        )
        objects = self.objects
        return Snapshot(view, objects.nodes, objects.services, objects.endpoints, objects.eips, members=members)

    def tick(self, seconds: float = 0.0, *, write: bool = True) -> Plan:
        """The replicas plan; the leader writes."""
        self.now += seconds
        for name in self.replicas if self.everyone else [self.leader]:
            of = self.snapshot(name)
            self.plans[name] = plan(of, self.plans.get(name), self.now, POLICY, self.policy)
        made = self.plans[self.leader]
        if write and not self.outage:
            self.write(made, self.snapshot(self.leader))
        return made

    def write(self, made: Plan, of: Snapshot) -> None:
        known = seen(made, of)
        for key in made.services:
            raw = self.objects.raw("Service", *key) or {}
            status = service_status(known, key, raw.get("status"))
            if status.get("loadBalancer") != (raw.get("status") or {}).get("loadBalancer"):
                self.change("Service", key.name, key.namespace, status=status)
        for name in of.eips:
            raw = self.objects.raw("Eip", "", name) or {}
            status = eip_status(known, name, raw.get("status"))
            fields = ("used", "layer2NextHops", "rebalanced")
            if any(status.get(field) != (raw.get("status") or {}).get(field) for field in fields):
                self.change("Eip", name, status=status)

    def run(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(round(seconds / step)):
            before = self.version
            self.tick(step)
            if self.version != before:
                self.tick()

    def restart(self, name: str) -> None:
        """The replica loses its memory."""
        self.plans.pop(name, None)

    def places(self, me: str = "") -> dict[str, str]:
        """The node that serves each VIP, according to the plan of one replica."""
        return {str(vip.services[0].name): vip.place for vip in self.plans[me or self.leader].vips.values()}

    def recorded(self) -> Mapping[str, str]:
        return dict((self.objects.raw("Eip", "", "pool") or {}).get("status", {}).get("layer2NextHops", {}))

    def counts(self) -> list[int]:
        """The number of VIPs on each node, for all nodes."""
        found = Counter(self.places().values())
        return [found[name] for name in self.nodes]

    @property
    def placement(self) -> Placement:
        found = self.plans[self.leader].memory.placement
        assert found is not None
        return found


def key(name: str) -> ServiceKey:
    return ServiceKey("default", name)
