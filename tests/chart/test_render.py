"""The rendered objects of the chart: the requirements of design and security, for every combination of values."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import helm_python as helm
import pytest
import yaml

from porterlb import crds
from porterlb.core import node_failure
from porterlb.edge.kube.port_forward import SELECTOR
from porterlb.settings import PROFILES, Settings
from tests.chart import chart

EVERY = pytest.mark.parametrize("values", chart.MATRIX.values(), ids=chart.MATRIX)

NOT_A_SETTING_OF_THE_CHART = {
    # The chart sets these itself, from separate values, or never.
    "node": "the downward API",
    "namespace": "the downward API",
    "cluster": "always kube",
    "kubeconfig": "always the service account",
    "context": "always the service account",
    "mark_pods_not_ready": "nodeFailure.markPodsNotReady",
    "answers": "layer2.answers",
    "rebalance": "layer2.rebalance",
    "rebalance_after": "layer2.rebalanceAfter",
    "rebalance_pace": "layer2.rebalancePace",
    "settle_after": "layer2.settleAfter",
    "http_host": "http.host",
    "http_port": "http.port",
    "hello_port": "hello.port",
    "hello_address": "the Node's InternalIP",
    "log_format": "log.format",
    "log_level": "log.level",
    "record": "never: a pod has no folder that is large enough",
    "record_ring": "recording.ring",
}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


@EVERY
def test_every_object_can_be_found_and_leaves_again(values: dict[str, Any]) -> None:
    objects = [*chart.rendered(values), *chart.of_helm_test(values)]
    for obj in objects:
        assert "finalizers" not in obj["metadata"]
        if obj["kind"] == "CustomResourceDefinition":
            assert obj["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        else:
            assert obj["metadata"]["labels"]["app.kubernetes.io/instance"] == chart.RELEASE
            assert "helm.sh/resource-policy" not in obj["metadata"].get("annotations", {})
    names = [(obj["kind"], obj["metadata"]["name"]) for obj in objects]
    assert len(names) == len(set(names))


@EVERY
def test_the_command_finds_the_pods(values: dict[str, Any]) -> None:
    (workload,) = (obj for obj in chart.rendered(values) if obj["kind"] in ("Deployment", "DaemonSet"))
    labels = workload["spec"]["template"]["metadata"]["labels"]
    assert dict(pair.split("=") for pair in SELECTOR.split(",")).items() <= labels.items()


@EVERY
def test_pod_has_no_more_rights_than_it_needs(values: dict[str, Any]) -> None:
    objects = chart.rendered(values)
    spec, security = chart.pod(objects), chart.container(objects)["securityContext"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "Default")
    assert "hostPID" not in spec and "hostIPC" not in spec
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert security["capabilities"]["drop"] == ["ALL"]
    low_port = values.get("bgp", {}).get("listenOnPrivilegedPort", False)
    in_kernel = values.get("layer2", {}).get("answers", "userspace") != "userspace"
    expected = ["NET_RAW", *(["NET_BIND_SERVICE"] if low_port else []), *(["BPF", "NET_ADMIN"] if in_kernel else [])]
    assert security["capabilities"]["add"] == expected
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert "privileged" not in security
    assert [volume["emptyDir"]["medium"] for volume in spec["volumes"]] == ["Memory"]
    (mount,) = chart.container(objects)["volumeMounts"]
    assert chart.environment(objects)["TMPDIR"] == mount["mountPath"]
    assert "cpu" not in chart.container(objects)["resources"].get("limits", {})


@EVERY
def test_the_pod_of_helm_test_is_no_replica_and_has_no_privileges(values: dict[str, Any]) -> None:
    objects = chart.of_helm_test(values)
    if not values.get("rbac", {}).get("create", True):
        assert objects == [], "the test would have no rights"
        return
    test, replica = chart.only(objects, "Pod"), chart.pod(chart.rendered(values))
    (container,) = test["spec"]["containers"]
    assert container["image"] == chart.container(chart.rendered(values))["image"]
    assert test["spec"].get("imagePullSecrets") == replica.get("imagePullSecrets")
    assert (test["spec"]["hostNetwork"], test["spec"]["dnsPolicy"]) == (True, "Default"), "no pod network is needed"
    security = container["securityContext"]
    assert (security["runAsNonRoot"], security["capabilities"]) == (True, {"drop": ["ALL"]})
    (workload,) = (obj for obj in chart.rendered(values) if obj["kind"] in ("Deployment", "DaemonSet"))
    selector = workload["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= test["metadata"]["labels"].items()
    for obj in objects:
        annotations = obj["metadata"]["annotations"]
        assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        assert (int(annotations["helm.sh/hook-weight"]) < 0) == (obj["kind"] != "Pod"), "the rights come first"
    rules = [rule for obj in objects if obj["kind"].endswith("Role") for rule in obj["rules"]]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"list", "watch", "get", "create"}
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert "secrets" not in resources and "pods/exec" not in resources


def test_deployment_as_designed() -> None:
    objects = chart.rendered()
    spec = chart.only(objects, "Deployment")["spec"]
    assert spec["replicas"] == 2
    # A node that returns after 5 s has its replica evicted as it starts: the signal must not be lost.
    assert chart.pod(objects)["containers"][0]["command"] == ["env", "--block-signal=TERM", "porterlb"]
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    (term,) = chart.pod(objects)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"] == spec["selector"]["matchLabels"]
    waits = {t["key"]: t.get("tolerationSeconds") for t in chart.pod(objects)["tolerations"]}
    assert waits == {
        "node.kubernetes.io/not-ready": 5,
        "node.kubernetes.io/unreachable": 5,
        "node-role.kubernetes.io/control-plane": None,
    }
    budget = chart.only(objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_daemonset_stays_where_it_is() -> None:
    """A DaemonSet's pods are bound to their nodes: eviction after 5 s would be useless, as would a budget."""
    objects = chart.rendered({"kind": "DaemonSet"})
    assert [obj["kind"] for obj in objects if obj["kind"] in ("Deployment", "PodDisruptionBudget")] == []
    assert [t["key"] for t in chart.pod(objects)["tolerations"]] == ["node-role.kubernetes.io/control-plane"]
    assert "affinity" not in chart.pod(objects)
    assert chart.only(objects, "DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 1


def test_definitions_are_those_of_the_program() -> None:
    """charts/porterlb/files/crds/ are copies: `cp porterlb/crds/*.yaml charts/porterlb/files/crds/`."""
    copies = {path.stem: path.read_text() for path in (chart.FOLDER / "files" / "crds").iterdir()}
    assert copies == {name: crds.text(name) for name in crds.NAMES}
    for obj in chart.rendered():
        if obj["kind"] == "CustomResourceDefinition":
            del obj["metadata"]["annotations"]
            assert obj == crds.load()[obj["spec"]["names"]["kind"]]


def test_every_setting_of_the_manager_has_a_value() -> None:
    with helm.Chart.load(chart.FOLDER) as loaded:
        schema = loaded.schema
    assert schema is not None
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert set(NOT_A_SETTING_OF_THE_CHART) <= fields
    assert set(schema["properties"]["settings"]["properties"]) == {
        camel(name) for name in fields - set(NOT_A_SETTING_OF_THE_CHART)
    }
    assert schema["properties"]["profile"]["enum"] == list(PROFILES)


def test_pods_are_marked_only_together_with_the_policy_that_bounds_the_right() -> None:
    def right(values: dict[str, Any]) -> tuple[bool, bool, bool]:
        objects = chart.rendered(values)
        rules = chart.only(objects, "ClusterRole")["rules"]
        return (
            any("pods/status" in rule["resources"] or "pods" in rule["resources"] for rule in rules),
            any(obj["kind"].startswith("ValidatingAdmissionPolicy") for obj in objects),
            chart.environment(objects)["PORTERLB_MARK_PODS_NOT_READY"] == "true",
        )

    for wanted in ("auto", True, "true"):
        assert right({"nodeFailure": {"markPodsNotReady": wanted}}) == (True, True, True)
    for wanted in (False, "false"):
        assert right({"nodeFailure": {"markPodsNotReady": wanted}}) == (False, False, False)


def test_the_policy_is_about_the_service_account_and_the_reason_that_the_manager_writes() -> None:
    objects = chart.rendered({"serviceAccount": {"name": "mine"}})
    spec = chart.only(objects, "ValidatingAdmissionPolicy")["spec"]
    (condition,) = spec["matchConditions"]
    assert condition["expression"] == 'request.userInfo.username == "system:serviceaccount:porterlb-system:mine"'
    assert spec["failurePolicy"] == "Fail"
    assert spec["validations"][-1]["expression"].count(f'reason == "{node_failure.REASON}"') == 2
    binding = chart.only(objects, "ValidatingAdmissionPolicyBinding")["spec"]
    policy = chart.only(objects, "ValidatingAdmissionPolicy")["metadata"]["name"]
    assert binding == {"policyName": policy, "validationActions": ["Deny"]}


def test_the_settings_of_layer2_reach_the_manager() -> None:
    found = chart.environment(chart.rendered(chart.MATRIX["layer2"]))
    names = ("REBALANCE", "REBALANCE_AFTER", "REBALANCE_PACE", "SETTLE_AFTER")
    assert [found[f"PORTERLB_{name}"] for name in names] == ["manual", "60", "2.5", "5"]
    found = chart.environment(chart.rendered({}))
    defaults = Settings(node="n")
    for name in names:
        default = getattr(defaults, name.lower())
        assert type(default)(found[f"PORTERLB_{name}"]) == default


def test_settings_reach_the_manager() -> None:
    found = chart.environment(chart.rendered(chart.MATRIX["all-settings"]))
    assert found["PORTERLB_HELLO_INTERVAL"] == "0.1"
    assert found["PORTERLB_PROBE_MISSES"] == "4"
    assert found["PORTERLB_WIDEN_AFTER"] == "2.5"
    assert found["PORTERLB_CLAIM_SERVICES_WITHOUT_CLASS"] == "false"
    assert found["NODE_NAME"] == {"fieldRef": {"fieldPath": "spec.nodeName"}}
    assert found["POD_NAMESPACE"] == {"fieldRef": {"fieldPath": "metadata.namespace"}}


def test_api_server_without_kube_proxy() -> None:
    assert "KUBERNETES_SERVICE_HOST" not in chart.environment(chart.rendered())
    found = chart.environment(chart.rendered(chart.MATRIX["api-server"]))
    assert (found["KUBERNETES_SERVICE_HOST"], found["KUBERNETES_SERVICE_PORT"]) == ("2001:db8::1", "443")


@pytest.mark.parametrize(
    ("values", "served", "asked"),
    [
        ({}, "127.0.0.1:7472", "127.0.0.1"),
        ({"http": {"host": "::1", "port": 80}}, "[::1]:80", "::1"),
        ({"http": {"host": "::"}}, "[::]:7472", "::1"),
        ({"metrics": {"podMonitor": {"enabled": True}}}, "0.0.0.0:7472", "127.0.0.1"),
    ],
)
def test_where_http_is_served_and_probed(values: dict[str, Any], served: str, asked: str) -> None:
    objects = chart.rendered(values)
    assert chart.environment(objects)["PORTERLB_HTTP"] == served
    manager = chart.container(objects)
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert manager[probe]["httpGet"] == {"host": asked, "port": "http", "path": path}


def test_secrets_are_read_by_name_only() -> None:
    objects = chart.rendered(chart.MATRIX["bgp"])
    rules = [rule for obj in objects if obj["kind"] in ("Role", "ClusterRole") for rule in obj["rules"]]
    (secrets,) = (rule for rule in rules if "secrets" in rule["resources"])
    assert secrets["verbs"] == ["get"]
    assert secrets["resourceNames"] == ["porterlb-hello", "router-a", "router-b"]
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_roles_for_people_are_bound_to_nobody_and_read_no_secret() -> None:
    plain, more = chart.rendered(), chart.rendered({"rbac": {"userRoles": True}})
    names = {(obj["kind"], obj["metadata"]["name"]): obj for obj in more}
    fresh = names.keys() - {(obj["kind"], obj["metadata"]["name"]) for obj in plain}
    assert {kind for kind, _ in fresh} == {"ClusterRole", "Role"} and len(fresh) == 4
    rules = [rule for key in fresh for rule in names[key]["rules"]]
    assert not [rule for rule in rules if "secrets" in rule["resources"]]
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    aggregated = {
        name: {label.rpartition("-")[2] for label in names[kind, name]["metadata"]["labels"] if "aggregate-to" in label}
        for kind, name in fresh
        if kind == "ClusterRole"
    }
    assert sorted(map(sorted, aggregated.values())) == [[], ["admin"], ["admin", "edit", "view"]]


def test_hello_key() -> None:
    made = {chart.only(chart.rendered(), "Secret")["data"]["key"] for _ in range(2)}
    assert len(made) == 2, "each first installation has a key of its own"
    assert {len(base64.b64decode(key)) for key in made} == {32}
    given = chart.only(chart.rendered(chart.MATRIX["key-given"]), "Secret")
    assert base64.b64decode(given["data"]["key"]) == b"0123456789abcdef"
    assert not [obj for obj in chart.rendered(chart.MATRIX["own-secret"]) if obj["kind"] == "Secret"]


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"kind": "deployment"}, "'/kind': value must be one of 'Deployment', 'DaemonSet'"),
    ({"replica": 3}, "additional properties 'replica' not allowed"),
    ({"replicas": "2"}, "'/replicas': got string, want integer"),
    ({"profile": "quick"}, "'/profile': value must be one of 'default', 'fast'"),
    ({"settings": {"hello_interval": 1}}, "'/settings': additional properties 'hello_interval' not allowed"),
    ({"settings": {"leaseRetry": 0}}, "'/settings/leaseRetry': exclusiveMinimum: got 0, want 0"),
    ({"hello": {"port": 70000}}, "'/hello/port': maximum: got 70,000, want 65,535"),
    ({"apiServer": {"host": "https://10.0.0.1:6443"}}, "'/apiServer/host'"),
    ({"bgp": {"passwordSecrets": ["*"]}}, "'/bgp/passwordSecrets/0'"),
    ({"settings": {"helloInterval": 0.2}}, "settings.helloFresh (0.2 s) must be at least twice settings.helloInterval"),
    ({"profile": "fast", "settings": {"helloFresh": 0.03}}, "settings.helloFresh (0.03 s) must be at least twice"),
    ({"settings": {"leaseDuration": 2}}, "settings.leaseRenewDeadline (2.5 s) must be below settings.leaseDuration"),
    ({"layer2": {"rebalanceAfter": 5}}, "layer2.rebalanceAfter (5 s) must be at least layer2.settleAfter (10 s)"),
    ({"settings": {"leaseRetry": 2}}, "settings.leaseRetry (2 s) must be at most half of settings.leaseRenewDeadline"),
    ({"hello": {"port": 7472}}, "choose two different ports"),
    ({"hello": {"key": "too short"}}, "hello.key has fewer than 16 characters: give more"),
    ({"hello": {"key": "0123456789abcdef", "createSecret": False}}, "leave one of them out"),
    ({"resources": {"limits": {"cpu": "1"}}}, "Give resources.requests.cpu instead"),
    (
        {"http": {"host": "127.0.0.1"}, "metrics": {"podMonitor": {"enabled": True}}},
        "leave http.host empty, or give 0.0.0.0 or ::",
    ),
)


@pytest.mark.parametrize(("values", "sentence"), WRONG, ids=[sentence[:40] for _, sentence in WRONG])
def test_wrong_values_are_refused_with_a_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(helm.HelmError) as refused:
        chart.templates(values)
    assert sentence in str(refused.value)
    given = values.get("hello", {}).get("key")
    assert given is None or given not in str(refused.value), "a key is nobody's to read"


def test_notes_say_what_to_do_next() -> None:
    notes = chart.templates()["NOTES.txt"]
    assert f"kubectl -n {chart.NAMESPACE} rollout status deployment/porterlb" in notes
    assert "Set apiServer.host" in notes
    # As pasted into a shell: an indented EOF would not end the text.
    examples = [part.split("\nEOF\n")[0] for part in notes.split("<<EOF\n")[1:]]
    kinds = [obj["kind"] for text in examples for obj in yaml.safe_load_all(text)]
    assert kinds == ["Eip", "BgpConf", "BgpPeer"]
    assert "nobody takes over" not in notes
    assert "nobody takes over" in chart.templates({"replicas": 1})["NOTES.txt"]
    assert "rollout status daemonset/porterlb" in chart.templates({"kind": "DaemonSet"})["NOTES.txt"]


def test_lint() -> None:
    report = helm.lint(chart.FOLDER, strict=True)
    # The only message of lint is about a missing icon.
    assert [message for message in report["messages"] if message["severity"] > 1] == []
    assert report["errors"] == []


def test_common_labels_and_annotations_are_on_every_object_but_the_definitions() -> None:
    objects = chart.rendered(chart.MATRIX["common"])
    for obj in [*objects, *chart.of_helm_test(chart.MATRIX["common"])]:
        if obj["kind"] in ("CustomResourceDefinition", "ConfigMap"):
            continue
        assert obj["metadata"]["labels"]["team"] == "net", obj["kind"]
        assert obj["metadata"]["annotations"]["owner"] == "net@example.com", obj["kind"]
    template = chart.only(objects, "Deployment")["spec"]["template"]
    assert template["metadata"]["labels"]["team"] == "net"
    assert "team" not in chart.only(objects, "Deployment")["spec"]["selector"]["matchLabels"]
    assert [one["name"] for one in template["spec"]["containers"]] == ["manager", "shipper"]
    assert template["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert chart.only(objects, "ConfigMap")["metadata"]["name"] == f"{chart.RELEASE}-extra"
