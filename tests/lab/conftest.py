"""Fixtures of the lab's own tests besides the lab: a BGP speaker with fixed routes, ExaBGP, on a node."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Generator, Iterable
from typing import Any

import pytest

from lab.node import Node
from lab.process import Process
from lab.routers import NODES_AS, Router


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Waits for Kubernetes' programs before the test's time limit begins. Another lane may be building them."""
    if item.get_closest_marker("cluster"):
        from tests.cluster.controlplane.build import BuildError, ensure_binaries  # noqa: PLC0415

        with contextlib.suppress(BuildError):  # the test reports the error
            ensure_binaries()
    return (yield)


class StaticSpeaker:
    """ExaBGP on a node: it announces fixed routes to one router and records the messages that it receives.

    Args:
        routes: ExaBGP's text after ``route``, e.g. ``10.99.0.1/32 next-hop 10.77.0.11``.
        over: the family of the session.
        families: ExaBGP's names of the exchanged families.
        options: further lines of the neighbor's configuration.
        port: TCP port of the router, when the speaker connects.
        listen: TCP port on which the speaker waits for the router, instead of connecting.
    """

    def __init__(
        self,
        node: Node,
        router: Router,
        routes: Iterable[str] = (),
        *,
        over: str = "v4",
        families: Iterable[str] = ("ipv4 unicast",),
        asn: int = NODES_AS,
        add_path: bool = False,
        options: Iterable[str] = (),
        port: int = 179,
        listen: int = 0,
    ) -> None:
        own, peer = (node.v6, router.v6) if over == "v6" else (node.v4, router.v4)
        lines = [
            f"router-id {node.v4};",
            f"local-address {own};",
            f"local-as {asn};",
            f"peer-as {router.config.asn};",
            "hold-time 9;",
            f"capability {{ route-refresh enable; {'add-path send;' if add_path else ''} }}",
            "family { " + " ".join(f"{family};" for family in families) + " }",
            "api { processes [ heard ]; neighbor-changes; receive { parsed; update; notification; } }",
            f"passive true; listen {listen};" if listen else f"connect {port};",
            *options,
            "static { " + " ".join(f"route {route};" for route in routes) + " }",
        ]
        folder = node.net.folder / f"exabgp-{node.name}-{over}"
        folder.mkdir()
        self._heard = folder / "heard.json"
        writer = folder / "writer"
        writer.write_text(f"#!/bin/sh\ncat >>{self._heard}\n")  # no exec: ExaBGP ends when stdout is closed
        writer.chmod(0o755)
        config = folder / "exabgp.conf"
        config.write_text(
            f"process heard {{ run {writer}; encoder json; }}\nneighbor {peer} {{\n  " + "\n  ".join(lines) + "\n}\n"
        )
        environment = {
            "exabgp_api_cli": "false",
            "exabgp_api_ack": "false",
            "exabgp_log_level": "WARNING",
            "exabgp_daemon_user": "root",
            "exabgp_tcp_attempts": "0",
            **({"exabgp_tcp_bind": own, "exabgp_tcp_port": str(listen)} if listen else {}),
        }
        argv = [sys.executable, "-m", "exabgp", "server", str(config)]
        self.process: Process = node.start(f"exabgp-{over}", argv, environment)

    def heard(self, kind: str) -> list[dict[str, Any]]:
        """The received messages of one type: update, notification, state."""
        lines = self._heard.read_text().splitlines() if self._heard.exists() else []
        said = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [message["neighbor"] for message in said if message["type"] == kind]

    def prefixes(self) -> set[str]:
        """The prefixes that the router has announced to it."""
        found = set()
        for neighbor in self.heard("update"):
            for hops in neighbor["message"].get("update", {}).get("announce", {}).values():
                for routes in hops.values():
                    found |= {route["nlri"] for route in routes if isinstance(route, dict)}
        return found


@pytest.fixture(scope="module", params=["manifests", pytest.param("kube", marks=pytest.mark.cluster)])
def cluster(request: pytest.FixtureRequest) -> str:
    """The kind of cluster that a scenario runs on: the same test code for both."""
    return str(request.param)
