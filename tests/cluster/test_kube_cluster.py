"""The Kubernetes API as a Cluster, on a real API server and with exactly the rights that PorterLB needs."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from porterlb import crds
from porterlb.cluster import (
    Changed,
    Conflict,
    Deleted,
    Denied,
    Event,
    Kind,
    LeaseRecord,
    Obj,
    Outage,
    Replaced,
    Restored,
    Unavailable,
)
from porterlb.edge.kube import KubeCluster
from porterlb.errors import PorterError
from tests.cluster.controlplane.plane import ControlPlane
from tests.cluster.controlplane.program import PlaneError
from tests.cluster.rights import CLUSTER_RULES, NAMESPACE_RULES

pytestmark = pytest.mark.cluster

SYSTEM = "porterlb-system"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:porterlb"
FOLLOWED = [kind for kind in Kind if kind is not Kind.SECRET]
CRS = "network.kubesphere.io"


EIP: dict[str, Any] = {
    "apiVersion": f"{CRS}/v1alpha2",
    "kind": "Eip",
    "metadata": {"name": "pool"},
    "spec": {"address": "192.0.2.0/28"},
}
PEER = {
    "apiVersion": f"{CRS}/v1alpha2",
    "kind": "BgpPeer",
    "metadata": {"name": "tor"},
    "spec": {"conf": {"neighborAddress": "192.0.2.254", "peerAs": 65001}},
}


def service(name: str, namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": name}},
    }


@pytest.fixture(scope="module")
def kubeconfig(plane: ControlPlane) -> Path:
    """A kubeconfig of the manager's service account, with exactly its rights."""
    plane.apply(yaml.safe_load(crds.text(name)) for name in crds.NAMES)
    path = plane.kubeconfig_for("porterlb", SYSTEM)
    rbac = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "name": "porterlb", "namespace": SYSTEM}
    for kind, rules, metadata in (
        ("ClusterRole", CLUSTER_RULES, {"name": "porterlb"}),
        ("Role", NAMESPACE_RULES, {"name": "porterlb", "namespace": SYSTEM}),
    ):
        version = {"apiVersion": f"{rbac}/v1"}
        role = {"apiGroup": rbac, "kind": kind, "name": "porterlb"}
        plane.apply({**version, "kind": kind, "metadata": metadata, "rules": rules})
        binding = {**version, "kind": f"{kind}Binding", "metadata": metadata, "roleRef": role, "subjects": [subject]}
        plane.apply(binding)
    return path


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario()

    asyncio.run(bounded())


@asynccontextmanager
async def connected(kubeconfig: Path) -> AsyncIterator[KubeCluster]:
    cluster = KubeCluster.connect(SYSTEM, str(kubeconfig))
    try:
        yield cluster
    finally:
        await cluster.close()


class Follower:
    """Reads a watch as the manager does: records the events and the resulting objects."""

    def __init__(self, cluster: KubeCluster, kinds: Iterable[Kind]) -> None:
        self.seen: list[Event] = []
        self.objects: dict[Kind, dict[tuple[str, str], Obj]] = {}
        self._stream = cluster.watch(kinds)
        self._news = asyncio.Event()

    async def __aenter__(self) -> Follower:
        self._task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _read(self) -> None:
        async for event in self._stream:
            self.seen.append(event)
            match event:
                case Replaced(kind, objects):
                    self.objects[kind] = {key(obj): obj for obj in objects}
                case Changed(kind, obj):
                    self.objects[kind][key(obj)] = obj
                case Deleted(kind, namespace, name):
                    self.objects[kind].pop((namespace, name), None)
            self._news.set()

    async def until(self, true: Callable[[], object], seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while not true():
            if self._task.done():
                self._task.result()
            left = end - time.monotonic()
            assert left > 0, f"not so after {seconds} s; seen: {[type(event).__name__ for event in self.seen]}"
            self._news.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, 0.2)):
                    await self._news.wait()

    def of(self, wanted: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, wanted)]

    def there(self, kind: Kind, name: str, namespace: str = "") -> Obj | None:
        return self.objects.get(kind, {}).get((namespace, name))


def key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


class Gate:
    """A TCP relay in front of the API server, which can cut connections or silence them.

    Silent: bytes are discarded without notice to either side, as when a firewall has forgotten the connection.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._connections = 0
        self._silent = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Gate:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.sleep(0.05)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Silences all current connections."""
        self._silent = self._connections

    def kubeconfig(self, original: Path, folder: Path) -> Path:
        return kubeconfig_at(self.port, original, folder)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        number = self._connections
        with suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers |= {writer, far_writer}
            await asyncio.gather(self._pump(number, reader, far_writer), self._pump(number, far_reader, writer))
        writer.transport.abort()

    async def _pump(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if number > self._silent:
                    writer.write(data)
        if number > self._silent:
            writer.transport.abort()


def kubeconfig_at(port: int, original: Path, folder: Path) -> Path:
    """The same kubeconfig for another port of this machine."""
    document = yaml.safe_load(original.read_text())
    document["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
    path = folder / "gate.kubeconfig"
    path.write_text(json.dumps(document))
    return path


def asked(plane: ControlPlane) -> list[dict[str, Any]]:
    return plane.audit_events(ACCOUNT)


def api_port(plane: ControlPlane) -> int:
    return int(plane.server.rsplit(":", 1)[1])


# -- lists and watches ---------------------------------------------------------------------------------------


def test_every_kind_is_listed_first_then_followed(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply([EIP, PEER])

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster, Follower(cluster, FOLLOWED) as follower:
            await follower.until(lambda: len(follower.of(Replaced)) == len(FOLLOWED))
            assert Counter(event.kind for event in follower.of(Replaced)) == Counter(FOLLOWED)
            assert len(follower.seen) == len(FOLLOWED)
            assert follower.there(Kind.EIP, "pool")
            namespace = follower.there(Kind.NAMESPACE, "default")
            assert namespace and namespace["kind"] == "Namespace" and "managedFields" not in namespace["metadata"]

            made = [
                (Kind.NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
                (Kind.NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
                (Kind.SERVICE, service("web", "shop")),
                (Kind.ENDPOINT_SLICE, slice_of("web-1", "shop")),
                (Kind.LEASE, lease_object("other", SYSTEM)),
                (Kind.EIP, {**EIP, "metadata": {"name": "second"}}),
                (Kind.BGP_PEER, {**PEER, "metadata": {"name": "second"}}),
                (Kind.BGP_CONF, {**EIP, "kind": "BgpConf", "metadata": {"name": "default"}, "spec": {"as": 65000}}),
            ]
            for kind, obj in made:
                plane.apply(obj)
                await follower.until(lambda kind=kind, obj=obj: follower.there(kind, key(obj)[1], key(obj)[0]))
            assert not await elsewhere(plane, follower)
            for kind, obj in reversed(made):
                if kind is not Kind.NAMESPACE:  # deletion needs a controller that does not run
                    delete(plane, kind, obj)
                    gone = Deleted(kind, *key(obj))
                    await follower.until(lambda gone=gone: gone in follower.seen)
            assert not follower.of(Outage)

    run(scenario)


async def elsewhere(plane: ControlPlane, follower: Follower) -> Obj | None:
    """A Lease of another namespace, if it is visible."""
    plane.apply(lease_object("elsewhere", "default"))
    plane.apply(lease_object("here", SYSTEM))
    await follower.until(lambda: follower.there(Kind.LEASE, "here", SYSTEM))
    return follower.there(Kind.LEASE, "elsewhere", "default")


async def service_of(cluster: KubeCluster, name: str) -> Obj | None:
    """Finds the Service in the list: the manager may not read a single Service."""
    found = await cluster.objects(Kind.SERVICE)
    return next((obj for obj in found if key(obj) == ("default", name)), None)


def slice_of(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.1.1"]}],
    }


def lease_object(name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}


def delete(plane: ControlPlane, kind: Kind, obj: Obj) -> None:
    namespace, name = key(obj)
    where = ["-n", namespace] if namespace else []
    plane.kubectl("delete", f"{kind.plural}.{kind.value[0]}".rstrip("."), name, *where)


def test_the_api_takes_each_kind_of_peer_as_and_refuses_other_words(plane: ControlPlane, kubeconfig: Path) -> None:
    def peer(**spec: Any) -> str:
        conf = {"neighborAddress": "192.0.2.250", **spec.pop("conf", {})}
        made = {**PEER, "metadata": {"name": "as"}, "spec": {"conf": conf, **spec}}
        return plane.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(made))

    rule = {"nodeSelector": {"matchLabels": {"rack": "a"}}, "aggregationLength": 24, "communities": ["east"]}
    for number in (65001, "external", "internal"):
        assert "serverside-applied" in peer(
            conf={"peerAs": number},
            ttlSecurity={"enabled": True},
            maxPrefixesSent=100,
            advertisePolicy="union",
            advertise=[rule],
        )
    for wrong in (
        {"conf": {"peerAs": "extern"}},
        {"conf": {"peerAs": 2**32}},
        {"advertisePolicy": "all"},
        {"advertise": [{"aggregationLength": 33}]},
        {"ttlSecurity": {"ttlMin": 256}},
    ):
        with pytest.raises(PlaneError, match="is invalid"):
            peer(**{"conf": {"peerAs": 65001}, **wrong})


def test_a_list_of_many_pages_is_whole(plane: ControlPlane, kubeconfig: Path) -> None:
    leases: Any = client.CoordinationV1Api(plane.api)
    for number in range(510):
        leases.create_namespaced_lease(SYSTEM, lease_object(f"page-{number:03}", SYSTEM))

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            found = [record.name for record in await cluster.leases() if record.name.startswith("page-")]
            assert sorted(found) == [f"page-{number:03}" for number in range(510)]

    try:
        run(scenario)
    finally:
        leases.delete_collection_namespaced_lease(SYSTEM)
    assert [event for event in asked(plane) if "continue=" in event["requestURI"]]


def test_nothing_is_asked_while_nothing_happens(plane: ControlPlane, kubeconfig: Path) -> None:
    async def scenario() -> None:
        async with connected(kubeconfig) as cluster, Follower(cluster, FOLLOWED) as follower:
            await follower.until(lambda: len(follower.of(Replaced)) == len(FOLLOWED))
            await asyncio.sleep(1)
            before = len(asked(plane))
            await asyncio.sleep(5)
            assert asked(plane)[before:] == []

    run(scenario)


def test_secrets_are_read_by_name_only(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "router-password", "namespace": SYSTEM}})

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            assert await cluster.get(Kind.SECRET, "router-password")
            assert await cluster.get(Kind.SECRET, "x") is None
            with pytest.raises(ValueError, match="by name"):
                cluster.watch([Kind.NODE, Kind.SECRET])
            with pytest.raises(ValueError, match="by name"):
                await cluster.objects(Kind.SECRET)

    run(scenario)


def test_what_the_rules_do_not_grant_is_denied_with_the_sentence_of_the_api(
    plane: ControlPlane, kubeconfig: Path
) -> None:
    plane.apply(service("denied"))

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            with pytest.raises(Denied, match=rf'secrets "x" is forbidden: User "{ACCOUNT}" cannot get resource'):
                await cluster.get(Kind.SECRET, "x", "default")
            with pytest.raises(Denied, match='cannot patch resource "nodes/status"'):
                await cluster.apply_status(Kind.NODE, "n", "", {}, owner="porterlb")
            with pytest.raises(Denied, match=r'eips\.network\.kubesphere\.io "none" not found'):
                await cluster.apply_status(Kind.EIP, "none", "", {}, owner="porterlb")
            with pytest.raises(Denied, match='Service "none" is invalid'):  # apply checks in this order
                await cluster.apply_status(Kind.SERVICE, "none", "default", {}, owner="porterlb")
            bad = {"loadBalancer": {"ingress": [{"ip": "not an address"}]}}
            with pytest.raises(Denied, match="must be a valid IP address"):
                await cluster.apply_status(Kind.SERVICE, "denied", "default", bad, owner="porterlb")

    run(scenario)


# -- outages of the API -------------------------------------------------------------------------------------


def test_an_api_that_stops_and_starts_is_an_outage_and_deletes_nothing(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply([service("kept"), EIP])

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster, Follower(cluster, FOLLOWED) as follower:
            await follower.until(lambda: len(follower.of(Replaced)) == len(FOLLOWED))
            before = {kind: set(found) for kind, found in follower.objects.items()}
            plane.stop_api()
            try:
                await follower.until(lambda: follower.of(Outage), 5)
                with pytest.raises(Unavailable, match="cannot be reached"):
                    await cluster.objects(Kind.EIP)
                await asyncio.sleep(2)
                assert {kind: set(found) for kind, found in follower.objects.items()} == before
            finally:
                plane.start_api()
            await follower.until(lambda: follower.of(Restored))
            since = follower.seen[follower.seen.index(follower.of(Outage)[0]) :]
            upto = since[: since.index(Restored())]
            assert {event.kind for event in upto if isinstance(event, Replaced)} == set(FOLLOWED)
            assert not follower.of(Deleted)
            assert len(follower.of(Outage)) == len(follower.of(Restored)) == 1
            assert before.items() <= {kind: set(found) for kind, found in follower.objects.items()}.items()
            plane.apply(service("after"))
            await follower.until(lambda: follower.there(Kind.SERVICE, "after", "default"))

    run(scenario)


def test_a_history_that_is_gone_is_listed_again(plane: ControlPlane, kubeconfig: Path, tmp_path: Path) -> None:
    """410 Gone: the watch goes silent, objects change, etcd is compacted, the connection ends, and the API stays
    available."""
    plane.apply([service("goes"), service("stays")])

    async def scenario() -> None:
        async with (
            Gate(api_port(plane)) as gate,
            connected(gate.kubeconfig(kubeconfig, tmp_path)) as cluster,
            Follower(cluster, [Kind.SERVICE]) as follower,
        ):
            await follower.until(lambda: follower.there(Kind.SERVICE, "goes", "default"))
            await asyncio.sleep(1)  # until the watch is open too
            gate.silence()
            delete(plane, Kind.SERVICE, service("goes"))
            plane.apply(service("comes"))
            plane.compact()
            await asyncio.sleep(0.5)
            assert follower.there(Kind.SERVICE, "goes", "default")  # it has received no event
            gate.cut()
            await follower.until(lambda: follower.there(Kind.SERVICE, "comes", "default"))
            assert follower.there(Kind.SERVICE, "stays", "default")
            assert not follower.there(Kind.SERVICE, "goes", "default")
            # Listed for the second time, although the API was always reachable.
            assert len(follower.of(Replaced)) == 2
            assert not follower.of(Outage) and not follower.of(Deleted)

    run(scenario)


def test_connections_that_are_cut_lose_nothing(plane: ControlPlane, kubeconfig: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with (
            Gate(api_port(plane)) as gate,
            connected(gate.kubeconfig(kubeconfig, tmp_path)) as cluster,
            Follower(cluster, [Kind.SERVICE]) as follower,
        ):
            await follower.until(lambda: Kind.SERVICE in follower.objects)
            for number in range(8):
                gate.cut()
                plane.apply(service(f"cut-{number}"))
                if number % 2:
                    await asyncio.sleep(0.3)
            await follower.until(lambda: all(follower.there(Kind.SERVICE, f"cut-{n}", "default") for n in range(8)))
            assert not follower.of(Outage)
            assert len(follower.of(Replaced)) == 1  # the watch resumed where it broke

    run(scenario)


def test_connections_that_go_silent_cost_one_deadline(plane: ControlPlane, kubeconfig: Path, tmp_path: Path) -> None:
    """Half-open: pooled connections and the watch are dead, without a FIN or RST."""

    async def scenario() -> None:
        async with (
            Gate(api_port(plane)) as gate,
            connected(gate.kubeconfig(kubeconfig, tmp_path)) as cluster,
            Follower(cluster, [Kind.SERVICE]) as follower,
        ):
            await follower.until(lambda: Kind.SERVICE in follower.objects)
            await asyncio.gather(*(cluster.leases() for _ in range(5)))  # five pooled connections
            await asyncio.sleep(2.5)
            gate.silence()
            with pytest.raises(Unavailable, match="has not answered within 1 s"):
                await cluster.read_lease("silent")
            assert await cluster.read_lease("silent") is None
            plane.apply(service("heard"))
            await follower.until(lambda: follower.there(Kind.SERVICE, "heard", "default"), 10)
            assert not follower.of(Outage) and len(follower.of(Replaced)) == 1

    run(scenario)


def test_an_api_that_hangs_is_noticed(plane: ControlPlane, kubeconfig: Path) -> None:
    """SIGSTOP: every connection stays, the kernel answers keep-alives, but no data arrives."""

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster, Follower(cluster, FOLLOWED) as follower:
            await follower.until(lambda: len(follower.of(Replaced)) == len(FOLLOWED))
            plane.pause_api()
            try:
                begun = time.monotonic()
                with pytest.raises(Unavailable, match="has not answered within 1 s"):
                    await cluster.write_lease(LeaseRecord("leader", "a", 4), deadline=1.0)
                assert time.monotonic() - begun < 2
                await follower.until(lambda: follower.of(Outage), 15)
            finally:
                plane.resume_api()
            await follower.until(lambda: follower.of(Restored))
            assert not follower.of(Deleted)

    run(scenario)


def test_an_outage_is_not_a_flood(plane: ControlPlane, kubeconfig: Path, tmp_path: Path) -> None:
    async def scenario() -> None:
        arrivals = 0

        async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal arrivals
            arrivals += 1
            writer.transport.abort()

        async with (
            await asyncio.start_server(count, "127.0.0.1", 0) as server,
            connected(kubeconfig_at(server.sockets[0].getsockname()[1], kubeconfig, tmp_path)) as cluster,
            Follower(cluster, FOLLOWED) as follower,
        ):
            await follower.until(lambda: follower.of(Outage))
            await asyncio.sleep(5)
            assert len(follower.of(Outage)) == 1
        # Eight kinds at once, then one at a time: 0.2, 0.4, .. s apart.
        assert arrivals <= 2 * len(FOLLOWED)

    run(scenario)


# -- status -------------------------------------------------------------------------------------------------


def condition(type_: str, status: str = "True") -> dict[str, str]:
    return {
        "type": type_,
        "status": status,
        "reason": "Because",
        "message": "It is so.",
        "lastTransitionTime": "2024-01-01T00:00:00Z",
    }


def session(state: str) -> dict[str, Any]:
    return {"peerState": {"sessionState": state, "neighborAddress": "192.0.2.254"}}


def test_two_owners_of_one_status_leave_each_other_alone(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply(PEER)

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:

            async def write(owner: str, status: dict[str, Any]) -> Obj:
                return await cluster.apply_status(Kind.BGP_PEER, "tor", "", status, owner=owner)

            await write("porterlb", {"conditions": [condition("Ready")]})
            await write("porterlb-node-a", {"nodesPeerStatus": {"node-a": session("ESTABLISHED")}})
            status = (await write("porterlb-node-b", {"nodesPeerStatus": {"node-b": session("IDLE")}}))["status"]
            assert {*status["nodesPeerStatus"]} == {"node-a", "node-b"}
            assert [each["type"] for each in status["conditions"]] == ["Ready"]

            # An owner gives up the fields that it omits; the other owners' fields stay.
            status = (await write("porterlb", {"conditions": [condition("Other")]}))["status"]
            assert [each["type"] for each in status["conditions"]] == ["Other"]
            assert status["nodesPeerStatus"]["node-a"]["peerState"]["sessionState"] == "ESTABLISHED"

            # The leader uses this to remove the fields of a vanished node: it writes in that node's name.
            status = (await write("porterlb-node-b", {}))["status"]
            assert {*status["nodesPeerStatus"]} == {"node-a"}

    run(scenario)


def test_status_edited_by_hand_is_put_right(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply(service("edited"))
    wanted = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster, Follower(cluster, [Kind.SERVICE]) as follower:
            await cluster.apply_status(Kind.SERVICE, "edited", "default", wanted, owner="porterlb")
            patch = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}})
            plane.kubectl("patch", "service", "edited", "--subresource=status", "--type=merge", "-p", patch)

            def shown() -> Any:
                found = follower.there(Kind.SERVICE, "edited", "default") or {}
                return found.get("status", {}).get("loadBalancer", {}).get("ingress", [{}])[0].get("ip")

            await follower.until(lambda: shown() == "203.0.113.9")
            back = await cluster.apply_status(Kind.SERVICE, "edited", "default", wanted, owner="porterlb")
            assert back["status"]["loadBalancer"] == wanted["loadBalancer"]
            emptied = await cluster.apply_status(Kind.SERVICE, "edited", "default", {}, owner="porterlb")
            assert not emptied["status"].get("loadBalancer")

    run(scenario)


@pytest.mark.parametrize("ip_mode", [{}, {"ipMode": "VIP"}], ids=["without ipMode", "with ipMode"])
def test_what_is_written_twice_changes_nothing(plane: ControlPlane, kubeconfig: Path, ip_mode: dict[str, str]) -> None:
    plane.apply([service("same"), EIP])
    balancer = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", **ip_mode}]}, "conditions": [condition("Serving")]}
    pool = {"occupied": False, "usage": 1, "poolSize": 16, "used": {"192.0.2.1": "default/same"}}

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            for kind, name, namespace, status in (
                (Kind.SERVICE, "same", "default", balancer),
                (Kind.EIP, "pool", "", pool),
            ):
                first = await cluster.apply_status(kind, name, namespace, status, owner="porterlb")
                second = await cluster.apply_status(kind, name, namespace, status, owner="porterlb")
                assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
                if kind is Kind.SERVICE:
                    assert second["status"]["loadBalancer"]["ingress"] == [{"ip": "192.0.2.1", "ipMode": "VIP"}]
                assert [obj["status"] for obj in await cluster.objects(kind) if obj["metadata"]["name"] == name] == [
                    second["status"]
                ]

    run(scenario)


def test_a_decision_about_an_older_version_is_refused(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply(service("versioned"))

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            decided_on = await service_of(cluster, "versioned")
            assert decided_on
            plane.kubectl("annotate", "service", "versioned", "touched=yes")
            write = {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}]}}
            version = decided_on["metadata"]["resourceVersion"]
            with pytest.raises(Conflict, match="has been modified"):
                await cluster.apply_status(
                    Kind.SERVICE, "versioned", "default", write, owner="porterlb", version=version
                )
            now = await service_of(cluster, "versioned")
            assert now and not now["status"].get("loadBalancer")
            version = now["metadata"]["resourceVersion"]
            await cluster.apply_status(Kind.SERVICE, "versioned", "default", write, owner="porterlb", version=version)

    run(scenario)


def test_the_manager_may_not_change_services(plane: ControlPlane, kubeconfig: Path) -> None:
    """The manager may change only their status. A right on Services would let a replica's token change any selector."""
    plane.apply(service("noted"))
    note = {"metadata": {"annotations": {"layer2.porter.kubesphere.io/v1alpha1": "node-a"}}}

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            with pytest.raises(Denied, match="forbidden"):
                await cluster.apply(Kind.SERVICE, "noted", "default", note, owner="porterlb")
            found = await service_of(cluster, "noted")
            assert found and not found["metadata"].get("annotations")

    run(scenario)


def test_one_field_of_a_spec_is_switched(plane: ControlPlane, kubeconfig: Path) -> None:
    """As with `porterlb mode`, with the rights of the user who runs it: required fields belong to another owner."""
    plane.apply(EIP)

    async def scenario() -> None:
        async with connected(plane.admin_kubeconfig) as cluster:
            for protocol in ("layer2", "bgp"):
                body = {"spec": {"protocol": protocol}}
                after = await cluster.apply(Kind.EIP, "pool", "", body, owner="porterlb-cli")
                assert (after["spec"]["protocol"], after["spec"]["address"]) == (protocol, EIP["spec"]["address"])
            with pytest.raises(Denied, match="Unsupported value"):
                await cluster.apply(Kind.EIP, "pool", "", {"spec": {"protocol": "ospf"}}, owner="porterlb-cli")

    run(scenario)


# -- leases -------------------------------------------------------------------------------------------------


def test_a_lease_changes_hands_by_compare_and_swap(plane: ControlPlane, kubeconfig: Path) -> None:
    async def scenario() -> None:
        async with connected(kubeconfig) as one, connected(kubeconfig) as two:
            assert await one.read_lease("swap") is None
            wanted = LeaseRecord("swap", "node-a", 4.0, annotations={"hello": "192.0.2.1:7473"})
            made = await one.write_lease(wanted)
            assert replace(made, version="", renewals=0) == wanted
            with pytest.raises(Conflict):  # both saw that the lease does not exist
                await two.write_lease(replace(wanted, holder="node-b"))
            seen = await two.read_lease("swap")
            assert seen == made

            renewed = await one.write_lease(replace(made, renewals=made.renewals + 1))
            assert renewed.renewals > made.renewals and renewed.version != made.version
            with pytest.raises(Conflict):
                await two.write_lease(replace(seen, holder="node-b", transitions=1))

            taken = await two.write_lease(replace(renewed, holder="node-b", transitions=1))
            assert (taken.holder, taken.transitions, taken.annotations) == ("node-b", 1, wanted.annotations)
            with pytest.raises(Conflict):
                await one.write_lease(renewed)

            released = await two.write_lease(replace(taken, holder="", duration=1))
            assert (released.holder, released.duration) == ("", 1)
            await two.delete_lease("swap")
            await two.delete_lease("swap")
            with pytest.raises(Conflict):
                await two.write_lease(released)
            assert await one.read_lease("swap") is None

    run(scenario)


def test_of_many_that_want_a_lease_one_gets_it(plane: ControlPlane, kubeconfig: Path) -> None:
    async def scenario() -> None:
        async with connected(kubeconfig) as one, connected(kubeconfig) as two:
            made = await one.write_lease(LeaseRecord("race", "", 4.0), deadline=5)
            for _ in range(10):
                tries = [
                    cluster.write_lease(replace(made, holder=f"{name}-{number}"), deadline=5)
                    for number in range(3)
                    for name, cluster in (("one", one), ("two", two))
                ]
                results = await asyncio.gather(*tries, return_exceptions=True)
                won = [each for each in results if isinstance(each, LeaseRecord)]
                assert len(won) == 1 and sum(isinstance(each, Conflict) for each in results) == 5
                made = won[0]

    run(scenario)


def test_a_lease_keeps_a_duration_that_is_no_whole_number(plane: ControlPlane, kubeconfig: Path) -> None:
    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            made = await cluster.write_lease(LeaseRecord("short", "a", 0.6))
            assert made.duration == 0.6 and not made.annotations
            on_the_hour = replace(made, renewals=4_102_444_800_000_000)  # no microseconds: 2100-01-01T00:00:00
            assert (await cluster.write_lease(on_the_hour)).renewals == on_the_hour.renewals
            assert "2100-01-01T00:00:00.000000Z" in plane.kubectl("get", "lease", "short", "-n", SYSTEM, "-o", "yaml")
            assert "short" in [record.name for record in await cluster.leases()]

    run(scenario)


# -- Events, the hello key, credentials ---------------------------------------------------------------------


def test_events_are_counted_and_no_flood(plane: ControlPlane, kubeconfig: Path) -> None:
    plane.apply([service("told"), EIP])

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster:
            about = await service_of(cluster, "told")
            [pool] = [obj for obj in await cluster.objects(Kind.EIP) if obj["metadata"]["name"] == "pool"]
            assert about

            async def emit(kind: Kind, obj: Obj, message: str) -> None:
                await cluster.emit(
                    kind, obj, type_="Warning", reason="NoAddress", message=message, reporter="porterlb-node-a"
                )

            for _ in range(40):
                await emit(Kind.SERVICE, about, "There is no free address.")
                await asyncio.sleep(0.05)
            await emit(Kind.EIP, pool, "All addresses are in use.")

    before = len(asked(plane))
    run(scenario)
    found = json.loads(plane.kubectl("get", "events.events.k8s.io", "-n", "default", "-o", "json"))["items"]
    ours = [event for event in found if event.get("reportingInstance") == "porterlb-node-a"]
    by_kind = {event["regarding"]["kind"]: event for event in ours}
    assert len(ours) == 2 and set(by_kind) == {"Service", "Eip"}
    assert by_kind["Service"]["series"]["count"] >= 5  # the count at the time when the last write was allowed
    assert by_kind["Service"]["note"] == "There is no free address."
    writes = [event for event in asked(plane)[before:] if event["objectRef"]["resource"] == "events"]
    assert len(writes) <= 11
    assert "There is no free address." in plane.kubectl("describe", "service", "told")


def test_the_key_of_the_hellos(plane: ControlPlane, kubeconfig: Path) -> None:
    async def scenario() -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "porterlb-hello", "namespace": SYSTEM}}
        async with connected(kubeconfig) as cluster:
            with pytest.raises(PorterError, match=r"The key of the hellos is missing: .* Make it: kubectl"):
                await cluster.hello_key()
            plane.apply({**secret, "data": {"key": base64.b64encode(b"short").decode()}})
            with pytest.raises(PorterError, match="has 5 bytes"):
                await cluster.hello_key()
            plane.apply({**secret, "data": {"key": base64.b64encode(bytes(range(32))).decode()}})
            assert await cluster.hello_key() == bytes(range(32))

    run(scenario)


def test_credentials_that_change_are_read_again(plane: ControlPlane, kubeconfig: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(kubeconfig.read_text())
    token = document["users"][0]["user"].pop("token")
    file = tmp_path / "token"
    file.write_text("expired\n")
    document["users"][0]["user"]["tokenFile"] = "token"
    path = tmp_path / "config"
    path.write_text(json.dumps(document))

    async def scenario() -> None:
        async with connected(path) as cluster:
            with pytest.raises(Denied, match="does not accept our credentials"):
                await cluster.objects(Kind.EIP)
            async with Follower(cluster, [Kind.EIP]) as follower:
                await follower.until(lambda: follower.of(Outage))
                file.write_text(token + "\n")
                await follower.until(lambda: follower.of(Restored))
            await cluster.objects(Kind.EIP)

    run(scenario)


def test_a_definition_that_is_missing_says_so_and_is_found_when_it_comes(plane: ControlPlane, kubeconfig: Path) -> None:
    definition = yaml.safe_load(crds.text("bgpconf"))
    plane.kubectl("delete", "crd", definition["metadata"]["name"])

    async def scenario() -> None:
        async with connected(kubeconfig) as cluster, Follower(cluster, [Kind.BGP_CONF, Kind.EIP]) as follower:
            await follower.until(lambda: follower.of(Outage))
            assert "Are the CRDs applied" in follower.of(Outage)[0].reason
            plane.apply(definition)
            await follower.until(lambda: follower.of(Restored))
            plane.apply({**EIP, "kind": "BgpConf", "metadata": {"name": "default"}, "spec": {"as": 65000}})
            await follower.until(lambda: follower.there(Kind.BGP_CONF, "default"))
            status = {"nodesConfStatus": {"node-a": {"as": 65000}}}
            await cluster.apply_status(Kind.BGP_CONF, "default", "", status, owner="porterlb-node-a")

    run(scenario)


def test_every_right_is_used(plane: ControlPlane) -> None:
    """A right granted by the rules that no test here has used is too much."""
    used = Counter[tuple[str, str, str]]()
    for event in asked(plane):
        if event.get("annotations", {}).get("authorization.k8s.io/decision") == "allow":
            where = event["objectRef"]
            resource = "/".join(filter(None, [where["resource"], where.get("subresource")]))
            used[(where.get("apiGroup", ""), resource, event["verb"])] += 1
    granted = {
        (group, resource, verb)
        for each in [*CLUSTER_RULES, *NAMESPACE_RULES]
        for group in each["apiGroups"]
        for resource in each["resources"]
        for verb in each["verbs"]
    }
    elsewhere = {("", "pods", "list"), ("", "pods/status", "patch")}  # tests/cluster/test_pods_status.py
    assert granted - set(used) == elsewhere


@pytest.fixture(scope="module", autouse=True)
def api_that_runs(plane: ControlPlane) -> Iterator[None]:
    yield
    plane.check()
