"""All settings of the manager, with unit, default and reason. Invalid combinations fail at start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from porterlb.core.ebpf import ANSWERS, USER_SPACE
from porterlb.core.names import NAME_RULE, is_name, is_namespace
from porterlb.errors import PorterError

LOG_LEVELS = ("debug", "info", "warning", "error")

RING_LEAST, RING_MOST = 1 << 16, 1 << 28
"""Bytes: less holds only a few seconds of three nodes, more does not fit into the memory limit of a pod."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Frozen settings of one manager. All times in seconds."""

    node: str
    """Name of the node that this replica runs on (NODE_NAME). The replica has the same name."""

    cluster: str = "kube"
    """``kube``, or ``dir:PATH`` for a directory of manifests."""

    kubeconfig: str = ""
    """Path of a kubeconfig. If empty: KUBECONFIG, then the service account of the pod, then ~/.kube/config."""

    context: str = ""
    """Context of the kubeconfig. If empty: its current context."""

    http_host: str = "127.0.0.1"
    http_port: int = 7472
    """Address and port of /healthz, /readyz, /metrics and /state."""

    namespace: str = "porterlb-system"
    """Namespace of the Leases, the hello key and the BGP passwords: the release namespace (POD_NAMESPACE)."""

    hello_port: int = 7473
    """UDP port of the hellos. It must be the same on all nodes."""

    hello_address: str = ""
    """Own address for hellos. If empty: the first InternalIP of the node."""

    hello_interval: float = 0.05
    """Interval between hellos. With 16 CPU hogs, the longest measured gap was 63 ms at an interval of 50 ms."""

    hello_fresh: float = 0.2
    """A replica is alive while its last hello is younger than this."""

    probe_interval: float = 0.05
    """Interval between ARP/NDP probes of a node."""

    probe_misses: int = 3
    """Number of consecutive unanswered probes after which a node is dead."""

    lease_duration: float = 4.0
    """Time without renewal after which the leader is replaced."""

    lease_renew_deadline: float = 2.5
    """Time without renewal after which the leader stops leading. It must be shorter than the lease duration."""

    lease_retry: float = 0.5
    """Interval between attempts to renew or take the lease."""

    return_after: float = 10.0
    """Time for which BGP must be stable before a VIP returns from Layer 2 to BGP."""

    widen_after: float = 0.0
    """Time after the return to BGP for which only one next hop is announced, before all next hops are announced."""

    proxy_delay: float = 1.5
    """Time that a new next hop waits for the kube-proxy of its node after its endpoint has become ready. kube-proxy
    writes its rules at most once a second. For policy Local without a health check port, and for a node that has
    returned, once its replica is heard and its kube-proxy runs; while another next hop exists."""

    proxy_limit: float = 5.0
    """With a health check port (spec.healthCheckNodePort), a new next hop waits for its answer for at most this
    time."""

    settle_after: float = 10.0
    """Time without a change of nodes or replicas after which Layer 2 next hops are recorded, and kept from then on. Six
    times as long while a node is down, or while some node has no replica yet at a first start."""

    rebalance: str = "auto"
    """``auto``: the leader moves Layer 2 VIPs where nodes are used unevenly. ``manual``: only ``porterlb rebalance``
    does."""

    rebalance_after: float = 600.0
    """Time without a change of nodes or replicas after which VIPs are rebalanced."""

    rebalance_pace: float = 10.0
    """Interval between two moves of a rebalancing."""

    claim_services_without_class: bool = True
    """Whether PorterLB serves LoadBalancer Services that have neither a class nor its annotation."""

    ignore_exclude_label: bool = False
    """Whether nodes with the label node.kubernetes.io/exclude-from-external-load-balancers are used. kubeadm sets this
    label on every control plane node, and so on the only node of a single-node cluster."""

    drain_after: float = 10.0
    """Time for which the routes of a draining node carry the community GRACEFUL_SHUTDOWN before they are withdrawn."""

    drain_cordoned: bool = False
    """Drain every cordoned node (``kubectl cordon``), as ``porterlb drain`` does."""

    gratuitous_rate: int = 2000
    """Maximum rate of gratuitous ARP and unsolicited NA frames, in frames a second. Lower it for switches with storm
    control."""

    answers: str = USER_SPACE
    """``userspace``: a process answers ARP and NDP. ``auto``: the kernel answers where it can, by an eBPF program
    (Linux 6.6, CAP_BPF and CAP_NET_ADMIN). ``kernel``: the same, and a warning is logged where it cannot. The process
    answers whatever the kernel does not."""

    silence_after: float = 10.0
    """Time without a heartbeat from the manager after which the speakers stop."""

    mark_pods_not_ready: bool = False
    """Whether the leader marks the pods of a dead node not ready, so that they receive no new connections. On
    Kubernetes, the chart sets it (nodeFailure.markPodsNotReady) if its admission policy is enforced."""

    mark_again_after: float = 300.0
    """Minimum time between two markings of the pods of one node."""

    record: str = ""
    """File to which everything that the decisions depend on is written, with the decisions: ``porterlb replay`` reads
    it. The file of the run before is kept as FILE.1. If empty: none."""

    record_ring: int = 4194304
    """Bytes of the same that the manager and the wire process each keep in memory, for ``/record``, SIGUSR1 and
    ``porterlb doctor --bundle``. 0: none."""

    log_format: str = "text"
    """``text`` or ``json``."""

    log_level: str = "info"
    """``debug``, ``info``, ``warning`` or ``error``: less important lines are not written."""

    def __post_init__(self) -> None:
        problem = _contradiction(self)
        if problem:
            raise PorterError(problem, exit_code=2)


def _contradiction(s: Settings) -> str:
    if not s.node:
        return "The name of the node is not set. Set --node NAME or NODE_NAME."
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
    if s.drain_after < 0:
        return "drain_after must be 0 or more."
    if s.rebalance not in ("auto", "manual"):
        return f"rebalance must be auto or manual, not {s.rebalance!r}."
    for name in ("settle_after", "rebalance_after", "rebalance_pace"):
        if getattr(s, name) < 0:
            return f"{name} must be 0 or more."
    if s.rebalance_after < s.settle_after:
        return (
            f"rebalance_after ({s.rebalance_after} s) must be at least settle_after ({s.settle_after} s): "
            "else VIPs are moved while nodes still arrive."
        )
    if s.proxy_delay < 0 or s.proxy_limit < 0:
        return "proxy_delay and proxy_limit must be 0 or more."
    if s.mark_again_after < 0:
        return "mark_again_after must be 0 or more."
    if s.answers not in ANSWERS:
        return f"answers must be one of {', '.join(ANSWERS)}, not {s.answers!r}."
    if s.gratuitous_rate < 1:
        return "gratuitous_rate must be 1 or more."
    if s.record_ring != 0 and not RING_LEAST <= s.record_ring <= RING_MOST:
        return f"record_ring must be 0, or between {RING_LEAST} and {RING_MOST} bytes."
    if s.log_format not in ("text", "json"):
        return f"log_format must be text or json, not {s.log_format!r}."
    if s.log_level not in LOG_LEVELS:
        return f"log_level must be one of {', '.join(LOG_LEVELS)}, not {s.log_level!r}."
    if s.cluster != "kube" and not s.cluster.startswith("dir:"):
        return f"--cluster must be kube or dir:PATH, not {s.cluster!r}."
    return ""


PROFILES: Mapping[str, Mapping[str, float | int]] = {
    "default": {},
    "fast": {"hello_interval": 0.02, "hello_fresh": 0.06, "probe_interval": 0.02, "probe_misses": 2},
}
"""``fast``: probes and hellos every 20 ms. One missed probe starts the burst, so a node is silent after 40 to 60 ms. In
the default profile two do, and it is silent after 150 to 200 ms. It costs more packets. Nodes must not have CPU limits.
"""
