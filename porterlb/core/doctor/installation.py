"""The API, the CRDs, the manager's rights and pods, and other load balancers in the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Check, Finding, Severity
from porterlb.core.doctor.installed import Installation
from porterlb.core.doctor.text import grouped, some

ERROR, WARNING = Severity.ERROR, Severity.WARNING


def findings(facts: Facts) -> Iterator[Finding]:
    if facts.api:
        what, do = (
            (f"The API refuses: {facts.api}", "Apply the CRDs (porterlb crds), or use a kubeconfig with more rights.")
            if facts.refused
            else (f"The API cannot be reached: {facts.api}", "Check --cluster and --kubeconfig, and the API server.")
        )
        yield Finding(Check.API, ERROR, "API server", what, do)
    away = {node: str(state.get("outage") or "") for node, state in facts.states.items()}
    for why, nodes in grouped(away):
        do = "Check the API server, and the rights of the manager's service account. VIPs stay served meanwhile."
        yield Finding(Check.API, ERROR, f"replica on {nodes}", f"The API is away for the manager: {why}", do)
    yield from _crds(facts)
    yield from _rights(facts.installation)
    yield from _pods(facts.installation)
    yield from _others(facts)


def _crds(facts: Facts) -> Iterator[Finding]:
    apply = "Apply the CRDs of this release: porterlb crds | kubectl apply --server-side -f -"
    for kind, theirs in sorted(facts.installation.schemas.items()):
        if theirs is None:
            yield Finding(Check.CRDS, ERROR, f"CRD {kind}", f"The API does not know the kind {kind}.", apply)
            continue
        absent = missing_fields(facts.schemas.get(kind, {}), theirs)
        if absent:
            what = f"The CRD is older than this release: it drops {some(absent)}."
            yield Finding(Check.CRDS, ERROR, f"CRD {kind}", what, apply)


def missing_fields(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> list[str]:
    """The paths of properties that our schema has and the other one does not, the outermost ones only."""
    if theirs.get("x-kubernetes-preserve-unknown-fields"):
        return []
    found = []
    known = theirs.get("properties") or {}
    for name, schema in (ours.get("properties") or {}).items():
        where = f"{path}.{name}".strip(".")
        if name in known:
            found += missing_fields(schema, known[name], where)
        elif known or path:
            found.append(where)
    for part in ("items", "additionalProperties"):
        if isinstance(ours.get(part), Mapping) and isinstance(theirs.get(part), Mapping):
            found += missing_fields(ours[part], theirs[part], f"{path}[]")
    return found


def _rights(installation: Installation) -> Iterator[Finding]:
    absent = [str(right) for right, allowed in installation.rights.items() if not allowed]
    if absent:
        what = f"The manager's service account may not {some(absent)}."
        do = "Set rbac.create=true in the chart's values, or give the account the ClusterRole and Role of the chart."
        yield Finding(Check.RIGHTS, ERROR, "service account", what, do)


def _pods(installation: Installation) -> Iterator[Finding]:
    for pod in installation.pods:
        if pod.ready:
            continue
        why = f" ({pod.why})" if pod.why else ""
        words = f" Its last words: {pod.message}" if pod.message else ""
        what = f"The manager is not ready{why}.{words}"
        do = f"See kubectl logs {pod.name}, with --previous where it was restarted."
        if "Cannot serve HTTP" in pod.message:  # written by our own process that has exited; no other trace is left
            do = "Another process has the port (MetalLB's speaker uses 7472 too): set http.port in the chart's values."
        yield Finding(Check.MANAGERS, ERROR, f"pod {pod.name} on {pod.node or 'no node'}", what, do)


_KNOWN: Mapping[str, tuple[str, ...]] = {
    "MetalLB": ("metallb/speaker", "metallb/controller", "metallb-speaker", "metallb-controller"),
    "kube-vip": ("kube-vip/kube-vip",),
    "k3s ServiceLB": ("klipper-lb",),
    "OpenELB": ("kubesphere/openelb", "openelb/openelb"),
    "PureLB": ("purelb/",),
}
"""Other load balancers by parts of their images' names."""

_CILIUM = "kube-system/cilium-config"
_CILIUM_SWITCHES = ("enable-l2-announcements", "enable-bgp-control-plane")


_TOGETHER = timedelta(seconds=3)
"""PorterLB writes its addresses again within this time when another load balancer has replaced them."""


def active_writers(managed: Any) -> tuple[str, ...]:
    """The other field managers of a Service's addresses that have written since PorterLB did, or shortly before.

    An older one is the load balancer from which the Service has come: its name stays in managedFields, because the
    addresses are the same.
    """
    entries = managed if isinstance(managed, list) else []
    names = [str(one.get("manager")) for one in entries if isinstance(one, Mapping) and _is_active(one)]
    return tuple(dict.fromkeys(names))


def _is_active(entry: Mapping[str, Any]) -> bool:
    try:
        theirs, ours = (datetime.fromisoformat(str(entry.get(key) or "")) for key in ("time", "ours"))
        return theirs >= ours - _TOGETHER
    except (ValueError, TypeError):  # a time is not known, or has no time zone
        return True


def _others(facts: Facts) -> Iterator[Finding]:
    for manager, services in grouped({str(key): ", ".join(names) for key, names in facts.writers.items()}):
        what = f"{manager} writes the addresses of this Service too: two load balancers claim it."
        do = "Set spec.loadBalancerClass of the Service to the class of one of them, or stop the other one."
        yield Finding(Check.OTHERS, ERROR, f"Service {services}", what, do)
    do = "Give each load balancer its own loadBalancerClass, and set claimServicesWithoutClass=false for one of them."
    for name, where in sorted(_present(facts.installation)):
        yield Finding(Check.OTHERS, WARNING, where, f"{name} runs here, and may claim the same Services.", do)


def _present(installation: Installation) -> Iterable[tuple[str, str]]:
    for name, parts in _KNOWN.items():
        for workload in installation.workloads:
            if any(part in image for image in workload.images for part in parts):
                yield name, f"{workload.namespace}/{workload.name}"
                break
    cilium = installation.settings.get(_CILIUM, {})
    if on := [switch for switch in _CILIUM_SWITCHES if cilium.get(switch) == "true"]:
        yield f"Cilium ({', '.join(on)})", _CILIUM
