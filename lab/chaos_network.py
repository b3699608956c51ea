"""The faults of the network, the routers and other controllers that a chaos run injects.

Each function starts one fault on one node. It returns the fault's name and the function that ends the fault.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace

from lab.backend import DirBackend
from lab.cluster import Lab
from lab.netns import LabError

FOREIGN_ADDRESS = "203.0.113.99"
"""The address that another controller writes into the status of a Service (RFC 5737)."""
FOREIGN_MANAGER = "servicelb"

End = Callable[[], None]
Fault = Callable[[Lab, str, random.Random], tuple[str, End]]


def loss(lab: Lab, _node: str, chance: random.Random) -> tuple[str, End]:
    """The switch drops frames of all ports at random."""
    percent = chance.choice([1, 3, 5, 10])
    key = lab.faults.loss(percent)
    return f"loss {percent} %", lambda: lab.faults.lift(key)


def heavy_loss(lab: Lab, node: str, chance: random.Random) -> tuple[str, End]:
    """One node's cable drops frames at random."""
    key = lab.faults.loss(chance.choice([20, 30]), [node])
    return "loss 20 to 30 % on one node", lambda: lab.faults.lift(key)


def protocol_filter(lab: Lab, node: str, chance: random.Random) -> tuple[str, End]:
    """Frames of one protocol to or from one node are dropped."""
    protocol = chance.choice(["arp", "arp-request", "arp-reply", "ndp", "hello", "bgp"])
    ends = chance.choice([(node, ""), ("", node)])
    key = lab.faults.filter(protocol, *ends)
    return f"filter {protocol}", lambda: lab.faults.lift(key)


def one_way(lab: Lab, node: str, chance: random.Random) -> tuple[str, End]:
    """No frame from one node arrives at another machine. The other direction works."""
    others = [other.name for other in lab.nodes if other.name != node] + [router.name for router in lab.routers]
    key = lab.faults.filter("all", node, chance.choice(others))
    return "one-way link", lambda: lab.faults.lift(key)


def partition(lab: Lab, node: str, chance: random.Random) -> tuple[str, End]:
    """The switch splits the nodes into two groups, on the first segment or on all; the router is on either side."""
    names = [one.name for one in lab.nodes]
    size = chance.randint(1, len(names) // 2)
    side = {node, *chance.sample([name for name in names if name != node], size - 1)}
    cards = chance.choice([1, len(lab.nodes[0].nics)])
    ports = [lab.node(name).port(nic) for name in sorted(side) for nic in lab.node(name).nics[:cards]]
    if chance.random() < 0.5:
        ports += [router.port(router.nics[0]) for router in lab.routers]
    lab.net.partition(ports)
    where = "all segments" if cards > 1 else "one segment"
    return f"partition {len(names) - size}-{size} on {where}", lambda: lab.net.heal(ports)


def second_cable(lab: Lab, node: str, chance: random.Random) -> tuple[str, End]:
    """The second NIC loses its carrier, or its switch port leaves the VLAN."""
    machine = lab.node(node)
    port = machine.port(machine.nics[1])
    if chance.random() < 0.5:
        lab.net.carrier(port, False)
        return "second NIC without carrier", lambda: lab.net.carrier(port, True)
    lab.net.port_member(port, False)
    return "second NIC out of its VLAN", lambda: lab.net.port_member(port, True)


def capabilities(lab: Lab, _node: str, _chance: random.Random) -> tuple[str, End]:
    """The router stops negotiating add-path, and negotiates it again later."""

    def negotiate(add_path: bool) -> None:
        router = lab.router
        sessions = tuple(replace(session, add_path=add_path) for session in router.config.sessions)
        with contextlib.suppress(LabError, OSError):  # the daemon does not run; it reads the file when it starts
            router.reconfigure(replace(router.config, sessions=sessions))

    negotiate(False)
    return "router without add-path", lambda: negotiate(True)


def foreign_writer(lab: Lab, _node: str, chance: random.Random) -> tuple[str, End]:
    """Another controller writes its own address into the status of a Service. The product restores its own.

    It does not wait for the lock of a stopped manager: that one continues only after this fault has begun."""
    service = chance.choice(sorted(obj["metadata"]["name"] for obj in lab.backend.objects("Service")))
    try:
        write_foreign(lab, service, patience=0.0)
    except LabError:
        return "foreign writer was blocked", lambda: None
    return "foreign writer", lambda: None


def write_foreign(lab: Lab, service: str, patience: float = 30.0) -> None:
    assert isinstance(lab.backend, DirBackend)
    fields = {"loadBalancer": {"ingress": [{"ip": FOREIGN_ADDRESS}]}}
    lab.backend.write_status("Service", service, fields, FOREIGN_MANAGER, "default", patience)


FAULTS: tuple[Fault, ...] = (
    loss,
    heavy_loss,
    protocol_filter,
    one_way,
    partition,
    second_cable,
    capabilities,
    foreign_writer,
)
