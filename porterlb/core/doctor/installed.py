"""The installed components of a Kubernetes cluster that the findings need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porterlb.core.doctor.rights import Right


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of the manager. ``why``: the reason in the status of its container (``CrashLoopBackOff``).
    ``message``: the last output of the container that ended last."""

    name: str
    node: str
    ready: bool
    why: str = ""
    message: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """Any Deployment or DaemonSet."""

    namespace: str
    name: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KubeProxy:
    """The configuration of kube-proxy. ``mode`` empty: the default."""

    mode: str = ""
    strict_arp: bool = False


@dataclass(frozen=True, slots=True)
class Installation:
    """The installed components of the cluster; empty for a directory of manifests.

    ``schemas``: the OpenAPI schema of each of our kinds as in the API, None: there is no such CRD. ``rights``:
    whether the manager has each right. ``settings``: of other components, by ConfigMap (``kube-system/cilium-config``).
    ``unread``: sources that could not be read, and why: their checks were omitted.
    """

    schemas: Mapping[str, Mapping[str, Any] | None] = field(default_factory=dict)
    rights: Mapping[Right, bool] = field(default_factory=dict)
    pods: tuple[Pod, ...] = ()
    workloads: tuple[Workload, ...] = ()
    kube_proxy: KubeProxy | None = None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
