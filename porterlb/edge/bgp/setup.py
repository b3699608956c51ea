"""The configuration of ExaBGP for a wanted set: who is in it, who is kept out and why, and its file."""

from __future__ import annotations

import base64
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from porterlb.core import exabgp_text as text
from porterlb.core.desired import DesiredBgp, Neighbor
from porterlb.core.model import Address
from porterlb.edge.bgp.process import folder

API_SOCKET = "api.sock"
"""Where the API process connects to, in the run directory."""


@dataclass(frozen=True, slots=True)
class Setup:
    """``neighbors``: configured, by peer name. ``refused``: kept out, with a sentence."""

    neighbors: Mapping[str, Neighbor] = field(default_factory=dict)
    listen: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    def text(self, run_dir: Path, silence_after: float) -> str:
        run = [sys.executable, "-IS", str(folder() / "api.py"), str(run_dir / API_SOCKET), str(silence_after)]
        return text.configuration(self.neighbors.values(), run, self.listen)

    def secrets(self) -> set[str]:
        """What must not be written anywhere but into the configuration."""
        passwords = {n.password for n in self.neighbors.values() if n.password}
        return passwords | {base64.b64encode(password.encode()).decode() for password in passwords}


def arrange(wanted: DesiredBgp) -> Setup:
    """Sorts the wanted neighbors, and finds the local addresses that listening needs.

    ExaBGP finds the local address of a session that it opens by itself, but cannot listen without knowing it.
    """
    refused = text.refused(wanted.neighbors)
    neighbors: dict[str, Neighbor] = {}
    listen: dict[str, int] = {}
    for name, neighbor in wanted.neighbors.items():
        if neighbor.admin_down or name in refused:
            continue
        port = wanted.listen_port or (text.BGP_PORT if neighbor.passive else 0)
        local = neighbor.local_address
        if port and local is None:
            local = source_address(neighbor.address)
        allowed = not wanted.listen_addresses or local in wanted.listen_addresses
        if port and local is not None and allowed:
            neighbors[name] = replace(neighbor, local_address=local)
            listen[name] = port
        elif not neighbor.passive:
            neighbors[name] = neighbor
        elif local is None:
            refused[name] = f"This side is passive, and there is no route to {neighbor.address} yet to listen on."
        else:
            refused[name] = f"This side is passive, and {local} is not one of the listenAddresses of BgpConf."
    return Setup(neighbors, listen, refused)


def source_address(peer: Address) -> Address | None:
    """The local address that the kernel would use towards a peer; None without a route. Sends nothing."""
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(peer), text.BGP_PORT))
            return ip_address(str(probe.getsockname()[0]).partition("%")[0])
        except OSError:
            return None


def write(content: str, path: Path) -> None:
    """Writes a file that nobody else can read: whole, or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
    new.replace(path)
