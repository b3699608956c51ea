"""Socket helpers for the control plane: free ports, and short HTTP requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from typing import Any


def free_ports(count: int) -> list[int]:
    """Free ports of loopback. All are held open at once, which guarantees that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def can_connect(port: int) -> bool:
    """Whether a program listens on this port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def url(address: str, port: int) -> str:
    """An https URL. IPv6 addresses are put in brackets (RFC 3986, 3.2.2)."""
    return f"https://[{address}]:{port}" if ":" in address else f"https://{address}:{port}"


def get(connection: http.client.HTTPConnection, path: str) -> str | None:
    """The body of the response to a GET; None without a response, or if its status is not 200."""
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return text if answer.status == 200 else None


def post(connection: http.client.HTTPConnection, path: str, body: Mapping[str, Any]) -> tuple[int, str]:
    """Status and text of the response to a JSON POST."""
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
