"""The command lines of the control plane's programs: pure functions of paths and addresses."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.controlplane.pki import Authority

ISSUER = "https://kubernetes.default.svc.cluster.local"

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    # Requests of service accounts are recorded (user, request, decision), except those of Kubernetes' own controllers.
    "rules": [
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
        {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Layout:
    """The paths of the control plane's files and its listening addresses. Ports other than `port` are on loopback."""

    directory: Path
    pki: Authority
    address: str
    """IP address at which nodes reach the API server."""
    everywhere: bool
    """Listen on every address (in its own network namespace), not on loopback only."""
    service_cidr: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    controllers_port: int
    scheduler_port: int

    @property
    def audit_log(self) -> Path:
        return self.directory / "audit.log"

    @property
    def etcd_data(self) -> Path:
        return self.directory / "etcd"


def etcd(layout: Layout) -> list[str]:
    """One member that never waits for a disk: its data need not survive the machine."""
    url, peer = f"http://127.0.0.1:{layout.etcd_port}", f"http://127.0.0.1:{layout.etcd_peer_port}"
    return [
        f"--data-dir={layout.etcd_data}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def apiserver(layout: Layout) -> list[str]:
    """RBAC, audit log, service account tokens. Writes the audit policy and the certificate."""
    ranges = [ipaddress.ip_network(each) for each in layout.service_cidr.split(",")]
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append(f"{names[-1]}.cluster.local")
    addresses = ["127.0.0.1", "::1", layout.address, *(str(each[1]) for each in ranges)]
    certificate, key = layout.pki.server("apiserver", names, addresses)
    # For requests to the kubelets: logs, exec and port-forward.
    caller, caller_key = layout.pki.client("kube-apiserver-kubelet-client", ["system:masters"])
    policy = layout.directory / "audit-policy.json"
    policy.write_text(json.dumps(AUDIT_POLICY))
    bind = "127.0.0.1"
    if layout.everywhere:
        bind = "::" if ":" in layout.address else "0.0.0.0"
    advertise = layout.address
    if ipaddress.ip_address(advertise).is_loopback:
        # The Service `kubernetes` must not point to loopback. A documentation address is used instead (RFC 5737, RFC
        # 3849).
        advertise = "192.0.2.1" if ranges[0].version == 4 else "2001:db8::1"
    return [
        f"--etcd-servers=http://127.0.0.1:{layout.etcd_port}",
        f"--bind-address={bind}",
        f"--secure-port={layout.port}",
        f"--advertise-address={advertise}",
        f"--service-cluster-ip-range={layout.service_cidr}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={layout.pki.service_account_public_key}",
        f"--service-account-signing-key-file={layout.pki.service_account_key}",
        f"--client-ca-file={layout.pki.certificate}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        "--authorization-mode=Node,RBAC",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={layout.audit_log}",
        f"--kubelet-client-certificate={caller}",
        f"--kubelet-client-key={caller_key}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged",
        "--profiling=false",
    ]


def controller_manager(layout: Layout, kubeconfig: Path, grace_period: float | None) -> list[str]:
    """`grace_period` in seconds (--node-monitor-grace-period); None keeps Kubernetes' default."""
    flags = [
        *_component(layout, "kube-controller-manager", kubeconfig, layout.controllers_port),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={layout.pki.service_account_key}",
        f"--root-ca-file={layout.pki.certificate}",
        # The default limit of 20 requests a second stretches the start of its forty controllers to 5 s.
        "--kube-api-qps=400",
        "--kube-api-burst=400",
    ]
    if grace_period is not None:
        period = min(5.0, grace_period / 4)  # Kubernetes' default is 5 s
        flags += [f"--node-monitor-grace-period={grace_period:g}s", f"--node-monitor-period={period:g}s"]
    return flags


def scheduler(layout: Layout, kubeconfig: Path) -> list[str]:
    return _component(layout, "kube-scheduler", kubeconfig, layout.scheduler_port)


def _component(layout: Layout, name: str, kubeconfig: Path, port: int) -> list[str]:
    certificate, key = layout.pki.server(name, ["localhost"], ["127.0.0.1"])
    return [
        f"--kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
    ]
