"""``porterlb plan``: what would change if a node, a peer or a replica were gone. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from porterlb.cli.completion import names
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, show
from porterlb.cli.replicas import Asked, ask
from porterlb.cluster import Cluster, Denied
from porterlb.core.bgp.peers import secret_missing
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Member
from porterlb.core.placement.load import FULL
from porterlb.core.placement.overview import Overview
from porterlb.core.sentences import clauses
from porterlb.core.whatif import Missing, VipChange, Way, WhatIf, offline_snapshot, what_if, without
from porterlb.edge.passwords import read_password
from porterlb.errors import PorterError


@click.command()
@click.option(
    "--without-node",
    "nodes",
    multiple=True,
    metavar="NAME",
    shell_complete=names("Node"),
    help="Assume that this node has lost power.",
)
@click.option(
    "--without-peer",
    "peers",
    multiple=True,
    metavar="NAME",
    shell_complete=names("BgpPeer"),
    help="Assume that all sessions with this peer are lost.",
)
@click.option(
    "--without-replica",
    "replicas",
    multiple=True,
    metavar="NODE",
    shell_complete=names("Node"),
    help="Assume that this replica is gone.",
)
@click.option("--all", "everything", is_flag=True, help="Also show unchanged addresses.")
@query
def plan(
    options: Options, nodes: Sequence[str], peers: Sequence[str], replicas: Sequence[str], *, everything: bool
) -> None:
    """Preview a failure: show what changes without some parts of the cluster. Uses the code of the manager.

    Nodes that do not answer probes are excluded. Without options: show the current plan, and why Services have no
    address. The command changes nothing.
    """

    async def work(cluster: Cluster) -> tuple[Loaded, Asked, list[str]]:
        there = await load(cluster)
        return there, await ask(cluster, there.members), await _passwords(cluster, there)

    found, told, passwords = options.ask(work)
    members = found.members
    _known("node", nodes, found.objects.nodes)
    _known("BgpPeer", peers, found.objects.peers)
    _known("replica", replicas, members)
    missing = Missing(frozenset(nodes), frozenset(peers), frozenset(replicas))
    lost = gone(found, told)
    result = what_if(without(offline_snapshot(found.objects, members), lost), missing, ModePolicy())
    asked = bool(nodes or peers or replicas)
    shown = [change for change in result.vips if change.changed or everything or not asked]
    notes = [f"{name} is gone already. The plan excludes it." for name in sorted(lost.nodes | lost.replicas)]
    notes += [*_notes(found, members, result), *passwords]
    show(options.output, as_json(result, missing), _tables(result, shown, asked=asked), notes)


async def _passwords(cluster: Cluster, found: Loaded) -> list[str]:
    """Notes about BgpPeers that have no session because their Secret is missing or cannot be checked."""
    notes = []
    for name, peer in sorted(found.objects.peers.items()):
        if peer.password_secret is None:
            continue
        try:
            if not await read_password(cluster, *peer.password_secret):
                notes.append(f"BgpPeer {name}: {secret_missing(peer, cluster.namespace)}")
        except Denied as error:
            notes.append(f"BgpPeer {name}: its Secret cannot be checked: {error}")
    return notes


def gone(found: Loaded, asked: Asked) -> Missing:
    """What the replicas find missing now, before the API does."""
    nodes = frozenset(name for name in asked.dead if name in found.objects.nodes)
    return Missing(nodes, replicas=frozenset(name for name in found.members if asked.heard(name) is False) - nodes)


def _known(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    there = sorted(known)
    for name in names:
        if name not in there:
            remedy = f"There are: {', '.join(there)}." if there else f"There is no {what} at all."
            raise PorterError(f"There is no {what} {name!r}.", remedy, exit_code=2)


def _notes(found: Loaded, members: dict[str, Member], result: WhatIf) -> list[str]:
    notes = found.notes()
    notes += [f"{key}: {problem}" for key, hints in sorted(found.objects.hints.items()) for problem in hints]
    notes += [f"{name}: {problem}" for name, problems in result.problems.items() for problem in problems]
    notes += [f"Eip {name}: left out in Layer 2: {clauses(found)}." for name, found in result.left_out.items()]
    if not members and result.vips:
        notes.append("No replica is known, so nothing would be announced or answered. Is a manager running?")
    return notes


def _tables(result: WhatIf, shown: Sequence[VipChange], *, asked: bool) -> list[Table]:
    if asked:
        columns: Sequence[str] = ("ADDRESS", "SERVICE", "MODE", "NEXT HOPS", "MODE THEN", "NEXT HOPS THEN", "WHY")
        rows: list[Sequence[str]] = [
            (*_head(c), *_way(c.before), *_way(c.after), c.after.why if c.after else "") for c in shown
        ]
        tables = [Table(columns, rows, "What changes", "Nothing changes for any address.")]
    else:
        columns = ("ADDRESS", "SERVICE", "MODE", "NEXT HOPS", "WHY")
        rows = [(*_head(c), *_way(c.after), c.after.why if c.after else "") for c in shown]
        tables = [Table(columns, rows, "Planned", "No Service has an address.")]
    if any(share.vips for spread in (result.spread, result.spread_then) for share in spread.shares.values()):
        tables.append(_placement(result, asked=asked))
    if result.new:
        new = [(str(key), ", ".join(map(str, addresses))) for key, addresses in result.new.items()]
        tables.append(Table(("SERVICE", "WOULD GET"), new, "New addresses"))
    if result.refused:
        refused = [(str(key), p.reason.value, str(p)) for key, problems in result.refused.items() for p in problems]
        tables.append(Table(("SERVICE", "REASON", "MESSAGE"), refused, "Refused"))
    return tables


def _placement(result: WhatIf, *, asked: bool) -> Table:
    """Layer 2: what each node serves, or would serve once BGP is lost."""
    now, then = result.spread, result.spread_then
    names = sorted({*now.shares, *then.shares})
    rows = [
        (name, *(_share(spread, name) for spread in ((now, then) if asked else (then,))), _capacity(result, name))
        for name in names
    ]
    ratios = f"{then.balance.ratio:.2f} times the mean on the fullest node"
    if asked:
        ratios = f"{now.balance.ratio:.2f} and then {ratios}"
    columns = ("NODE", "VIPS", "VIPS THEN", "CAPACITY") if asked else ("NODE", "VIPS", "CAPACITY")
    return Table(columns, rows, f"Layer 2 placement ({ratios})")


def _share(spread: Overview, name: str) -> str:
    share = spread.shares.get(name)
    if share is None:
        return "0"
    return str(share.vips) if share.vips == share.load else f"{share.vips} (weight {share.load})"


def _capacity(result: WhatIf, name: str) -> str:
    share = result.spread_then.shares.get(name) or result.spread.shares.get(name)
    return f"{(share.capacity if share else FULL) / FULL:g}"


def spread_json(spread: Overview) -> dict[str, Any]:
    """The stable shape: ``imbalance`` (the fullest node over the mean) and ``nodes`` by name."""
    return {
        "imbalance": round(spread.balance.ratio, 3),
        "nodes": {
            name: {"vips": share.vips, "load": share.load, "capacity": share.capacity / FULL}
            for name, share in spread.shares.items()
        },
    }


def _head(change: VipChange) -> tuple[str, str]:
    return str(change.address), ", ".join(map(str, change.services))


def _way(way: Way | None) -> tuple[str, str]:
    return (way.mode.value, ", ".join(way.next_hops)) if way else ("none", "")


def as_json(result: WhatIf, missing: Missing) -> dict[str, Any]:
    """The stable shape: ``without``, ``vips`` (all, with ``changed``), ``new``, ``refused``, ``placement``."""
    return {
        "without": {
            "nodes": sorted(missing.nodes),
            "peers": sorted(missing.peers),
            "replicas": sorted(missing.replicas),
        },
        "vips": [
            {
                "address": str(change.address),
                "eip": change.eip,
                "services": [str(key) for key in change.services],
                "changed": change.changed,
                "before": _way_json(change.before),
                "after": _way_json(change.after),
            }
            for change in result.vips
        ],
        "new": [
            {"service": str(key), "addresses": [str(address) for address in addresses]}
            for key, addresses in result.new.items()
        ],
        "refused": [
            {"service": str(key), "reason": problem.reason.value, "message": str(problem)}
            for key, problems in result.refused.items()
            for problem in problems
        ],
        "placement": {"before": spread_json(result.spread), "after": spread_json(result.spread_then)},
    }


def _way_json(way: Way | None) -> dict[str, Any] | None:
    if way is None:
        return None
    return {"mode": way.mode.value, "nextHops": list(way.next_hops), "peers": list(way.peers), "why": way.why}
