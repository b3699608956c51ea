"""kube-proxy for a node of a lab: in nftables mode, in the node's network namespace."""

from __future__ import annotations

from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path

from lab.netns import Namespace
from tests.cluster.controlplane.net import get
from tests.cluster.controlplane.program import Program

HEALTH_PORT = 10256
"""On all addresses, as is kube-proxy's default."""
METRICS_PORT = 10249
"""On loopback. Each node is a network namespace, in which the default ports are free."""


def arguments(node: str, kubeconfig: Path) -> list[str]:
    """The command line of a node's kube-proxy, without the program."""
    return [
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node}",
        "--proxy-mode=nftables",
        f"--healthz-bind-address=0.0.0.0:{HEALTH_PORT}",
        f"--metrics-bind-address=127.0.0.1:{METRICS_PORT}",
        # The conntrack table belongs to the whole machine. A test must not change its limits.
        "--conntrack-max-per-core=0",
        "--conntrack-min=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def kube_proxy(
    program: Path, netns: str, node: str, kubeconfig: Path, *, log: Path, flags: Sequence[str] = ()
) -> Program:
    """Starts one kube-proxy that programs the Services for `node` into `netns`; `stop()` ends it.

    Returns once it has programmed the existing Services. Raises PlaneError when it ends first. It needs the `nft`
    program, and reads the node's addresses from its Node object. Its rules stay in the namespace after its end, as on a
    real node.
    """
    argv = [program, *arguments(node, kubeconfig), *flags]
    namespace = Namespace(netns)
    proxy = Program(f"kube-proxy of {node}", argv, log, namespace)
    proxy.start()
    try:
        proxy.wait_until(lambda: namespace.call(_has_programmed))
    except BaseException:
        proxy.stop()
        raise
    return proxy


def _has_programmed() -> bool:
    """Whether each address family has been programmed once. The health endpoint does not show this: it is good from the
    start."""
    metrics = get(HTTPConnection("127.0.0.1", METRICS_PORT, timeout=5), "/metrics") or ""
    families = ["IPv4", *(["IPv6"] if Path("/proc/net/if_inet6").exists() else [])]  # the families of the kernel
    done = 'kubeproxy_sync_proxy_rules_last_timestamp_seconds{{ip_family="{}"}}'
    return all(done.format(family) in metrics for family in families)
