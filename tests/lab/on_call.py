"""The tools of a person on call on a node, without the API: commands with --from, the live page, and metrics."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from lab.cluster import CHECKOUT, MANAGER_HTTP
from lab.host import Host
from lab.netns import LabError

HERE = f"http://127.0.0.1:{MANAGER_HTTP}"
MOST = 1 << 22  # bytes of the first event of a page


def ask(node: Host, *arguments: str) -> tuple[int, Any]:
    """Runs a ``porterlb`` command that queries only the replica on this node. Returns the exit code and the JSON."""
    argv = [sys.executable, "-P", "-m", "porterlb", *arguments, "--from", HERE, "-o", "json"]
    done = node.run(["env", f"PYTHONPATH={CHECKOUT}", "KUBECONFIG=/nowhere", *argv], check=False)
    if not done.stdout:
        raise LabError(f"porterlb {' '.join(arguments)}: {done.stderr}")
    return done.returncode, json.loads(done.stdout)


def page(node: Host, timeout: float = 5.0) -> dict[str, Any]:
    """The initial content of the status page of the manager on this node: the first of its live events."""

    def first() -> bytes:
        with socket.create_connection(("127.0.0.1", MANAGER_HTTP), timeout) as connection:
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            text = b""
            while len(text) < MOST:
                _, begun, event = text.partition(b"event: page\ndata: ")
                if begun and b"\n\n" in event:
                    return event.partition(b"\n\n")[0]
                more = connection.recv(1 << 16)
                if not more:
                    break
                text += more
        raise LabError(f"the page of {node.name} shows nothing: {text[:200]!r}")

    found: dict[str, Any] = json.loads(node.ns.call(first))
    return found


def page_says_dead(node: Host, victim: str, seen_by: list[str]) -> bool:
    """Whether the page names a dead node, the nodes that detected it, and that its addresses moved."""
    shown = page(node)
    known = shown["nodes"][victim]
    moved = any(entry["move"] and f"because {victim} " in entry["message"] for entry in shown["history"])
    listed = any(entry["what"] == "NodeDead" and victim in entry["message"] for entry in shown["history"])
    return bool(known["dead"]) and known["deadBy"] == seen_by and moved and listed
