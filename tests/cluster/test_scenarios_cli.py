"""The command line on a real API: through a kubeconfig, and as a plugin of kubectl."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.measure import wait_until
from tests.cluster.scenarios import NAMES, KubeProduct, kube_product, porterlb, run

pytestmark = [pytest.mark.lab, pytest.mark.cluster]

HERE = ("node-a", "node-b")


@pytest.fixture(scope="module")
def road() -> Iterator[KubeProduct]:
    with kube_product(*HERE) as made:
        (vip,) = made.give("web", "routed")
        made.give("shop", "auto")
        made.wait_hops(vip, "node-a", "node-b", "node-c", timeout=40)
        made.wait_settled(*HERE)
        yield made


def plugin(road: KubeProduct, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`kubectl porterlb ...`: kubectl finds the plugin on PATH, and the kubeconfig in the environment."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    kubectl = str(road.plane._binaries["kubectl"])
    return run([kubectl, "porterlb", *arguments], {"PATH": path, "KUBECONFIG": str(road.plane.admin_kubeconfig)})


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("ask", [porterlb, plugin])
def test_status_and_lists(road: KubeProduct, ask: Any) -> None:
    shown = wait_until(
        lambda: text if "2 of 2 served" in (text := ask(road, "status").stdout) else "", 15, "served", 0.5
    )[0]
    assert road.wait_leader() in shown
    for kind, name in (("eip", "routed"), ("peer", "router1-v4"), ("service", "web")):
        done = ask(road, kind, "list")
        assert done.returncode == 0 and name in done.stdout, done
    services = parsed(ask(road, "service", "list", "-o", "json"))
    assert road.vips("web")[0] in json.dumps(services)


@pytest.mark.parametrize("ask", [porterlb, plugin])
def test_what_if(road: KubeProduct, ask: Any) -> None:
    done = ask(road, "plan", "--without-node", "node-c")
    assert done.returncode == 0, done.stderr
    assert road.vips("web")[0] in done.stdout and "node-c" in done.stdout


def test_mode_is_switched_and_the_wire_follows(road: KubeProduct) -> None:
    (vip,) = road.vips("shop")
    road.wait_hops(vip, "node-a", "node-b", "node-c")
    for ask, mode in ((plugin, "layer2"), (porterlb, "auto")):
        done = ask(road, "mode", mode, "--eip", "auto")
        assert done.returncode == 0, done.stderr
        assert road.get("eip", "auto")["spec"]["protocol"] == mode
        road.wait_hops(vip, *(() if mode == "layer2" else ("node-a", "node-b", "node-c")), timeout=40)


def test_restore_gives_an_eip_the_protocol_that_it_had(road: KubeProduct) -> None:
    (vip,) = road.vips("shop")
    assert porterlb(road, "mode", "layer2", "--eip", "auto").returncode == 0
    assert porterlb(road, "mode", "bgp", "--eip", "auto").returncode == 0
    done = porterlb(road, "mode", "restore", "--eip", "auto")
    assert done.returncode == 0, done.stderr
    assert road.get("eip", "auto")["spec"].get("protocol", "auto") == "auto"
    road.wait_hops(vip, *NAMES, timeout=40)


def test_a_node_is_drained_and_undrained_without_a_loss(road: KubeProduct) -> None:
    (vip,) = road.vips("web")
    road.wait_hops(vip, *NAMES, timeout=40)
    with road.client.stream(vip, flows=12, interval=0.01) as stream:
        # Without a kubelet, there is no port-forward: the command cannot query the replicas about the safety of the
        # drain.
        done = plugin(road, "drain", "node-a", "--timeout", "1")
        assert done.returncode == 1 and "No replica can be asked" in done.stderr, done
        road.wait_hops(vip, "node-b", "node-c", timeout=40)
        assert "drained" in porterlb(road, "status").stdout
        done = porterlb(road, "undrain", "node-a")
        assert done.returncode == 0, done.stderr
        road.wait_hops(vip, *NAMES, timeout=40)
        report = stream.report()
    assert report.lost == 0, report


FOREIGN = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "speaker", "namespace": "metallb-system"},
    "spec": {
        "selector": {"matchLabels": {"app": "metallb"}},
        "template": {
            "metadata": {"labels": {"app": "metallb"}},
            "spec": {"containers": [{"name": "speaker", "image": "quay.io/metallb/speaker:v0.14.9"}]},
        },
    },
}


def test_doctor_names_another_load_balancer(road: KubeProduct) -> None:
    def others() -> list[dict[str, Any]]:
        done = porterlb(road, "doctor", "-o", "json")
        assert done.returncode in (0, 3, 4), done.stderr
        findings = json.loads(done.stdout)["findings"]
        return [finding for finding in findings if "MetalLB" in json.dumps(finding)]

    assert not others()
    road.kubectl("create", "namespace", "metallb-system")
    road.kubectl("apply", "-f", "-", stdin=json.dumps(FOREIGN))
    try:
        (found,) = others()
        assert found["where"] == "metallb-system/speaker" and "MetalLB runs here" in found["what"]
        assert "loadBalancerClass" in found["do"]
    finally:
        road.kubectl("delete", "daemonset", "speaker", "-n", "metallb-system")


def test_errors_are_one_line_that_says_what_to_do(road: KubeProduct, tmp_path: Path) -> None:
    nobody = road.plane.kubeconfig_for("nobody", "default", local=True)
    for arguments, said, code in (
        (["--kubeconfig", str(tmp_path / "none"), "status"], "--kubeconfig", 1),
        (["--kubeconfig", str(nobody), "status"], "forbidden", 1),
        (["--kubeconfig", str(road.plane.admin_kubeconfig), "mode", "bgp", "--eip", "missing"], "missing", 2),
    ):
        done = run([sys.executable, "-m", "porterlb", *arguments], {})
        assert done.returncode == code, done
        assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    help_text = plugin(road, "--help").stdout
    assert help_text.startswith("Usage: kubectl porterlb"), help_text
