"""The rights of the manager's service account in tests without the chart: the chart's rules. A test compares the
two."""

from __future__ import annotations

from typing import Any

from tests.chart import chart

NAMESPACE = "porterlb-system"
ACCOUNT = "porterlb"

SECRETS = ("porterlb-hello", "router-password", "x")
"""The Secrets that the role names: the key of the hellos, and the passwords of the tests' peers."""

CLUSTER_RULES: list[dict[str, Any]] = [
    {"apiGroups": [""], "resources": ["nodes", "namespaces"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["services/status"], "verbs": ["patch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    {"apiGroups": ["network.kubesphere.io"], "resources": ["eips", "bgpconfs", "bgppeers"], "verbs": ["list", "watch"]},
    {
        "apiGroups": ["network.kubesphere.io"],
        "resources": ["eips/status", "bgpconfs/status", "bgppeers/status"],
        "verbs": ["patch"],
    },
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
    {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
]
NAMESPACE_RULES: list[dict[str, Any]] = [
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "verbs": ["get", "list", "watch", "create", "update", "delete"],
    },
    {"apiGroups": [""], "resources": ["secrets"], "resourceNames": list(SECRETS), "verbs": ["get"]},
]


def rights() -> list[dict[str, Any]]:
    """Namespace, service account, roles and bindings, and the chart's policy that restricts the right to
    pods/status."""
    subject = {"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}
    rbac = "rbac.authorization.k8s.io"
    here = {"name": ACCOUNT, "namespace": NAMESPACE}
    policy = [obj for obj in chart.rendered() if obj["kind"].startswith("ValidatingAdmissionPolicy")]
    return [
        *policy,
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": here},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": ACCOUNT}, "rules": CLUSTER_RULES},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": ACCOUNT},
            "subjects": [subject],
        },
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": here, "rules": NAMESPACE_RULES},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": here,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": ACCOUNT},
            "subjects": [subject],
        },
    ]
