"""``porterlb status``: an overview of everything, from the API and from the replicas themselves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import click

from porterlb.cli import replica_view
from porterlb.cli.filters import EVERYTHING, Filter, filters, service_wrong
from porterlb.cli.lists import (
    eip_rows,
    eip_table,
    peer_rows,
    peer_table,
    per_node,
    service_rows,
    service_table,
    vips_per_node,
)
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import TABLES, Table, plain_view, rich_view, show
from porterlb.cli.replicas import Asked, ask, read
from porterlb.cluster import Cluster, Unavailable
from porterlb.core.sentences import listed
from porterlb.core.status.reading import askers_by_node

SHOWN_SERVICES = 20
"""Services with a problem come first, and all of them are listed; others only up to this total."""

Data = dict[str, Any]


@click.command()
@click.option("--watch", "-w", is_flag=True, help="Update the output until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=1.0, show_default=True, help="Interval of --watch in seconds."
)
@click.option(
    "--from",
    "source",
    metavar="URL",
    help="Query one replica only, without the API: http://127.0.0.1:7472 on its node.",
)
@query
@filters("namespace", "all", "eip", "node", "problems")
def status(options: Options, *, watch: bool, interval: float, source: str | None, chosen: Filter) -> None:
    """Show an overview: replicas, nodes, pools, sessions, Services and problems.

    The command queries the replicas, which detect a dead node within a second. The API takes some 40 s.
    """
    if source:
        data = filtered(replica_view.overview(read(source)), chosen)
        show(options.output, data, tables(data, chosen), data["problems"])
        return
    if not watch:
        data = filtered(options.ask(look), chosen)
        show(options.output, data, tables(data, chosen), data["problems"])
        return

    async def work(cluster: Cluster) -> None:
        async def once() -> Data:
            return filtered(await look(cluster), chosen)

        await _follow(once, options.output, interval, chosen)

    options.ask(work)


async def look(cluster: Cluster) -> Data:
    """Asks the API, then the replicas that it names."""
    found = await load(cluster, partial=True)
    return overview(found, await ask(cluster, found.members))


async def _follow(read: Callable[[], Awaitable[Data]], output: str, interval: float, chosen: Filter) -> None:
    from rich.live import Live  # noqa: PLC0415  # 40 ms, which a single status must not wait for

    live = Live(screen=True, auto_refresh=False) if output in TABLES and sys.stdout.isatty() else None
    last: object = None
    if live:
        live.start()
    try:
        while True:
            try:
                data = await read()
                notes = data["problems"]
            except Unavailable as error:
                data, notes = {}, [str(error)]
            if live:
                shown = rich_view(tables(data, chosen) if data else [], notes, wide=output == "wide")
                live.update(shown, refresh=True)
            elif (data, notes) != last:
                if output in TABLES:
                    view = plain_view(tables(data, chosen) if data else [], notes, wide=output == "wide")
                    print(view, end="\n\n", flush=True)
                else:
                    show(output, data, [])
                    sys.stdout.flush()
                last = (data, notes)
            await asyncio.sleep(interval)
    finally:
        if live:
            live.stop()


def overview(found: Loaded, asked: Asked) -> Data:
    """The stable shape of ``-o json``. What the replicas see now takes precedence over the API."""
    dead = {name: seen for name, seen in asked.dead.items() if name in found.objects.nodes}
    replicas: list[Data] = [
        {
            "node": member.node,
            "address": member.address,
            "boot": member.boot,
            "heard": asked.heard(member.node),
            "why": asked.silent.get(member.node, ""),
        }
        for member in found.members.values()
    ]
    silent = [row["node"] for row in replicas if row["heard"] is False]
    services = service_rows(found, asked)
    vips = vips_per_node(found)
    eips = eip_rows(found, asked)
    askers = askers_by_node(row["askers"] for row in eips)
    served = [row for row in services if row["serving"] == "True"]
    peers = peer_rows(found)
    for peer in peers:
        for session in peer["sessions"]:
            session["state"] = _session(asked, peer["name"], session["node"], session["state"], silent)
        peer["established"] = sum(session["state"] == "ESTABLISHED" for session in peer["sessions"])
    notes = [f"{name} does not answer probes, as {listed(seen)} {_say(seen)}." for name, seen in sorted(dead.items())]
    notes += [f"The replica on {name} is silent: {asked.silent.get(name) or 'nobody hears it'}." for name in silent]
    draining = [node.name for node in found.objects.nodes.values() if node.draining]
    notes += [f"Node {name} is drained (porterlb undrain {name})." for name in sorted(draining)]
    unasked = [name for name in sorted(asked.silent) if name not in silent]
    notes += [f"The replica on {name} could not be asked: {asked.silent[name]}." for name in unasked]
    return {
        "leader": found.leader,
        "replicas": replicas,
        "nodes": [
            {
                "name": node.name,
                "addresses": [str(address) for address in node.addresses],
                "ready": node.ready.value,
                "cordoned": node.cordoned,
                "draining": node.draining,
                "dead": node.name in dead,
                "deadBy": dead.get(node.name, []),
                "vips": vips.get(node.name, 0),
                "askers": askers.get(node.name, 0),
            }
            for _, node in sorted(found.objects.nodes.items())
        ],
        "eips": eips,
        "peers": peers,
        "services": {
            "total": len(services),
            "served": len(served),
            "bgp": sum(row["mode"] == "bgp" for row in served),
            "layer2": sum(row["mode"] == "layer2" for row in served),
            "list": services,
        },
        "sources": [
            {"replica": node, "source": state.source, "age": round(state.age, 3)}
            for node, state in sorted(asked.states.items())
        ],
        "problems": [*notes, *found.notes()],
    }


def _say(names: list[str]) -> str:
    return "says" if len(names) == 1 else "say"


def _session(asked: Asked, peer: str, node: str, known: str, silent: list[str]) -> str:
    """The state of a session according to its own replica, else to the API; SILENT if its replica is silent."""
    if node in silent:
        return "SILENT"
    own = asked.states.get(node)
    state = ((own.state.get("peers") or {}).get(peer) or {}).get("state") if own else ""
    return str(state).upper() if state else known


def filtered(data: Data, chosen: Filter) -> Data:
    """The requested part of an overview; the counts remain those of everything."""
    chosen.known((row["name"] for row in data["eips"]), (row["name"] for row in data["nodes"]))
    services = {**data["services"], "list": chosen.services(data["services"]["list"])}
    found = {"nodes": chosen.nodes(data["nodes"]), "eips": chosen.eips(data["eips"])}
    return {**data, **found, "peers": chosen.peers(data["peers"]), "services": services}


def tables(data: Mapping[str, Any], chosen: Filter = EVERYTHING) -> list[Table]:
    """The tables of the overview; with ``chosen.problems``, without the summary."""
    services = data["services"]
    sessions = [session for peer in data["peers"] for session in peer["sessions"]]
    up = sum(session["state"] == "ESTABLISHED" for session in sessions)
    replicas = [replica["node"] for replica in data["replicas"] if replica["heard"] is not False]
    silent = [replica["node"] for replica in data["replicas"] if replica["heard"] is False]
    ready = [node for node in data["nodes"] if node["ready"] == "True" and not node["dead"]]
    dead = [f"{node['name']} is dead (seen by {', '.join(node['deadBy'])})" for node in data["nodes"] if node["dead"]]
    heard = ", ".join(replicas) or "none: is a manager running?"
    summary = [
        ("Leader", data["leader"] or "none"),
        ("Replicas", "; ".join([heard, *(["silent: " + ", ".join(silent)] if silent else [])])),
        ("Nodes", "; ".join([f"{len(ready)} of {len(data['nodes'])} ready", *dead])),
        ("Sessions", f"{up} of {len(sessions)} established"),
        ("Services", f"{services['served']} of {services['total']} served: {services['bgp']} by bgp, "
                     f"{services['layer2']} by layer2"),
        ("Layer 2", _layer2(data)),
        ("Sources", _sources(data)),
    ]  # fmt: skip
    listed_ = sorted(services["list"], key=lambda row: not service_wrong(row))
    shown = max(SHOWN_SERVICES, sum(map(service_wrong, listed_)))
    hidden = len(listed_) - shown
    found = [
        Table(("WHAT", "NOW"), summary),
        eip_table(data["eips"]),
        peer_table(data["peers"]),
        service_table(listed_[:shown]),
    ]
    if chosen.problems:
        return [table.problems_only() for table in (found[1], found[2], service_table(listed_)) if any(table.wrong)]
    if hidden > 0:
        found.append(Table(("", ""), [], empty=f"And {hidden} more: porterlb service list."))
    return found


def _layer2(data: Mapping[str, Any]) -> str:
    """How many VIPs each node serves in Layer 2, or would serve if BGP were lost; and how many hosts of spread VIPs."""
    vips, askers = ({node["name"]: node.get(what, 0) for node in data["nodes"]} for what in ("vips", "askers"))
    hosts = [f"hosts: {per_node(askers)}"] if any(askers.values()) else []
    return "; ".join([f"VIPs: {per_node(vips)}"] * any(vips.values()) + hosts) or "no next hop is recorded"


def _sources(data: Mapping[str, Any]) -> str:
    asked = [f"{each['replica']} ({each['source']}, {each['age']:.1f} s old)" for each in data["sources"]]
    api = [] if data.get("api") is False else ["the API"]
    return ", ".join([*api, *asked])
