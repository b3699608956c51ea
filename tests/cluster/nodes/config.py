"""Configuration of a node's programs, as values: pure functions of paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAUSE = "localhost/lab/pause:1"
"""The container that holds a pod's namespaces."""

SOCKET = "/run/containerd/containerd.sock"
PLUGINS = "/usr/lib/cni"
"""The folder of Debian's containernetworking-plugins."""

HEARTBEAT = "2s"


def containerd(cni: Path) -> str:
    """The text of config.toml. ``cni``: folder of the network configuration."""
    unused = ("snapshotter.v1.aufs", "snapshotter.v1.btrfs", "snapshotter.v1.devmapper", "snapshotter.v1.zfs")
    tracing = ("tracing.processor.v1.otlp", "internal.v1.tracing")
    disabled = ", ".join(f'"io.containerd.{name}"' for name in (*unused, *tracing))
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [{disabled}]
[grpc]
address = "{SOCKET}"
[{cri}]
sandbox_image = "{PAUSE}"
disable_apparmor = true
# Without CAP_SYS_RESOURCE no score below our own can be set, and every container would fail.
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{PLUGINS}"
conf_dir = "{cni}"
[{cri}.containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[{cri}.containerd.runtimes.runc.options]
BinaryName = "runc"
SystemdCgroup = false
"""


def network(ranges: Sequence[str]) -> dict[str, Any]:
    """A bridge for the pods of the node. Pods of other nodes are reached by the lab's routes."""
    ipam = {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": each}] for each in ranges]}
    bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True, "ipam": ipam}
    return {"cniVersion": "0.4.0", "name": "lab", "plugins": [bridge]}


def kubelet(authority: Path, resolver: Path) -> dict[str, Any]:
    """KubeletConfiguration. ``authority``: the CA certificate that signed the API server's."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(authority)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        # The nodes share this machine's disk and memory. Their use does not reflect the load of one node.
        "evictionHard": {
            "memory.available": "50Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": "/var/lib/kubelet/plugins",
        "resolvConf": str(resolver),
        "clusterDomain": "cluster.local",
        # In tests, a node is NotReady after 4 s instead of 50 s.
        "nodeLeaseDurationSeconds": 4,
        "nodeStatusUpdateFrequency": HEARTBEAT,
    }


def kubelet_command(program: Path, folder: Path, name: str, addresses: Sequence[str]) -> list[str]:
    return [
        str(program),
        f"--config={folder / 'kubelet.json'}",
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--hostname-override={name}",
        f"--node-ip={','.join(addresses)}",
    ]
