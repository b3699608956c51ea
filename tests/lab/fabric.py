"""Fabrics without IPv4 addresses: a separate link from the router to each node, or a segment with IPv6 only."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from lab import objects
from lab.node import Node
from lab.routers import Router, RouterConfig, Session
from tests.lab.product import Product

UPLINK = "fab0"
"""A node's interface to the router."""
DUAL: dict[str, Any] = {"policy": "Local", "families": ("IPv4", "IPv6")}


def port(node: Node) -> str:
    """The router's interface to a node."""
    return f"fab-{node.name.removeprefix('node-')}"


def link_local(node: Node) -> str:
    """The link-local address of a node on its link to the router."""
    return f"fe80::fa:ff:fe00:{11 + node.index:x}"


def router_link_local(node: Node) -> str:
    """The link-local address of the router on its link to a node."""
    return f"fe80::fa:ff:fe00:{101 + node.index:x}"


def link(lab: Product, router: Router) -> None:
    """Adds one cable from the router to each node, with link-local addresses only. The nodes send all traffic that is
    not for the segment through it."""
    for node in lab.nodes:
        ours, theirs = f"02:fa:00:00:00:{11 + node.index:02x}", f"02:fa:00:00:00:{101 + node.index:02x}"
        router.ns.ip(
            f"link add {port(node)} address {theirs} type veth peer name {UPLINK} address {ours} netns {node.ns.name}",
            f"link set {port(node)} up",
        )
        up = router_link_local(node)
        node.ns.ip(
            f"link set {UPLINK} up",
            f"route replace default via {up} dev {UPLINK}",
        )
        node.run(["ip", "-4", "route", "replace", "default", "via", "inet6", up, "dev", UPLINK])


def without_ipv4(lab: Product) -> None:
    """Removes every IPv4 address from the segment: nodes and routers have IPv6 addresses only. The nodes also send IPv4
    packets to the IPv6 address of the first router."""
    for machine in (*lab.nodes, *lab.routers):
        machine.ns.ip("address flush dev eth0 scope global", f"address add {machine.v6}/64 dev eth0 nodad")
    for node in lab.nodes:
        gateway = lab.router.v6
        node.ns.ip(f"route replace default via {gateway}")
        node.run(["ip", "-4", "route", "replace", "default", "via", "inet6", gateway, "dev", "eth0"])
        lab.backend.apply(objects.node(node.name, [node.v6]))


def sessions(lab: Product, *, numbered: bool = True, **options: Any) -> tuple[Session, ...]:
    """The router's sessions over the links. ``numbered``: by the link-local addresses of the nodes; otherwise by the
    interface alone."""
    return tuple(
        Session(node.name, link_local(node) if numbered else "", ("v4", "v6"), interface=port(node), **options)
        for node in lab.nodes
    )


def restart(router: Router, config: RouterConfig) -> None:
    """Starts a fresh daemon, without the previous table and sessions."""
    router.kill_daemon()
    router.config = config
    router.start_daemon()


def peer(lab: Product, name: str, conf: dict[str, Any] | None = None, **spec: Any) -> None:
    made = objects.bgp_peer(name, "", lab.router.config.asn)
    made["spec"] = {"conf": {"peerAs": lab.router.config.asn, **(conf or {})}, **spec}
    lab.backend.apply(made)


def ask(lab: Product, *words: str) -> tuple[int, Any]:
    """Runs a CLI command. Returns the exit code and the JSON."""
    backend: Any = lab.backend
    argv = [sys.executable, "-P", "-m", "porterlb", "--cluster", f"dir:{backend.folder}", *words, "-o", "json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def in_kernel(lab: Product, router: Router, vips: list[str], hops: dict[str, str]) -> bool:
    """Whether the kernel of the router has exactly these next hops for every VIP, on the right links.

    ``hops``: next hop by interface of the router.
    """
    for vip in vips:
        flag = "-6" if ":" in vip else "-4"
        rows = json.loads(router.run(["ip", "-j", flag, "route", "show", vip]).stdout or "[]")
        ways = [way for row in rows for way in row.get("nexthops", [row])]
        found = {way["dev"]: way.get("gateway") or way.get("via", {}).get("host") for way in ways}
        if found != hops:
            return False
    return True
