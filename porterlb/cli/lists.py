"""``porterlb eip list``, ``peer list``, ``service list``: what is there, how it is served, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, age, show
from porterlb.cli.replicas import Asked, ask
from porterlb.cluster import Cluster
from porterlb.core.model import ServiceKey
from porterlb.core.status import conditions
from porterlb.core.status.peer import entries
from porterlb.core.status.writes import ingress

Row = dict[str, Any]


@click.group()
def eip() -> None:
    """Show pools of addresses."""


@eip.command("list")
@query
def eip_list(options: Options) -> None:
    """List pools, their use, and how their addresses are announced."""
    found = options.ask(load)
    rows = eip_rows(found)
    show(options.output, rows, [eip_table(rows)], found.notes("Eip"))


@click.group()
def peer() -> None:
    """Show BGP peers."""


@peer.command("list")
@query
def peer_list(options: Options) -> None:
    """List routers, the session of each node, and the reason of its last loss."""
    found = options.ask(load)
    rows = peer_rows(found)
    show(options.output, rows, [peer_table(rows)], found.notes("BgpPeer", "BgpConf"))


@click.group()
def service() -> None:
    """Show the LoadBalancer Services that PorterLB serves."""


@service.command("list")
@query
def service_list(options: Options) -> None:
    """List Services, their addresses, and how they are served."""

    async def work(cluster: Cluster) -> tuple[Loaded, list[Row]]:
        found = await load(cluster)
        return found, service_rows(found, await ask(cluster, found.members))

    found, rows = options.ask(work)
    show(options.output, rows, [service_table(rows)], found.notes("Service"))


def eip_rows(found: Loaded) -> list[Row]:
    """One a pool, as JSON values."""
    rows = []
    for key, obj in found.each("Eip"):
        spec, status = _mapping(obj, "spec"), _mapping(obj, "status")
        mode = _mapping(status, "mode")
        ready = _condition(status, "Ready")
        parsed = found.objects.eips.get(key.name)
        rows.append(
            {
                "name": key.name,
                "address": str(spec.get("address", "")),
                "protocol": parsed.protocol.value if parsed else str(spec.get("protocol", "auto")),
                "mode": str(mode.get("served", "")),
                "since": str(mode.get("since", "")),
                "reason": str(mode.get("reason", "")),
                "used": status.get("usage"),
                "size": status.get("poolSize"),
                "ready": ready.get("status"),
                "message": str(ready.get("message", "")),
                "layer2Possible": _condition(status, "Layer2Possible").get("status"),
                "disabled": bool(parsed and parsed.disabled),
                "problems": found.problems(*key),
            }
        )
    return rows


def eip_table(rows: list[Row]) -> Table:
    return Table(
        ("NAME", "ADDRESS", "PROTOCOL", "MODE", "SINCE", "USED", "READY", "MESSAGE"),
        [
            (
                row["name"],
                row["address"],
                row["protocol"],
                row["mode"] if row["used"] else "",
                age(row["since"]) if row["used"] else "",
                f"{row['used']} of {row['size']}" if row["size"] is not None else "",
                row["ready"] or ("False" if _fatal(row) else ""),
                _message(row),
            )
            for row in rows
        ],
        "Eips",
        "There is no Eip: create one, so that Services get addresses.",
    )


def peer_rows(found: Loaded) -> list[Row]:
    """One a peer, with the session of each node, as JSON values."""
    rows = []
    for key, obj in found.each("BgpPeer"):
        conf, status = _mapping(_mapping(obj, "spec"), "conf"), _mapping(obj, "status")
        ready = _condition(status, "Ready")
        sessions = [_session(node, entry) for node, entry in sorted(entries(status).items())]
        rows.append(
            {
                "name": key.name,
                "address": str(conf.get("neighborAddress", "")),
                "as": conf.get("peerAs"),
                "established": sum(session["state"] == "ESTABLISHED" for session in sessions),
                "sessions": sessions,
                "ready": ready.get("status"),
                "message": str(ready.get("message", "")),
                "problems": found.problems(*key),
            }
        )
    return rows


def _session(node: str, entry: Mapping[str, Any]) -> Row:
    timers, loss = _mapping(entry, "timersState"), _mapping(entry, "lastLoss")
    return {
        "node": node,
        "state": str(_mapping(entry, "peerState").get("sessionState", "")),
        "since": str(timers.get("uptime") or timers.get("downtime") or ""),
        "announced": entry.get("announced"),
        "reason": str(entry.get("reason", "")),
        "negotiated": entry.get("negotiated"),
        "lastLoss": {
            "reason": str(loss.get("reason", "")),
            "time": str(loss.get("time", "")),
            "count": loss.get("count", 0),
        }
        if loss
        else None,
    }


def peer_table(rows: list[Row]) -> Table:
    """One line a session; a peer without one has a line of its own, with the reason."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        head = (row["name"], row["address"], str(row["as"] or ""))
        if not row["sessions"]:
            lines.append((*head, "", "none", "", "", _message(row)))
        for number, session in enumerate(row["sessions"]):
            loss = session["lastLoss"]
            lost = session["reason"] if session["reason"] != (loss or {}).get("reason") else ""
            lost = lost or (f"{loss['reason'].rstrip('.')} ({age(loss['time'])} ago)" if loss else "")
            announced = "" if session["announced"] is None else str(session["announced"])
            shown = head if number == 0 else (" ", " ", " ")
            lines.append((*shown, session["node"], session["state"], age(session["since"]), announced, lost))
    return Table(
        ("NAME", "ADDRESS", "AS", "NODE", "SESSION", "SINCE", "ROUTES", "LAST LOSS"),
        lines,
        "BGP peers",
        "There is no BgpPeer.",
    )


def service_rows(found: Loaded, asked: Asked) -> list[Row]:
    """One a Service of ours, usable or not, as JSON values. ``since``: the last move, where a replica knows of one."""
    rows = []
    for key, obj in found.each("Service"):
        problems = found.problems(*key)
        if ServiceKey(key.namespace, key.name) not in found.objects.services and not problems:
            continue
        status = _mapping(obj, "status")
        assigned, serving = _condition(status, "AddressAssigned"), _condition(status, "Serving")
        addresses = [address for address, _ in ingress(status)]
        moved = max((asked.since(address) for address in addresses), default="")
        rows.append(
            {
                "namespace": key.namespace,
                "name": key.name,
                "addresses": addresses,
                "assigned": assigned.get("status"),
                "serving": serving.get("status"),
                "mode": _MODES.get(str(serving.get("reason", "")), ""),
                "since": moved or str(serving.get("lastTransitionTime", "")),
                "reason": str((serving if assigned.get("status") == "True" else assigned).get("reason", "")),
                "message": str((serving if assigned.get("status") == "True" else assigned).get("message", "")),
                "problems": problems,
            }
        )
    return rows


_MODES: Mapping[str, str] = {"BGP": "bgp", "Layer2": "layer2"}


def service_table(rows: list[Row]) -> Table:
    return Table(
        ("NAME", "ADDRESS", "SERVED", "MODE", "SINCE", "MESSAGE"),
        [
            (
                f"{row['namespace']}/{row['name']}",
                ", ".join(row["addresses"]),
                {"True": "yes", "False": "no"}.get(row["serving"] or "", ""),
                row["mode"],
                age(row["since"]),
                _message(row),
            )
            for row in rows
        ],
        "Services",
        "There is no Service of type LoadBalancer that is ours.",
    )


def _fatal(row: Row) -> bool:
    return any(problem["fatal"] for problem in row["problems"])


def _message(row: Row) -> str:
    """What the manager says; where it has said nothing yet, what is wrong with the object itself."""
    return row["message"] or " ".join(problem["message"] for problem in row["problems"])


def _mapping(obj: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = obj.get(name)
    return found if isinstance(found, Mapping) else {}


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return conditions.find(conditions.of(status), type_) or {}
