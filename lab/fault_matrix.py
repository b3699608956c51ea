"""A table of network faults, each with conditions that must hold within a time limit, and the check of the table.

The check is the same for all faults: each Layer 2 VIP is answered with one MAC of a node, and the router has next hops
for each BGP VIP, all of them permitted nodes; or a condition of the Service or of its Eip names the cause. The check
must hold for STEADY seconds. Faults start on a running `lab.chaos.Chaos`, whose nodes have two NICs and five Services.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from lab.chaos import LAYER2, Chaos
from lab.chaos_network import write_foreign
from lab.netns import LabError
from lab.routers import Session

STEADY = 1.0  # seconds
QUESTIONS = 4  # with a loss of 10 % in each direction, all of them are lost once in 770 times
NAMES = ("node-a", "node-b", "node-c")
HEALTHY = {"BGP", "Layer2", "Ready", "Assigned", "NoOverlap", "OnSegment"}
"""Reasons of conditions that do not name a cause."""

Fault = Callable[[Chaos], AbstractContextManager[None]]


@dataclass(frozen=True)
class Case:
    """``within``: time limit in seconds. ``excluded``: nodes that must not be used, by Service. ``hops``: next hops of
    the Service `everywhere`, if they are known exactly. ``says``: a text that a condition must contain, if any."""

    name: str
    fault: Fault
    within: float = 5.0
    excluded: dict[str, frozenset[str]] = field(default_factory=dict)
    hops: frozenset[str] | None = frozenset(NAMES)
    says: str = ""


def loss(percent: int, *ports: str) -> Fault:
    @contextmanager
    def fault(chaos: Chaos) -> Iterator[None]:
        key = chaos.lab.faults.loss(percent, ports)
        try:
            yield
        finally:
            chaos.lab.faults.lift(key)

    return fault


def dropped(protocol: str, source: str = "", target: str = "") -> Fault:
    @contextmanager
    def fault(chaos: Chaos) -> Iterator[None]:
        router = chaos.lab.router.name
        ends = [router if end == "router" else end for end in (source, target)]
        key = chaos.lab.faults.filter(protocol, *ends)
        try:
            yield
        finally:
            chaos.lab.faults.lift(key)

    return fault


def second_nic(what: str) -> Fault:
    @contextmanager
    def fault(chaos: Chaos) -> Iterator[None]:
        node = chaos.lab.node("node-b")
        port = node.port(node.nics[1])
        turn = chaos.lab.net.carrier if what == "carrier" else chaos.lab.net.port_member
        turn(port, False)
        try:
            yield
        finally:
            turn(port, True)

    return fault


def router_with(change: Callable[[Session], Session]) -> Fault:
    @contextmanager
    def fault(chaos: Chaos) -> Iterator[None]:
        router, config = chaos.lab.router, chaos.lab.router.config
        router.reconfigure(replace(config, sessions=tuple(change(session) for session in config.sessions)))
        try:
            yield
        finally:
            router.reconfigure(config)

    return fault


@contextmanager
def rewriter(chaos: Chaos) -> Iterator[None]:
    """A second controller writes all Services' status repeatedly."""
    end = threading.Event()

    def work() -> None:
        while not end.wait(0.3):
            for service in chaos.addresses:
                with contextlib.suppress(Exception):
                    write_foreign(chaos.lab, service)

    thread = threading.Thread(target=work, name="rewriter", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(10)


NOT_B: dict[str, frozenset[str]] = {"second": frozenset({"node-b"})}
ANY = None

CASES = (
    Case("loss of 1 % everywhere", loss(1)),
    Case("loss of 5 % everywhere", loss(5), within=8),
    Case("loss of 10 % everywhere", loss(10), within=10, hops=ANY),
    Case("loss of 20 % at one node", loss(20, "node-b"), within=10, hops=ANY),
    Case("loss of 30 % at one node", loss(30, "node-b"), within=10, hops=ANY),
    Case("ARP to one node is dropped", dropped("arp", "", "node-b"), hops=ANY),
    Case("ARP from one node is dropped", dropped("arp", "node-b"), hops=ANY),
    Case("ARP replies are dropped from one node to another", dropped("arp-reply", "node-b", "node-c")),
    Case("NDP is dropped", dropped("ndp")),
    Case("hellos are dropped everywhere", dropped("hello"), hops=ANY, says="HelloRefused"),
    Case("hellos of one node are dropped", dropped("hello", "node-b"), hops=ANY),
    Case("BGP from one node is dropped", dropped("bgp", "node-b", "router"), within=15),
    Case("one-way link between two nodes", dropped("all", "node-b", "node-c"), hops=ANY),
    Case("one-way link from one node to the router", dropped("all", "node-b", "router"), within=15, hops=ANY),
    Case("one-way link from the router to one node", dropped("all", "router", "node-b"), within=15, hops=ANY),
    Case("second NIC without carrier", second_nic("carrier"), excluded=NOT_B),
    Case("second NIC out of its VLAN", second_nic("vlan"), excluded=NOT_B),
    Case("router without add-path", router_with(lambda s: replace(s, add_path=False)), within=15, hops=ANY),
    Case("router without graceful restart", router_with(lambda s: replace(s, graceful_restart=False)), within=15),
    Case("second controller that rewrites status", rewriter, within=12, says="writes status.loadBalancer"),
)


def wrong(chaos: Chaos, case: Case) -> list[str]:
    """A list of sentences about the current violations."""
    lab, found = chaos.lab, []
    routes = lab.router.routes()
    for service, vip in chaos.addresses.items():
        excluded = case.excluded.get(service, frozenset())
        if service in LAYER2:
            given = answered(chaos, service)
            allowed = {node.nics[LAYER2[service]].mac for node in lab.nodes if node.name not in excluded}
            right = len(given) == 1 and given <= allowed
            text = f"{vip} of {service} is answered with {sorted(given)}"
        else:
            hops = routes.get(f"{vip}/32", frozenset())
            possible = NAMES if service == "everywhere" else NAMES[:1]
            exactly = service == "everywhere" and case.hops is not None
            wanted = lab.hops(*(case.hops or ())) if exactly else lab.hops(*possible)
            right = hops == wanted if exactly else bool(hops) and hops <= wanted
            text = f"{vip} of {service} has the next hops {sorted(hops)}"
        if not right and not causes(chaos, service):
            found.append(text)
    if case.says and case.says not in said(chaos):
        found.append(f"no condition says {case.says!r}")
    return found


def answered(chaos: Chaos, service: str) -> set[str]:
    """The MACs that answer for a VIP of Layer 2. A lost request is repeated, as a host does."""
    for _ in range(QUESTIONS):
        if given := {answer.mac for answer in chaos.client(service).answers(chaos.addresses[service], 0.2)}:
            return given
    return set()


def said(chaos: Chaos) -> str:
    """All conditions of all Services and Eips, as one text."""
    backend = chaos.lab.backend
    services = [backend.status("Service", name, "default") for name in chaos.addresses]
    eips = [backend.status("Eip", obj["metadata"]["name"]) for obj in backend.objects("Eip")]
    return str([status.get("conditions") for status in (*services, *eips)])


def causes(chaos: Chaos, service: str) -> set[str]:
    """The reasons of the Service's conditions that name a cause."""
    conditions = chaos.lab.backend.status("Service", service, "default").get("conditions") or []
    return {str(c.get("reason")) for c in conditions if c.get("status") == "False"} - HEALTHY


def judge(chaos: Chaos, case: Case) -> float:
    """Starts the fault, waits until the check holds and stays true, ends the fault, and waits for recovery. Returns the
    seconds from the start of the fault until the check held. Raises LabError."""
    try:
        with case.fault(chaos):
            return _steady(chaos, case)
    finally:
        chaos.settle(foreign=False)


def _steady(chaos: Chaos, case: Case) -> float:
    begun = time.monotonic()
    since: float | None = None
    while True:
        now = time.monotonic()
        problems = wrong(chaos, case)
        since = (since if since is not None else now) if not problems else None
        if since is not None and now - since >= STEADY:
            return since - begun
        if now - begun > case.within + STEADY:
            raise LabError(f"{case.name}, after {case.within} s: {'; '.join(problems) or 'not steady'}")
