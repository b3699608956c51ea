"""``porterlb status``: everything at a glance."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import click
from rich.live import Live

from porterlb.cli.lists import eip_rows, eip_table, peer_rows, peer_table, service_rows, service_table
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, plain_view, rich_view, show
from porterlb.cluster import Cluster, Unavailable

SHOWN_SERVICES = 20
"""Services that are not served come first; of the others, no more than these are listed."""


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Go on, and show it anew when something changes. Until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Seconds, with --watch."
)
@query
def status(options: Options, *, watch: bool, interval: float) -> None:
    """Everything at a glance: replicas, nodes, pools, sessions, Services, and what is wrong."""
    if not watch:
        found = options.ask(load)
        data = overview(found)
        show(options.output, data, tables(data), found.notes())
        return

    async def work(cluster: Cluster) -> None:
        await _follow(lambda: load(cluster), options.output, interval)

    options.ask(work)


async def _follow(read: Callable[[], Awaitable[Loaded]], output: str, interval: float) -> None:
    live = Live(screen=True, auto_refresh=False) if output == "table" and sys.stdout.isatty() else None
    last: object = None
    if live:
        live.start()
    try:
        while True:
            try:
                found = await read()
                data, notes = overview(found), found.notes()
            except Unavailable as error:
                data, notes = {}, [str(error)]
            if live:
                live.update(rich_view(tables(data) if data else [], notes), refresh=True)
            elif (data, notes) != last:
                if output == "table":
                    print(plain_view(tables(data) if data else [], notes), end="\n\n", flush=True)
                else:
                    show(output, data, [])
                    sys.stdout.flush()
                last = (data, notes)
            await asyncio.sleep(interval)
    finally:
        if live:
            live.stop()


def overview(found: Loaded) -> dict[str, Any]:
    """The stable shape of ``-o json``."""
    services = service_rows(found)
    served = [row for row in services if row["serving"] == "True"]
    return {
        "leader": found.leader,
        "replicas": [
            {"node": member.node, "address": member.address, "boot": member.boot} for member in found.members.values()
        ],
        "nodes": [
            {
                "name": node.name,
                "addresses": [str(address) for address in node.addresses],
                "ready": node.ready.value,
                "cordoned": node.cordoned,
            }
            for _, node in sorted(found.objects.nodes.items())
        ],
        "eips": eip_rows(found),
        "peers": peer_rows(found),
        "services": {
            "total": len(services),
            "served": len(served),
            "bgp": sum(row["mode"] == "bgp" for row in served),
            "layer2": sum(row["mode"] == "layer2" for row in served),
            "list": services,
        },
        "problems": found.notes(),
    }


def tables(data: Mapping[str, Any]) -> list[Table]:
    """What the overview looks like."""
    services = data["services"]
    sessions = [session for peer in data["peers"] for session in peer["sessions"]]
    up = sum(session["state"] == "ESTABLISHED" for session in sessions)
    replicas = [replica["node"] for replica in data["replicas"]]
    ready = [node for node in data["nodes"] if node["ready"] == "True"]
    summary = [
        ("Leader", data["leader"] or "none"),
        ("Replicas", ", ".join(replicas) or "none: is a manager running?"),
        ("Nodes", f"{len(ready)} of {len(data['nodes'])} ready"),
        ("Sessions", f"{up} of {len(sessions)} established"),
        ("Services", f"{services['served']} of {services['total']} served: {services['bgp']} by bgp, "
                     f"{services['layer2']} by layer2"),
    ]  # fmt: skip
    listed = sorted(services["list"], key=lambda row: row["serving"] == "True")
    hidden = len(listed) - SHOWN_SERVICES
    found = [
        Table(("WHAT", "NOW"), summary),
        eip_table(data["eips"]),
        peer_table(data["peers"]),
        service_table(listed[:SHOWN_SERVICES]),
    ]
    if hidden > 0:
        found.append(Table(("", ""), [], empty=f"And {hidden} more: porterlb service list."))
    return found
