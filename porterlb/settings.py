"""Every setting of the manager: one home, with unit, default and reason. Impossible combinations fail at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from porterlb.core.names import NAME_RULE, is_name, is_namespace
from porterlb.errors import PorterError


@dataclass(frozen=True, slots=True)
class Settings:
    """Frozen settings of one manager. All times in seconds."""

    node: str
    """The name of the node that this replica runs on (NODE_NAME); also the replica's name."""

    cluster: str = "kube"
    """``kube``, or ``dir:PATH`` for a directory of manifests."""

    kubeconfig: str = ""
    """A kubeconfig file; empty: KUBECONFIG, then the pod's service account, then ~/.kube/config."""

    context: str = ""
    """The context of the kubeconfig; empty: its current one."""

    http_host: str = "127.0.0.1"
    http_port: int = 7472
    """Where /healthz, /readyz, /metrics and /state are served."""

    namespace: str = "porterlb-system"
    """Of the Leases, the hello key and BGP passwords: the release namespace (POD_NAMESPACE)."""

    hello_port: int = 7473
    """UDP port of the hellos, the same on all nodes."""

    hello_address: str = ""
    """Own hello address; empty: the node's first InternalIP."""

    hello_interval: float = 0.05
    """Between two hellos. Under 16 CPU hogs the worst gap measured was 63 ms at 50 ms."""

    hello_fresh: float = 0.2
    """A replica is live while its last hello is younger than this."""

    probe_interval: float = 0.05
    """Between two ARP/NDP probes of a node."""

    probe_misses: int = 3
    """So many unanswered probes in a row mean that the node is dead."""

    lease_duration: float = 4.0
    """A leader that has not renewed for so long is replaced."""

    lease_renew_deadline: float = 2.5
    """A leader that could not renew for so long stops leading by itself; shorter than the duration."""

    lease_retry: float = 0.5
    """Between two attempts to renew or to take the lease."""

    return_after: float = 10.0
    """BGP must be stable for so long before a VIP in layer2 goes back to it."""

    widen_after: float = 0.0
    """After the return to BGP, towards one next hop, so long until all next hops are announced."""

    proxy_delay: float = 1.5
    """A next hop whose endpoint has just become ready waits this long for its node's kube-proxy, which writes its rules
    at most once a second. For Services with policy Local and no health check port, while another next hop exists."""

    proxy_limit: float = 5.0
    """With a health check port (spec.healthCheckNodePort) the next hop waits for its answer, at most this long."""

    claim_services_without_class: bool = True
    """Whether LoadBalancer Services without a class and without our annotation are ours."""

    ignore_exclude_label: bool = False
    """Whether nodes with the label node.kubernetes.io/exclude-from-external-load-balancers are used all the same.
    kubeadm sets it on every control plane node, so on the only node of a small cluster."""

    gratuitous_rate: int = 2000
    """Gratuitous ARP / unsolicited NA frames a second; switches with storm control may want less."""

    silence_after: float = 10.0
    """Speakers whose manager has not given a beat for so long say goodbye and stop."""

    mark_pods_not_ready: bool = False
    """Whether the leader marks the pods of a dead node as not ready, so that no new connection is sent to them. On
    Kubernetes the chart sets it (nodeFailure.markPodsNotReady), where its admission policy bounds the right."""

    mark_again_after: float = 300.0
    """Least time between two markings of the pods of one node."""

    log_format: str = "text"
    """``text`` or ``json``."""

    def __post_init__(self) -> None:
        problem = _contradiction(self)
        if problem:
            raise PorterError(problem, exit_code=2)


def _contradiction(s: Settings) -> str:
    if not s.node:
        return "The node's name is not set. Give --node NAME or NODE_NAME."
    if not is_name(s.node):
        return f"{s.node[:60]!r} is not the name of a node: {NAME_RULE}. Give --node NAME or NODE_NAME."
    if not is_namespace(s.namespace):
        return f"{s.namespace[:60]!r} is not the name of a namespace. Give --namespace NAME or POD_NAMESPACE."
    for name in ("hello_interval", "hello_fresh", "probe_interval", "lease_duration", "lease_retry"):
        if getattr(s, name) <= 0:
            return f"{name} must be above 0."
    if s.probe_misses < 1:
        return "probe_misses must be 1 or more."
    if s.hello_fresh < 2 * s.hello_interval:
        return (
            f"hello_fresh ({s.hello_fresh} s) must be at least twice hello_interval ({s.hello_interval} s): "
            "else one lost datagram makes a live replica look dead."
        )
    if s.lease_renew_deadline >= s.lease_duration:
        return (
            f"lease_renew_deadline ({s.lease_renew_deadline} s) must be below lease_duration ({s.lease_duration} s): "
            "else an old leader still acts when the next one starts."
        )
    if s.lease_retry * 2 > s.lease_renew_deadline:
        return (
            f"lease_retry ({s.lease_retry} s) must be at most half of lease_renew_deadline "
            f"({s.lease_renew_deadline} s): else one slow answer loses the lease."
        )
    if s.return_after < 0 or s.widen_after < 0:
        return "return_after and widen_after must be 0 or more."
    if s.proxy_delay < 0 or s.proxy_limit < 0:
        return "proxy_delay and proxy_limit must be 0 or more."
    if s.mark_again_after < 0:
        return "mark_again_after must be 0 or more."
    if s.gratuitous_rate < 1:
        return "gratuitous_rate must be 1 or more."
    if s.log_format not in ("text", "json"):
        return f"log_format must be text or json, not {s.log_format!r}."
    if s.cluster != "kube" and not s.cluster.startswith("dir:"):
        return f"--cluster must be kube or dir:PATH, not {s.cluster!r}."
    return ""


PROFILES: Mapping[str, Mapping[str, float | int]] = {
    "default": {},
    "fast": {"hello_interval": 0.02, "hello_fresh": 0.06, "probe_interval": 0.02, "probe_misses": 3},
}
"""``fast``: 20 ms x 3 for probes and hellos; costs more packets, and wants nodes without CPU limits."""
