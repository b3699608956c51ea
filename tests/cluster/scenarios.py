"""Shared code of the scenarios with complete managers on a real control plane."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from lab.process import Process
from lab.stream import Report
from tests.cluster.backend import KubeBackend
from tests.cluster.rights import ACCOUNT, NAMESPACE
from tests.lab.product import Product

if TYPE_CHECKING:
    from tests.cluster.whole import Whole

USER = f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}"
NAMES = ("node-a", "node-b", "node-c")
CONTROLLERS = "--controllers=namespace-controller,serviceaccount-controller"
"""These controllers delete the contents of a deleted namespace. The node controllers would need kubelets."""

OUTAGE = float(os.environ.get("PORTERLB_TEST_OUTAGE", "20"))
"""Duration of an API server outage in the tests, in seconds. The documented guarantee is two minutes:
PORTERLB_TEST_OUTAGE=120."""


class KubeProduct(Product):
    """A Product whose cluster is a real control plane."""

    backend: KubeBackend

    @property
    def plane(self) -> Any:
        return self.backend.plane

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.backend.plane.kubectl(*arguments, stdin=stdin)

    def get(self, *what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", *what, "-o", "json"))
        return found

    def patch(self, kind: str, name: str, body: Mapping[str, Any], *more: str) -> None:
        self.backend.patch(kind, name, body, *more)

    def readiness(self, node: str) -> tuple[int, str]:
        return self.manager_http(node, "/readyz")

    def all_logs(self) -> str:
        """The logs of all managers, including those of earlier starts."""
        folder = self.net.folder / "logs"
        return "\n".join(path.read_text(errors="replace") for path in sorted(folder.glob("*-manager.log")))

    def healthy(self) -> None:
        """Checks that no manager crashed, and that no request was permanently refused (an API server that has just
        started refuses requests)."""
        assert "Traceback" not in self.all_logs()
        decisions: dict[str, set[tuple[str, ...]]] = {"allow": set(), "forbid": set()}
        for event in self.backend.plane.audit_events(USER):
            about = event.get("objectRef") or {}
            what = tuple(about.get(key, "") for key in ("apiGroup", "resource", "subresource"))
            decision = (event.get("annotations") or {}).get("authorization.k8s.io/decision", "allow")
            decisions[decision].add((event["verb"], *what))
        assert not decisions["forbid"] - decisions["allow"], decisions["forbid"]

    def manager(self, node: str) -> Process:
        """The newest manager of a node, also after a power-on."""
        return next(p for p in reversed(self.node(node).processes) if p.name == f"{node}/manager")

    def running(self, *nodes: str) -> dict[str, int]:
        """The process IDs of the managers, which must be alive. Equal IDs later mean that no manager was restarted."""
        found = {}
        for name in nodes or NAMES:
            process = self.manager(name)
            assert process.alive, f"{name} has ended with {process.returncode}:\n{process.output()[-2000:]}"
            found[name] = process.pid
        return found


@contextmanager
def kube_product(*nodes: str, controllers: bool = False, **options: Any) -> Iterator[KubeProduct]:
    """Three nodes, BIRD, pools and peer; managers on these nodes (default: all)."""
    more: dict[str, Any] = {"controllers": True, "controller_flags": [CONTROLLERS]} if controllers else {}
    arguments = {"nodes": 3, "routers": ["bird"], "proxy_interval": 0.2, **options}
    with KubeProduct(backend=partial(KubeBackend, **more), **arguments) as made:
        made.prepare()
        made.manage(*nodes)
        try:
            yield made
        finally:
            print(made.logs())


def run(argv: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a user's command, with these variables added to the environment."""
    return subprocess.run(
        argv, env={**os.environ, **environment}, text=True, capture_output=True, timeout=120, check=False
    )


def porterlb(road: KubeProduct | Whole, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line outside the cluster: it reaches API server and replicas only through the kubeconfig of its
    option."""
    kubeconfig = str(road.backend.plane.admin_kubeconfig)
    argv = [sys.executable, "-m", "porterlb", "--kubeconfig", kubeconfig, *arguments]
    return run(argv, {"KUBECONFIG": "/nowhere"})


def writes(events: Iterable[Mapping[str, Any]]) -> list[tuple[float, str, str, str]]:
    """(time, the node's address, resource, name) of every status that a leader wrote; time in seconds since 1970."""
    found = []
    for event in events:
        about = event.get("objectRef") or {}
        by_leader = "fieldManager=porterlb&" in event["requestURI"]
        written = event["verb"] == "patch" and (event.get("responseStatus") or {}).get("code", 500) < 300
        if written and by_leader and about.get("subresource") == "status":
            found.append((at(event), event["sourceIPs"][0], about["resource"], about["name"]))
    return found


def at(event: Mapping[str, Any]) -> float:
    """The time at which the API server received the request."""
    return datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp()


def gap_of_a_node_that_dies(road: KubeProduct, vip: str, victim: str) -> Report:
    """Measures a stream through a VIP while a node loses its power. The node stays off."""
    rest = [name for name in NAMES if name != victim]
    with road.client.stream(vip, flows=24, interval=0.005) as stream:
        time.sleep(0.3)
        road.wait_hops(vip, *NAMES)
        road.node(victim).power_off()
        road.wait_hops(vip, *rest, timeout=8)
        time.sleep(0.3)
        return stream.report()
