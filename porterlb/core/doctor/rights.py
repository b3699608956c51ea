"""The rights that the manager needs in Kubernetes: the rules of the chart, one by one."""

from __future__ import annotations

from typing import NamedTuple


class Right(NamedTuple):
    """``resource`` with its subresource: ``services/status``. ``inside``: only in the release namespace."""

    verb: str
    group: str
    resource: str
    inside: bool = False

    def __str__(self) -> str:
        where = " in the release namespace" if self.inside else ""
        return f"{self.verb} {self.resource}{where}"


_OURS = "network.kubesphere.io"

NEEDED: tuple[Right, ...] = (
    *(Right(verb, "", name) for name in ("nodes", "namespaces", "services") for verb in ("list", "watch")),
    Right("patch", "", "services/status"),
    *(Right(verb, "discovery.k8s.io", "endpointslices") for verb in ("list", "watch")),
    *(Right(verb, _OURS, name) for name in ("eips", "bgpconfs", "bgppeers") for verb in ("list", "watch")),
    *(Right("patch", _OURS, f"{name}/status") for name in ("eips", "bgpconfs", "bgppeers")),
    *(Right(verb, "events.k8s.io", "events") for verb in ("create", "patch")),
    *(
        Right(verb, "coordination.k8s.io", "leases", True)
        for verb in ("get", "list", "watch", "create", "update", "delete")
    ),
)
"""Without the rights to pods, which only ``nodeFailure.markPodsNotReady`` needs, and without named Secrets."""
