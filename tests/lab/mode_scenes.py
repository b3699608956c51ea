"""A cluster whose addresses can be served by both BGP and Layer 2, the faults of BGP, and the expected state of the
network.

Each Service has an IPv4 and an IPv6 address. Every scenario thereby covers both families. Used by the scenario tests
and by bench/mode.py.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from lab.measure import wait_until
from lab.netns import LabError
from lab.routers import Router
from lab.stream import Report
from tests.lab.product import EIP_ANNOTATION, product

POOLS: dict[str, dict[str, Any]] = {
    "standby": {"address": "10.77.0.200-10.77.0.207,fd77::2:0-fd77::2:f"},
    "quiet": {"address": "10.77.0.208-10.77.0.215,fd77::3:0-fd77::3:f", "layer2Standby": False},
    "far": {"address": "172.16.9.0/28"},
    "hosts": {
        "address": "10.77.0.216-10.77.0.219,fd77::4:0-fd77::4:f",
        "layer2Spread": "hosts",
        "layer2Standby": False,
    },
}
"""``standby``: answered on the segment in both modes; ``quiet``: only in layer2 mode; ``far``: off the segment;
``hosts``: like ``quiet``, with a separate next hop for each host."""

BOTH = ("IPv4", "IPv6")
HOLD = 3  # seconds: the minimum that BGP allows
RETURN_AFTER = 3  # seconds


class ModeStage:
    """A lab with routers, the pools above, one Service each (named as its pool), and a replica on every node.

    Args:
        cluster: manifests or kube.
        routers: by name; the outside client is behind the first one.
        options: further arguments of the managers.
    """

    def __init__(
        self,
        cluster: str = "manifests",
        routers: Iterable[str] = ("bird",),
        *,
        options: Iterable[str] = ("--return-after", str(RETURN_AFTER)),
        pools: Iterable[str] = ("standby", "quiet"),
    ) -> None:
        self._product = product(cluster, nodes=3, routers=tuple(routers))
        self._options = tuple(options)
        self._pools = tuple(pools)
        self._kubeconfig = ""
        self.vips: dict[str, list[str]] = {}

    def __enter__(self) -> ModeStage:
        self.lab = self._product.__enter__()
        try:
            self._begin()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            print(self.lab.logs())
        self._product.__exit__(None, None, None)

    def _begin(self) -> None:
        lab = self.lab
        for name in self._pools:
            lab.eip(name, **POOLS[name])
        lab.bgp_conf()
        for router in lab.routers:
            for family in ("v4", "v6"):
                lab.peer(router, family, timers={"config": {"holdTime": HOLD}})
        for name in self._pools:
            families = BOTH[:1] if name == "far" else BOTH
            lab.service(name, policy="Local", families=families, annotations={EIP_ANNOTATION: name})
        lab.manage(options=self._options)
        for name in self._pools:
            self.vips[name] = lab.wait_vips(name, 1 if name == "far" else 2, timeout=40)
        for name in self._pools:
            self.wait_mode("bgp", name, timeout=40)
        lab.wait_settled()

    # Observation

    @property
    def on_link(self) -> list[str]:
        """The addresses that both BGP and Layer 2 can serve."""
        return [vip for name, vips in self.vips.items() if name != "far" for vip in vips]

    def record(self, eip: str) -> dict[str, Any]:
        """Eip.status.mode."""
        found: dict[str, Any] = self.lab.backend.status("Eip", eip).get("mode") or {}
        return found

    def planned(self, eip: str) -> set[str]:
        """The modes that the replicas plan for the addresses of a pool."""
        running = [node.name for node in self.lab.nodes if node.on]
        return {self.lab.state(name)["vips"][vip]["mode"] for name in running for vip in self.vips[eip]}

    def routes(self, vip: str, router: Router | None = None) -> set[str]:
        """The next hops that a router has for an address, by node; empty: no route."""
        where = router or self.lab.router
        if not where.programs_kernel and not (where.process and where.process.alive):
            return set()  # its table ended with the daemon
        hops = where.next_hops().get(f"{vip}/{128 if ':' in vip else 32}", frozenset())
        return {self.lab.node(hop).name for hop in hops}

    def wait_mode(self, mode: str, eip: str = "standby", timeout: float = 25) -> float:
        """Waits until the status of a pool shows this mode for all its addresses, and no change is in progress. Returns
        the elapsed seconds."""

        def so() -> bool:
            record = self.record(eip)
            # `waiting`: next hops that are not confirmed yet
            return record.get("served") == mode and not record.get("waiting")

        return wait_until(so, timeout, f"Eip {eip} to say {mode}")[1]

    def wait_wide(self, eips: Iterable[str] = ("standby", "quiet"), timeout: float = 30) -> None:
        """Waits until every router has every node as a next hop of every address of these pools."""
        names = {node.name for node in self.lab.nodes if node.on}
        for router in self.lab.routers:
            for eip in eips:
                for vip in self.vips[eip]:
                    wait_until(
                        lambda vip=vip, router=router: self.routes(vip, router) == names,
                        timeout,
                        f"{router.name} to have {vip} wide",
                    )

    def judge(self, eip: str) -> str:
        """Compares the status of a pool with the segment and with the routers' tables. Returns the mode on which all
        agree.

        Raises LabError if the status differs from the observed state.
        """
        shown = self.record(eip).get("served", "")
        standby = eip == "standby"
        for vip in self.vips[eip]:
            tables = [self.routes(vip, router) for router in self.lab.routers]
            owners = self.lab.owners(vip) if eip != "far" else set()
            names = {node.name for node in self.lab.nodes}
            if shown == "bgp" and not any(tables):
                raise LabError(f"{vip}: bgp is shown, no router has it")
            if shown == "bgp" and bool(owners) != standby:
                raise LabError(f"{vip}: in bgp mode {owners or 'nobody'} answers, standby {standby}")
            if shown == "layer2" and (any(tables) or len(owners) != 1 or not owners <= names):
                raise LabError(f"{vip}: layer2 is shown; routes {tables}, answers of {owners}")
            if shown not in ("bgp", "layer2"):
                raise LabError(f"{vip}: the status says {shown!r}")
        return str(shown)

    def wait_judged(self, mode: str, eips: Iterable[str] = ("standby", "quiet"), timeout: float = 25) -> None:
        """Waits until status, segment and routers agree on this mode."""
        for eip in eips:
            wait_until(lambda eip=eip: self.judge(eip) == mode, timeout, f"Eip {eip} to be in {mode}")

    # Actions

    def lose(self, how: str, routers: Iterable[Router] | None = None) -> None:
        """Disables BGP: killed, ended, stopped, blocked, or shut down by the router's administrator."""
        for router in routers if routers is not None else self.lab.routers:
            if how == "shut down":
                for session in router.config.sessions:
                    router.shutdown_session(session.address, "maintenance window")
            else:
                getattr(router, _LOSE[how])()

    def give_back(self, how: str, routers: Iterable[Router] | None = None) -> None:
        for router in routers if routers is not None else self.lab.routers:
            if how == "shut down":
                for session in router.config.sessions:
                    router.enable_session(session.address)
            else:
                getattr(router, _GIVE_BACK[how])()

    def during(
        self,
        what: Callable[[], object],
        vips: Iterable[str] | None = None,
        *,
        after: float = 1.0,
        flows: int = 3,
        interval: float = 0.01,
        on_segment: bool = False,
    ) -> Report:
        """A stream to these addresses (default: all that BGP and Layer 2 can serve) before, during and ``after``
        seconds after an action."""
        sender = self.lab.segment_client if on_segment else self.lab.client
        targets = self.on_link if vips is None else list(vips)
        with sender.stream(targets, flows=flows, interval=interval) as stream:
            time.sleep(0.3)
            what()
            time.sleep(after)
            return stream.report()

    def command(self, *words: str, node: str = "node-a") -> tuple[int, str, str]:
        """Runs ``porterlb ...`` on a node as a user with all rights. Returns exit code, stdout, stderr."""
        where = self.lab.node(node)
        argv = [sys.executable, "-m", "porterlb", *words, *self._person(node)]
        done = where.run(argv, check=False, timeout=90)
        return done.returncode, done.stdout, done.stderr

    def _person(self, node: str) -> list[str]:
        plane = getattr(self.lab.backend, "plane", None)
        if plane is None:
            return self.lab.backend.manager_args(node)
        if not self._kubeconfig:  # the managers' own kubeconfig has only the rights that they need
            self._kubeconfig = str(plane.kubeconfig_as("operator", ["system:masters"]))
        return ["--cluster", "kube", "--kubeconfig", self._kubeconfig]

    def json_of(self, *words: str) -> Any:
        code, out, err = self.command(*words, "-o", "json")
        if code:
            raise LabError(f"porterlb {' '.join(words)}: {code} {err}")
        data = json.loads(out)
        return data.get("items", data)

    def metric(self, node: str, name: str) -> float:
        """The sum of a metric over its labels, or the value with the given labels; 0 if the metric does not exist."""
        code, text = self.lab.manager_http(node, "/metrics")
        whole = (f"{name} ",) if "{" in name else (f"{name} ", f"{name}{{")
        lines = [line for line in text.splitlines() if line.startswith(whole)]
        return sum(float(line.rpartition(" ")[2]) for line in lines) if code == 200 else 0.0


_LOSE = {"killed": "kill_daemon", "ended": "stop_daemon", "stopped": "pause", "blocked": "block_bgp"}
_GIVE_BACK = {"killed": "start_daemon", "ended": "start_daemon", "stopped": "resume", "blocked": "unblock_bgp"}
