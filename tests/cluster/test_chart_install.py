"""The chart on a real API server: every object is accepted, and Helm's own actions install, upgrade and remove it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from tests.chart import chart
from tests.cluster.controlplane.plane import ControlPlane

pytestmark = pytest.mark.cluster

MONITORS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")


def definition(kind: str) -> dict[str, Any]:
    """A substitute for the Prometheus operator's definition: it accepts any content."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [version],
        },
    }


@pytest.fixture(scope="module")
def api(plane: ControlPlane) -> ControlPlane:
    """Adds the namespace and the kinds of the Prometheus operator."""
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": chart.NAMESPACE}})
    plane.apply([definition(kind) for kind in MONITORS])
    return plane


@pytest.fixture
def config(api: ControlPlane) -> Iterator[helm.Config]:
    with helm.Config(kubeconfig_path=api.admin_kubeconfig, namespace=chart.NAMESPACE) as opened:
        yield opened


@pytest.mark.parametrize("values", chart.MATRIX.values(), ids=chart.MATRIX)
def test_every_object_is_accepted(api: ControlPlane, values: dict[str, Any]) -> None:
    """Strict validation: a field unknown to the API is also an error."""
    objects = [*chart.rendered(values), *chart.of_helm_test(values)]
    namespaces = {obj["metadata"].get("namespace", chart.NAMESPACE) for obj in objects}
    for name in sorted(namespaces - {chart.NAMESPACE}):  # the objects of another release, e.g. Grafana's
        made = yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        api.kubectl("apply", "-f", "-", stdin=made)
    accounts = yaml.safe_dump_all([obj for obj in chart.of_helm_test(values) if obj["kind"] == "ServiceAccount"])
    for pod in (obj for obj in objects if obj["kind"] == "Pod"):
        pod["spec"].pop("runtimeClassName", None)  # the class of the test's values exists in no cluster
    text = yaml.safe_dump_all(objects)
    if accounts:
        api.kubectl("apply", "-f", "-", stdin=accounts)  # a pod is accepted only if its account exists
    try:
        answer = api.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    finally:
        if accounts:
            api.kubectl("delete", "-f", "-", stdin=accounts)
    assert len(answer.splitlines()) == len(objects)


def key(api: ControlPlane) -> str:
    secret: Any = client.CoreV1Api(api.api).read_namespaced_secret("porterlb-hello", chart.NAMESPACE)
    return str(secret.data["key"])


def profile(api: ControlPlane) -> str:
    deployment: Any = client.AppsV1Api(api.api).read_namespaced_deployment("porterlb", chart.NAMESPACE)
    values = {entry.name: entry.value for entry in deployment.spec.template.spec.containers[0].env}
    return str(values["PORTERLB_PROFILE"])


def fields_of_eip(api: ControlPlane) -> set[str]:
    path = "{.spec.versions[0].schema.openAPIV3Schema.properties.spec.properties}"
    return set(json.loads(api.kubectl("get", "crd", "eips.network.kubesphere.io", "-o", f"jsonpath={path}")))


def newer_chart(folder: Path) -> Path:
    """The chart with one more field in the definition of Eip."""
    copied = Path(shutil.copytree(chart.FOLDER, folder / "porterlb"))
    path = copied / "files" / "crds" / "eip.yaml"
    found = yaml.safe_load(path.read_text())
    spec = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"]["later"] = {"type": "string", "description": "A field of a later release."}
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    return copied


def left(api: ControlPlane) -> list[str]:
    """All objects labeled as the release's, of every kind in the chart, except those that Helm keeps."""
    kinds = (
        "deployments,daemonsets,secrets,serviceaccounts,poddisruptionbudgets,roles,rolebindings,clusterroles,"
        "clusterrolebindings,services"
    )
    selector = f"app.kubernetes.io/instance={chart.RELEASE}"
    return api.kubectl("get", kinds, "-A", "-l", selector, "-o", "name").split()


def test_installed_upgraded_rolled_back_uninstalled(api: ControlPlane, config: helm.Config, tmp_path: Path) -> None:
    installed = config.install(chart.FOLDER, chart.RELEASE)
    assert installed["status"] == "deployed"
    first = key(api)
    assert profile(api) == "default"
    eip = {"apiVersion": "network.kubesphere.io/v1alpha2", "kind": "Eip", "metadata": {"name": "pool"}}
    api.apply({**eip, "spec": {"address": "192.0.2.0/28"}})

    config.upgrade(newer_chart(tmp_path), chart.RELEASE, {"profile": "fast"})
    assert (key(api), profile(api)) == (first, "fast")
    assert "later" in fields_of_eip(api), "definitions are upgraded with the chart"

    config.rollback(chart.RELEASE)
    assert (key(api), profile(api)) == (first, "default")
    assert "later" not in fields_of_eip(api)
    assert [revision["status"] for revision in config.history(chart.RELEASE)] == [
        "superseded",
        "superseded",
        "deployed",
    ]

    config.uninstall(chart.RELEASE, wait="watcher", timeout=30)
    assert left(api) == []
    names = api.kubectl("get", "eips", "-o", "name").split()
    assert names == ["eip.network.kubesphere.io/pool"], "the user's objects stay"

    # Install once more: the remaining objects are adopted.
    config.install(chart.FOLDER, chart.RELEASE, {"hello": {"key": "a key of the user's own"}})
    assert key(api) != first
    config.uninstall(chart.RELEASE, wait="watcher", timeout=30)
    api.kubectl("delete", "eip", "pool", "--timeout=10s")
    assert left(api) == []


def test_wrong_values_change_nothing(api: ControlPlane, config: helm.Config) -> None:
    with pytest.raises(helm.HelmError) as refused:
        config.install(chart.FOLDER, "wrong", {"kind": "StatefulSet"})
    assert "'/kind': value must be one of 'Deployment', 'DaemonSet'" in str(refused.value)
    assert config.list(all_states=True) == []
    config.install(chart.FOLDER, chart.RELEASE)
    with pytest.raises(helm.HelmError) as refused:
        config.upgrade(chart.FOLDER, chart.RELEASE, {"settings": {"leaseDuration": 1}})
    assert "settings.leaseRenewDeadline (2.5 s) must be below settings.leaseDuration (1 s)" in str(refused.value)
    assert [revision["status"] for revision in config.history(chart.RELEASE)] == ["deployed"]
    config.uninstall(chart.RELEASE, wait="watcher", timeout=30)


def test_namespace_goes_without_anybodys_help(api: ControlPlane) -> None:
    """No finalizer and no webhook: in any order of removal, no object waits for a program that is gone."""
    with helm.Config(kubeconfig_path=api.admin_kubeconfig, namespace="elsewhere") as config:
        config.install(chart.FOLDER, "lb", {"crds": {"install": False}}, create_namespace=True)
        config.uninstall("lb", wait="watcher", timeout=30)
    with pytest.raises(ApiException) as missing:
        client.CoreV1Api(api.api).read_namespaced_secret("porterlb-hello", "elsewhere")
    assert missing.value.status == 404
