"""The text of exabgp.conf."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

from porterlb.core.bgp.rules import BGP_PORT, GTSM_TTL
from porterlb.core.desired import SessionConfig
from porterlb.core.exabgp_text.words import PROCESS, Unspeakable
from porterlb.core.scope import scope_of, unscoped


def configuration(neighbors: Iterable[SessionConfig], run: Sequence[str], listen: Mapping[str, int]) -> str:
    """The text of exabgp.conf. It may contain passwords: write it with mode 0600.

    Args:
        neighbors: the neighbors to configure, with distinct addresses.
        run: the API process, argv; the program as an absolute path.
        listen: TCP port to listen on, by peer name; such a neighbor must have a local address.
    """
    words = " ".join(_quoted(word) for word in run)
    parts = [f"process {PROCESS} {{\n    run {words};\n    encoder json;\n}}\n"]
    for neighbor in sorted(neighbors, key=lambda n: (n.address.version, n.address)):
        parts.append(_neighbor(neighbor, listen.get(neighbor.peer, 0)))
    return "\n".join(parts)


def _neighbor(n: SessionConfig, listen: int) -> str:
    if listen and n.local_address is None:
        raise Unspeakable(f"BgpPeer {n.peer} cannot be listened for without a local address.")
    lines = [
        f"router-id {n.router_id};",
        f"local-address {n.local_address if n.local_address is not None else 'auto'};",
        f"local-as {n.local_as};",
        f"peer-as {n.peer_as};",
        f"hold-time {n.hold_time};",
    ]
    if scope := scope_of(n.address):
        lines.append(f"source-interface {scope};")
    if n.remote_port != BGP_PORT:
        lines.append(f"connect {n.remote_port};")
    if n.passive:
        lines.append("passive true;")
    if listen:
        lines.append(f"listen {listen};")
    ttl = GTSM_TTL if n.minimum_ttl else n.multihop_ttl
    for name, value in (
        ("keepalive", n.keepalive),
        ("connect-retry", n.connect_retry),
        ("outgoing-ttl", ttl),
        ("incoming-ttl", n.minimum_ttl),
    ):
        if value:
            lines.append(f"{name} {value};")
    if n.password:
        # Base64, because ExaBGP's syntax cannot quote every character that a password may contain.
        encoded = base64.b64encode(n.password.encode()).decode()
        lines += ["md5-base64 true;", f"md5-password {encoded};"]
    families = [f"ipv{version} unicast;" for version in (4, 6) if version in n.families]
    capability = ["asn4 enable;", "route-refresh enable;"]
    if n.graceful_restart:
        capability.append(f"graceful-restart {n.graceful_restart};")
    if n.add_path:
        capability.append("add-path send;")
    extended = n.extends_next_hops
    if extended:
        capability.append("nexthop enable;")
    lines += [
        "group-updates true;",
        "auto-flush true;",
        "adj-rib-out true;",  # ExaBGP itself sends all routes again after a session flap and on a route refresh
        "adj-rib-in false;",  # routes from peers are never used
        # The automatic End-of-RIB is sent before the first route: with graceful restart it causes a black hole.
        "manual-eor true;",
        f"capability {{ {' '.join(capability)} }}",
        f"family {{ {' '.join(families)} }}",
    ]
    if n.add_path:
        lines.append(f"add-path {{ {' '.join(families)} }}")
    if extended:
        lines.append("nexthop { ipv4 unicast ipv6; }")
    events = "neighbor-changes; negotiated; fsm; receive { parsed; notification; }"
    lines.append(f"api {{ processes [ {PROCESS} ]; {events} }}")
    body = "\n".join(f"    {line}" for line in lines)
    return f"neighbor {unscoped(n.address)} {{\n{body}\n}}\n"


def _quoted(word: str) -> str:
    if '"' in word or "\\" in word or "\n" in word:
        raise Unspeakable(f"ExaBGP cannot run a program with this in its path or arguments: {word!r}")
    return f'"{word}"'
