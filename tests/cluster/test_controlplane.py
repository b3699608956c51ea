"""The control plane of the cluster tests: it is real, it can be broken on purpose, and it leaves nothing behind."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException

from lab.net import SEGMENT, Net
from lab.netns import Namespace
from lab.process import Process
from tests.cluster.controlplane.net import get
from tests.cluster.controlplane.objects import heartbeat, ready_node
from tests.cluster.controlplane.plane import ControlPlane
from tests.cluster.controlplane.program import PlaneError

pytestmark = pytest.mark.cluster

WIDGETS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.test.porterlb.io}
spec:
  group: test.porterlb.io
  scope: Cluster
  names: {kind: Widget, plural: widgets, singular: widget}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer}}}
          status:
            type: object
            properties:
              conditions:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [type]
                items: {type: object, required: [type], properties: {type: {type: string}, status: {type: string}}}
---
apiVersion: test.porterlb.io/v1
kind: Widget
metadata: {name: one}
spec: {size: 1}
"""

WEB = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web"},
    "spec": {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


def eventually(condition: Callable[[], object], limit: float = 60.0) -> None:
    """Waits until the condition holds; the limit is generous because machines are busy."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:.0f} s"
        time.sleep(0.1)


def client_of(kubeconfig: Path) -> client.ApiClient:
    made: client.ApiClient = config.new_client_from_config(str(kubeconfig))
    return made


def status_of(call: Callable[[], object]) -> int:
    """The HTTP status with which the API server refuses a call; 200 when it does not."""
    try:
        call()
    except ApiException as error:
        assert error.status is not None
        return int(error.status)
    return 200


def test_a_node_and_a_load_balancer_are_read_back(plane: ControlPlane) -> None:
    plane.apply(
        [
            ready_node("n1", "10.0.0.1", "fd00::1"),
            WEB | {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9"}]}}},
        ]
    )
    core = client.CoreV1Api(plane.api)
    addresses = core.read_node("n1").to_dict()["status"]["addresses"]
    assert [each["address"] for each in addresses] == ["10.0.0.1", "fd00::1"]
    service = core.read_namespaced_service("web", "default").to_dict()
    assert service["spec"]["cluster_ip"].startswith("10.96.")
    ingress = service["status"]["load_balancer"]["ingress"]
    assert [(each["ip"], each["ip_mode"]) for each in ingress] == [("192.0.2.9", "VIP")]
    assert plane.kubectl("get", "service", "web", "-o", "name") == "service/web\n"


def test_two_managers_own_one_condition_each(plane: ControlPlane) -> None:
    plane.apply(WIDGETS)
    custom = client.CustomObjectsApi(plane.api)
    for manager, kind in (("porterlb", "Ready"), ("porterlb-n1", "Reachable")):
        custom.patch_cluster_custom_object_status(
            "test.porterlb.io",
            "v1",
            "widgets",
            "one",
            {
                "apiVersion": "test.porterlb.io/v1",
                "kind": "Widget",
                "metadata": {"name": "one"},
                "status": {"conditions": [{"type": kind, "status": "True"}]},
            },
            field_manager=manager,
            force=True,
            _content_type="application/apply-patch+yaml",
        )
    widget: Any = custom.get_cluster_custom_object("test.porterlb.io", "v1", "widgets", "one")
    assert {each["type"] for each in widget["status"]["conditions"]} == {"Ready", "Reachable"}
    managers = {each["manager"]: each.get("subresource") for each in widget["metadata"]["managedFields"]}
    assert managers == {"test": None, "porterlb": "status", "porterlb-n1": "status"}


def test_a_stranger_is_denied_and_the_audit_log_says_so(plane: ControlPlane) -> None:
    kubeconfig = plane.kubeconfig_for("stranger", "elsewhere", local=True)
    with client_of(kubeconfig) as stranger:
        assert status_of(client.CoreV1Api(stranger).list_service_for_all_namespaces) == 403
    events = plane.audit_events("system:serviceaccount:elsewhere:stranger")
    assert [
        (each["verb"], each["objectRef"]["resource"], each["annotations"]["authorization.k8s.io/decision"])
        for each in events
    ] == [("list", "services", "forbid")]


def test_a_token_is_bound_to_its_pod(plane: ControlPlane) -> None:
    plane.kubeconfig_for("porterlb", "porterlb-system")  # creates the namespace and the account
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "manager-0", "namespace": "porterlb-system"},
        "spec": {"serviceAccountName": "porterlb", "containers": [{"name": "manager", "image": "none"}]},
    }
    [made] = plane.apply(pod)
    kubeconfig = plane.kubeconfig_for("porterlb", "porterlb-system", pod="manager-0", local=True)
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["sub"] == "system:serviceaccount:porterlb-system:porterlb"
    assert claims["kubernetes.io"]["pod"] == {"name": "manager-0", "uid": made["metadata"]["uid"]}
    with client_of(kubeconfig) as replica:
        assert status_of(client.CoreV1Api(replica).list_node) == 403  # it is authenticated, but it has no rights


def test_what_was_compacted_is_gone(plane: ControlPlane) -> None:
    core = client.CoreV1Api(plane.api)
    plane.apply(ready_node("n1", "10.0.0.1"))
    listed = core.list_node().to_dict()["metadata"]["resource_version"]
    plane.compact()

    def watch_from_there() -> list[object]:
        watcher: Any = watch.Watch()
        return list(watcher.stream(core.list_node, resource_version=listed, timeout_seconds=5))

    assert status_of(watch_from_there) == 410
    assert status_of(lambda: core.list_node(resource_version=listed, resource_version_match="Exact")) == 410
    assert status_of(core.list_node) == 200


def test_the_api_goes_and_comes_back_with_what_it_knew(plane: ControlPlane) -> None:
    plane.apply(ready_node("n1", "10.0.0.1"))
    port = int(plane.local_server.rsplit(":", 1)[1])
    plane.stop_api()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
    with pytest.raises(PlaneError, match="kube-apiserver is not running"):
        plane.check()
    plane.start_api()
    assert "node/n1\n" in plane.kubectl("get", "nodes", "-o", "name")


def test_a_paused_api_accepts_and_does_not_answer(plane: ControlPlane) -> None:
    plane.pause_api()
    try:
        with pytest.raises(PlaneError, match=r"[Tt]imeout|deadline"):
            plane.kubectl("get", "nodes", "--request-timeout=1s")
    finally:
        plane.resume_api()
    plane.kubectl("get", "nodes")


def test_a_start_that_fails_shows_why(tmp_path: Path) -> None:
    plane = ControlPlane(api_flags=["--no-such-flag"], directory=tmp_path / "plane")
    with pytest.raises(PlaneError, match="unknown flag: --no-such-flag"):
        plane.start()
    assert (tmp_path / "plane" / "kube-apiserver.log").exists()


def descendants(directory: str) -> list[int]:
    """The processes whose command line names the directory, except those of this test."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if directory.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # it ended in the meantime
            continue
    return found


def test_nothing_is_left_of_it() -> None:
    with ControlPlane() as plane:
        assert len(descendants(str(plane.directory))) == 2
    assert descendants(str(plane.directory)) == []
    assert not plane.directory.exists()


def test_nothing_outlives_a_test_run_that_is_killed(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time\n"
        "from tests.cluster.controlplane.plane import ControlPlane\n"
        "ControlPlane(directory=pathlib.Path(sys.argv[1])).start()\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    directory = str(tmp_path / "plane")
    checkout = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script, directory], cwd=checkout, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        try:
            assert run.stdout.readline() == b"up\n"
            assert len(descendants(directory)) == 3
        finally:
            run.send_signal(signal.SIGKILL)
    eventually(lambda: descendants(directory) == [])


@pytest.fixture
def segment() -> Iterator[tuple[Namespace, Namespace]]:
    """Two machines on one Ethernet segment: the control plane's machine, 10.7.0.1, and a node, 10.7.0.2."""
    with Net() as net:
        machines = net.namespace("control"), net.namespace("n1")
        net.plug((each, "eth0", f"02:00:00:00:00:0{i}", f"p{i}", SEGMENT) for i, each in enumerate(machines, 1))
        for i, each in enumerate(machines, 1):
            each.ip("link set lo up", f"addr add 10.7.0.{i}/24 dev eth0", "link set eth0 up")
        machines[1].ip("route add default via 10.7.0.1")  # traffic to a ClusterIP needs a route before its DNAT
        yield machines


@pytest.mark.lab
def test_a_cluster_in_namespaces_carries_a_connection(segment: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    """Scheduler, controllers and kube-proxy together: a Deployment results in a pod on a node, behind a ClusterIP."""
    control, machine = segment
    with ControlPlane(control.name, "10.7.0.1", controllers=True, scheduler=True, node_monitor_grace_period=4) as plane:
        core = client.CoreV1Api(plane.api)
        plane.apply([ready_node("n1", "10.7.0.2"), WEB])
        plane.apply(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "web"},
                "spec": {
                    "selector": {"matchLabels": {"app": "web"}},
                    "template": {
                        "metadata": {"labels": {"app": "web"}},
                        "spec": {"containers": [{"name": "web", "image": "none"}]},
                    },
                },
            }
        )

        def scheduled() -> list[Any]:
            plane.apply(heartbeat("n1"))
            pods = core.list_namespaced_pod("default", label_selector="app=web").to_dict()["items"]
            return [each for each in pods if each["spec"]["node_name"] == "n1"]

        eventually(scheduled)
        # The pod is a server in the node's namespace. This test acts as its kubelet.
        (tmp_path / "index.html").write_text("the pod\n")
        server = [sys.executable, "-IS", "-m", "http.server", "8080", "--directory", str(tmp_path)]
        web = Process("web", machine, server, tmp_path / "server.log")
        try:
            pod = scheduled()[0]["metadata"]["name"]
            address = {"podIP": "10.7.0.2", "podIPs": [{"ip": "10.7.0.2"}]}
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            core.patch_namespaced_pod_status(pod, "default", {"status": {**address, **ready}})
            slices = ["endpointslices", "-l", "kubernetes.io/service-name=web", "-o", "yaml"]
            eventually(lambda: "10.7.0.2" in plane.kubectl("get", *slices))
            plane.kube_proxy(machine.name, "n1")
            rules = machine.run(["nft", "list", "table", "ip", "kube-proxy"]).stdout
            cluster_ip = core.read_namespaced_service("web", "default").to_dict()["spec"]["cluster_ip"]
            assert f"{cluster_ip} . tcp . 80 : goto service-" in rules
            assert "dnat to 10.7.0.2:8080" in rules
            ask = HTTPConnection(cluster_ip, timeout=10)
            assert machine.call(lambda: get(ask, "/")) == "the pod\n"
        finally:
            web.close()

        def node_is_ready() -> str:
            conditions = core.read_node("n1").to_dict()["status"]["conditions"]
            return str(next(each["status"] for each in conditions if each["type"] == "Ready"))

        def kubelet_is_back() -> bool:
            plane.apply([heartbeat("n1"), ready_node("n1", "10.7.0.2")])
            return node_is_ready() == "True"

        eventually(kubelet_is_back)  # a busy machine may have stalled longer than the grace period
        eventually(lambda: node_is_ready() == "Unknown")  # no heartbeat since then
