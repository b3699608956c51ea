"""``porterlb eip list``, ``peer list``, ``service list``: what exists, how it is served, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

import click

from porterlb.cli.filters import Filter, eip_wrong, filters, service_wrong
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, age, show
from porterlb.cli.replicas import Asked, ask
from porterlb.cluster import Cluster, Kind
from porterlb.core.model import Eip, ServiceKey
from porterlb.core.status import conditions
from porterlb.core.status.reading import askers_by_node, entries, ingress
from porterlb.errors import PorterError

Row = dict[str, Any]


@click.group()
def eip() -> None:
    """Show pools of addresses."""


@eip.command("list")
@query
@filters("eip", "problems")
def eip_list(options: Options, *, chosen: Filter) -> None:
    """List pools, their use, and how their addresses are announced."""

    async def work(cluster: Cluster) -> tuple[Loaded, Asked | None]:
        found = await _some(cluster)
        spread = any(eip.layer2_spread for eip in found.objects.eips.values())
        return found, await ask(cluster, found.members) if spread else None

    found, asked = options.ask(work)
    found.require(Kind.EIP)
    rows = eip_rows(found, asked)
    chosen.known((row["name"] for row in rows), ())
    rows = chosen.eips(rows)
    show(options.output, rows, [eip_table(rows, wide=options.output == "wide")], found.notes("Eip"))


@click.group()
def peer() -> None:
    """Show BGP peers."""


@peer.command("list")
@query
@filters("node", "problems")
def peer_list(options: Options, *, chosen: Filter) -> None:
    """List routers, the session of each node, and the reason of its last loss."""
    found = options.ask(_some)
    found.require(Kind.BGP_PEER)
    chosen.known((), found.objects.nodes)
    rows = chosen.peers(peer_rows(found))
    show(options.output, rows, [peer_table(rows)], found.notes("BgpPeer", "BgpConf"))


@click.group()
def service() -> None:
    """Show the LoadBalancer Services that PorterLB serves."""


@service.command("list")
@query
@filters("namespace", "all", "eip", "node", "problems")
def service_list(options: Options, *, chosen: Filter) -> None:
    """List Services, their addresses, and how they are served."""

    async def work(cluster: Cluster) -> tuple[Loaded, list[Row]]:
        found = await _some(cluster)
        found.require(Kind.SERVICE)
        asked = await ask(cluster, found.members)
        chosen.known((key.name for key, _ in found.each("Eip")), found.objects.nodes)
        if chosen.node and not asked.states:
            raise PorterError("No replica can be asked for the next hops (--node).", "See porterlb status.")
        return found, chosen.services(service_rows(found, asked))

    found, rows = options.ask(work)
    show(options.output, rows, [service_table(rows)], found.notes("Service"))


async def _some(cluster: Cluster) -> Loaded:
    """For a list, the kinds that the user may read are enough."""
    return await load(cluster, partial=True)


def eip_rows(found: Loaded, asked: Asked | None = None) -> list[Row]:
    """One row per pool, as JSON values. ``asked``: the replicas, which know the hosts of pools spread over nodes."""
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
                "layer2": dict(sorted(Counter(_recorded(status)).items())),
                "askers": askers_by_node(map(asked.askers, _mapping(status, "used"))) if asked else {},
                "disabled": bool(parsed and parsed.disabled),
                "problems": found.problems(*key),
            }
        )
    return rows


def _recorded(status: Mapping[str, Any]) -> list[str]:
    """The nodes that are recorded as Layer 2 next hops, one for each address."""
    return [node for node in _mapping(status, "layer2NextHops").values() if isinstance(node, str)]


def vips_per_node(found: Loaded) -> dict[str, int]:
    """The addresses of all pools by the node that is recorded as their Layer 2 next hop."""
    return dict(Counter(node for _, obj in found.each("Eip") for node in _recorded(_mapping(obj, "status"))))


def per_node(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{node} {count}" for node, count in sorted(counts.items()))


def _short(count: int) -> str:
    """A number of addresses. An IPv6 pool may have 19 digits, which a table has no room for."""
    return str(count) if count < 10**7 else f"{count:.1e}".replace("e+", "e")


def eip_table(rows: list[Row], *, wide: bool = False) -> Table:
    """``wide``: with the addresses by Layer 2 next hop, or the hosts if each has its own next hop."""
    return Table(
        ("NAME", "ADDRESS", "PROTOCOL", "MODE", "SINCE", "USED", *(["LAYER 2"] if wide else []), "READY", "MESSAGE"),
        [
            (
                row["name"],
                row["address"],
                row["protocol"],
                row["mode"] if row["used"] else "",
                age(row["since"]) if row["used"] else "",
                f"{row['used']} of {_short(row['size'])}" if row["size"] is not None else "",
                *([_layer2(row)] if wide else []),
                row["ready"] or ("False" if _fatal(row) else ""),
                _message(row),
            )
            for row in rows
        ],
        "Eips",
        "There is no Eip: create one, so that Services get addresses.",
        message=True,
        wrong=[eip_wrong(row) for row in rows],
    )


def _layer2(row: Row) -> str:
    hosts = f"hosts: {per_node(row['askers'])}" if row["askers"] else ""
    return "; ".join(filter(None, [per_node(row["layer2"]), hosts]))


def peer_rows(found: Loaded) -> list[Row]:
    """One row per peer, with the session of each node, as JSON values."""
    rows = []
    for key, obj in found.each("BgpPeer"):
        spec, status = _mapping(obj, "spec"), _mapping(obj, "status")
        conf, ready = _mapping(spec, "conf"), _condition(status, "Ready")
        sessions = [_session(node, entry) for node, entry in sorted(entries(status).items())]
        rows.append(
            {
                "name": key.name,
                "address": _router(spec, conf),
                "as": conf.get("peerAs"),
                "established": sum(session["state"] == "ESTABLISHED" for session in sessions),
                "sessions": sessions,
                "ready": ready.get("status"),
                "message": str(ready.get("message", "")),
                "problems": found.problems(*key),
            }
        )
    return rows


def _router(spec: Mapping[str, Any], conf: Mapping[str, Any]) -> str:
    """The router as the BgpPeer names it: an address, else the interface on which it is found."""
    if address := conf.get("neighborAddress"):
        return str(address)
    interface = spec.get("interface") or conf.get("neighborInterface")
    return "per node" if spec.get("overrides") else str(interface or "")


def _session(node: str, entry: Mapping[str, Any]) -> Row:
    timers, loss = _mapping(entry, "timersState"), _mapping(entry, "lastLoss")
    return {
        "node": node,
        "router": str(_mapping(entry, "peerState").get("neighborAddress", "")),
        "state": str(_mapping(entry, "peerState").get("sessionState", "")),
        "since": str(timers.get("uptime") or timers.get("downtime") or ""),
        "announced": entry.get("announced"),
        "reason": str(entry.get("reason", "")),
        "negotiated": entry.get("negotiated"),
        "bfd": entry.get("bfd"),
        "lastLoss": {
            "reason": str(loss.get("reason", "")),
            "time": str(loss.get("time", "")),
            "count": loss.get("count", 0),
        }
        if loss
        else None,
    }


def peer_table(rows: list[Row]) -> Table:
    """One line per session; a peer without a session has one line, with the reason. Where the nodes have different
    routers, each line has its own."""
    lines: list[tuple[str, ...]] = []
    wrong: list[bool] = []
    with_bfd = any(session.get("bfd") for row in rows for session in row["sessions"])
    for row in rows:
        head = (row["name"], row["address"], str(row["as"] or ""))
        if not row["sessions"]:
            lines.append((*head, "", "none", *([""] if with_bfd else []), "", "", _message(row)))
            wrong.append(True)
        for number, session in enumerate(row["sessions"]):
            loss = session["lastLoss"]
            lost = session["reason"] if session["reason"] != (loss or {}).get("reason") else ""
            lost = lost or (f"{loss['reason'].rstrip('.')} ({age(loss['time'])} ago)" if loss else "")
            announced = "" if session["announced"] is None else str(session["announced"])
            shown = head if number == 0 else (" ", " ", " ")
            if session["router"] and session["router"] != row["address"]:
                shown = (shown[0], session["router"], shown[2])
            wrong.append(session["state"] != "ESTABLISHED" or bool(session["reason"]))
            bfd = (str((session.get("bfd") or {}).get("state", "")),) if with_bfd else ()
            lines.append((*shown, session["node"], session["state"], *bfd, age(session["since"]), announced, lost))
    return Table(
        ("NAME", "ADDRESS", "AS", "NODE", "SESSION", *(("BFD",) if with_bfd else ()), "SINCE", "ROUTES", "LAST LOSS"),
        lines,
        "BGP peers",
        "There is no BgpPeer.",
        message=True,
        wrong=wrong,
    )


def service_rows(found: Loaded, asked: Asked) -> list[Row]:
    """One row per Service of ours, usable or not, as JSON values. ``since``: the last move, if a replica knows one."""
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
                "eips": [name for name, eip in sorted(found.objects.eips.items()) if _holds(eip, addresses)],
                "nextHops": asked.next_hops(addresses),
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


def _holds(eip: Eip, addresses: Iterable[str]) -> bool:
    return any(ip_address(address) in eip for address in addresses)


_MODES: Mapping[str, str] = {"BGP": "bgp", "Layer2": "layer2"}


def service_table(rows: list[Row]) -> Table:
    """Services with a problem come first."""
    rows = sorted(rows, key=lambda row: not service_wrong(row))
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
        message=True,
        wrong=[service_wrong(row) for row in rows],
    )


def _fatal(row: Row) -> bool:
    return any(problem["fatal"] for problem in row["problems"])


def _message(row: Row) -> str:
    """The manager's message; if there is none yet, what is wrong with the object itself."""
    return row["message"] or " ".join(problem["message"] for problem in row["problems"])


def _mapping(obj: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = obj.get(name)
    return found if isinstance(found, Mapping) else {}


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return conditions.find(conditions.of(status), type_) or {}
