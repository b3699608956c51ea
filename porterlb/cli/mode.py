"""``porterlb mode``: shows and changes how the addresses of each Eip are announced."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import click

from porterlb.cli.completion import names
from porterlb.cli.lists import eip_rows
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, age, show
from porterlb.cluster import Cluster, Kind, Obj
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Mode, Protocol
from porterlb.core.parse.eip import SWITCHED, replaced_protocol
from porterlb.core.parse.meta import DOMAINS
from porterlb.core.shared import shared_by_all
from porterlb.core.whatif import offline_snapshot
from porterlb.errors import PorterError

OWNER = "porterlb-cli"
"""Field manager (server-side apply) of spec.protocol, once it was switched by hand."""

RESTORE = "restore"
"""Instead of a protocol: the one that each Eip had before it was switched."""

SWITCHED_KEY = f"{SWITCHED[0]}.{DOMAINS[0]}/{SWITCHED[1]}"

POLL = 0.1  # seconds between two checks of the status

Row = dict[str, Any]


@click.command()
@click.argument("protocol", required=False, type=click.Choice([*(p.value for p in Protocol), RESTORE]))
@click.option(
    "--eip",
    "eips",
    multiple=True,
    metavar="NAME",
    shell_complete=names("Eip"),
    help="Only this Eip. Can be repeated. Default: all Eips.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait until the switch is complete.")
@click.option("--force", is_flag=True, help="Switch even if the new mode cannot serve.")
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Timeout in seconds.")
@query
def mode(
    options: Options, protocol: str | None, eips: Sequence[str], *, no_wait: bool, force: bool, timeout: float
) -> None:
    """Show or switch the mode of each Eip: BGP or Layer 2.

    Without an argument: show the configured protocol, the current mode, the time of the last change, and the reason.
    With bgp, layer2 or auto: switch, and wait until all addresses are served in the new mode.
    With restore: give each Eip the protocol that it had before it was switched by this command.
    """
    if protocol is None:
        found = options.ask(load)
        rows = mode_rows(found, _chosen(found, eips))
        show(options.output, rows, _tables(rows), found.notes("Eip"))
        return

    async def work(cluster: Cluster) -> list[Row]:
        wanted = None if protocol == RESTORE else Protocol(protocol)
        return await switch(cluster, wanted, eips, wait=not no_wait, force=force, patience=timeout)

    rows = options.ask(work, writes=True)
    show(options.output, rows, [], [row["did"] for row in rows])


def mode_rows(found: Loaded, names: Sequence[str]) -> list[Row]:
    """One row per Eip, as JSON values."""
    rows = []
    status = {key.name: _mode_of(obj) for key, obj in found.each("Eip")}
    for row in eip_rows(found):
        if row["name"] in names:
            record = status[row["name"]]
            rows.append(
                {name: row[name] for name in ("name", "protocol", "mode", "since", "reason", "layer2Possible")}
                | {"vips": record.get("vips", {}), "waiting": record.get("waiting", 0)}
                | {"history": record.get("history", []), "problems": row["problems"]}
            )
    return rows


def _tables(rows: Sequence[Row]) -> list[Table]:
    now = [
        (
            row["name"],
            row["protocol"],
            *((row["mode"], age(row["since"])) if _counts(row) else ("", "")),
            _counts(row),
            row["reason"],
        )
        for row in rows
    ]
    changes = [
        (row["name"], str(c.get("time", "")), f"{c.get('before')} to {c.get('after')}", str(c.get("reason", "")))
        for row in rows
        for c in row["history"]
    ]
    tables = [Table(("NAME", "PROTOCOL", "MODE", "SINCE", "ADDRESSES", "WHY"), now, "", "There is no Eip.")]
    if changes:
        changes.sort(key=lambda change: change[1], reverse=True)
        tables.append(Table(("NAME", "TIME", "CHANGE", "WHY"), changes[:20], "Changes"))
    return tables


def _counts(row: Row) -> str:
    shown = [f"{row['vips'][m.value]} {m.value}" for m in Mode if row["vips"].get(m.value)]
    return ", ".join(shown)


def _chosen(found: Loaded, eips: Sequence[str]) -> list[str]:
    there = [key.name for key, _ in found.each("Eip")]
    for name in eips:
        if name not in there:
            remedy = f"There are: {', '.join(there)}." if there else "There is no Eip."
            raise PorterError(f"There is no Eip {name!r}.", remedy, exit_code=2)
    return list(dict.fromkeys(eips)) or there


async def switch(
    cluster: Cluster, protocol: Protocol | None, eips: Sequence[str], *, wait: bool, force: bool, patience: float
) -> list[Row]:
    """Switches, and returns what it did, one row per Eip. ``protocol`` None: what each Eip had before.

    Raises PorterError if it cannot work or takes too long.
    """
    found = await load(cluster)
    names = [name for name in _chosen(found, eips) if force or not _unusable(found, name, named=bool(eips))]
    if not names:
        raise PorterError("There is no Eip to switch.", "Create one first.")
    targets = _replaced(found, names, named=bool(eips)) if protocol is None else dict.fromkeys(names, protocol)
    if not force:
        for wanted in sorted(set(targets.values())):
            _refuse_what_cannot_work(found, wanted, [name for name, to in targets.items() if to is wanted])
    rows: list[Row] = []
    objects: dict[str, Obj] = {}
    for name, wanted in targets.items():
        before = found.objects.raw("Eip", "", name) or {}
        current = str((before.get("spec") or {}).get("protocol") or Protocol.AUTO.value)
        changed = current != wanted.value
        after: Obj = before
        if changed:
            after = await cluster.apply(Kind.EIP, name, "", _edit(before, current, wanted), owner=OWNER)
            click.echo(f"Eip {name}: protocol {current} -> {wanted.value}.", err=True)
        objects[name] = after
        rows.append({"name": name, "before": current, "protocol": wanted.value, "changed": changed})
    until = time.monotonic() + patience
    for row in rows:
        after = objects[row["name"]]
        to = targets[row["name"]]
        record = await _wait(cluster, row["name"], to, after, until, patience) if wait else _mode_of(after)
        row["mode"] = str(record.get("served", "")) if wait else ""
        row["did"] = _did(row, record, waited=wait)
    return rows


def _replaced(found: Loaded, names: Sequence[str], *, named: bool) -> dict[str, Protocol]:
    """By Eip: the protocol that it had before. Raises PorterError if there is none to restore."""
    befores = {name: replaced_protocol(found.objects.raw("Eip", "", name) or {}) for name in names}
    targets = {name: before for name, before in befores.items() if before is not None}
    missing = [name for name in names if name not in targets]
    if not targets or (named and missing):
        what = f"Eip {missing[0]}" if named else "No Eip"
        verb = "was not switched" if named else "was switched"
        raise PorterError(
            f"{what} {verb} by porterlb mode, or its protocol was changed afterwards by other means.",
            "Name the protocol: porterlb mode bgp, layer2 or auto.",
        )
    return targets


def _edit(obj: Obj, current: str, wanted: Protocol) -> Obj:
    """The change of an Eip, with the annotation that `restore` reads. An Eip with its first protocol has none."""
    before = replaced_protocol(obj)
    first = current if before is None else before.value
    note = {} if first == wanted.value else {SWITCHED_KEY: f"{first}/{wanted.value}"}
    return {"metadata": {"annotations": note}, "spec": {"protocol": wanted.value}}


def _did(row: Row, record: Mapping[str, Any], *, waited: bool) -> str:
    verb = (
        f"was switched from {row['before']} to {row['protocol']}" if row["changed"] else f"is {row['protocol']} already"
    )
    if not waited:
        return f"Eip {row['name']} {verb}; the command did not wait for the result."
    vips = {name: count for name, count in (record.get("vips") or {}).items() if isinstance(count, int) and count}
    if not vips:
        return f"Eip {row['name']} {verb}; no Service has an address from it."
    missing = vips.pop(Mode.NONE.value, 0)
    told = [f"{_addresses(count)} served by {name}" for name, count in vips.items()]
    if missing:
        told.append(f"{_addresses(missing)} not served: {str(record.get('reason', '')).rstrip('.')}")
    return f"Eip {row['name']} {verb}; {', '.join(told)}."


def _addresses(count: int) -> str:
    return "1 address is" if count == 1 else f"{count} addresses are"


def _unusable(found: Loaded, name: str, *, named: bool) -> bool:
    """Whether an Eip cannot be used at all: nothing would ever serve it, so there is nothing to wait for."""
    if name in found.objects.eips:
        return False
    why = " ".join(problem["message"] for problem in found.problems("Eip", "", name))
    if named:
        raise PorterError(f"Eip {name} cannot be used: {why}", "Correct it first, or use --force.")
    click.echo(f"Eip {name} is not changed, because it cannot be used: {why}", err=True)
    return True


def _refuse_what_cannot_work(found: Loaded, wanted: Protocol, names: Sequence[str]) -> None:
    force = "Or use --force."
    if wanted is Protocol.BGP and not any(not peer.admin_down for peer in found.objects.peers.values()):
        broken = " that can be used" if any(True for _ in found.each("BgpPeer")) else ""
        raise PorterError(
            f"bgp cannot work: there is no BgpPeer{broken}.", f"Create one first (porterlb peer list). {force}"
        )
    if wanted is Protocol.BGP and not offline_snapshot(found.objects, found.members).view.sessions:
        raise PorterError(
            "bgp cannot work now: no replica has an established session.", f"See porterlb peer list. {force}"
        )
    if wanted is Protocol.BGP:
        _refuse_what_no_session_carries(found, names, force)
    for row in eip_rows(found):
        if wanted is Protocol.LAYER2 and row["name"] in names and row["layer2Possible"] == "False":
            raise PorterError(
                f"layer2 cannot work for Eip {row['name']}: its addresses are in no connected subnet.",
                f"Keep bgp, or add addresses of the segment. {force}",
            )


def _refuse_what_no_session_carries(found: Loaded, names: Sequence[str], force: str) -> None:
    """Refuses if no session carries the addresses of an Eip: a session may be up and not have negotiated them."""
    snapshot = offline_snapshot(found.objects, found.members)
    shared = shared_by_all(snapshot, {}, 0.0, ModePolicy(), None)
    for name in names:
        eip = found.objects.eips.get(name)
        if eip is None:
            continue
        for version in sorted({each.first.version for each in eip.ranges}):
            recipients = shared.rules.recipients(eip, version, list(found.objects.services.values()))
            if not shared.peering.carried(recipients, version, ()):
                raise PorterError(
                    f"bgp cannot work for Eip {name}: no established session carries its IPv{version} addresses.",
                    f"See porterlb peer list: the router may not have negotiated IPv{version}. {force}",
                )


async def _wait(
    cluster: Cluster, name: str, wanted: Protocol, after: Obj, until: float, patience: float
) -> Mapping[str, Any]:
    """Waits until the status says that every address is served as wanted."""
    generation = (after.get("metadata") or {}).get("generation") or 0
    said = ""
    while True:
        obj = await cluster.get(Kind.EIP, name)
        if obj is None:
            raise PorterError(f"Eip {name} is gone.", "It was deleted during the wait.")
        record = _mode_of(obj)
        waiting_for = still_missing(record, wanted, generation)
        if not waiting_for:
            return record
        if time.monotonic() >= until:
            noticed = record.get("protocol") == wanted.value
            remedy = (
                "It continues in the background: see porterlb mode."
                if noticed
                else "Is a manager running? See porterlb status."
            )
            raise PorterError(f"Eip {name}: after {patience:g} s, {waiting_for}", remedy)
        if waiting_for != said:
            said = waiting_for
            click.echo(f"Eip {name}: {waiting_for}", err=True)
        await asyncio.sleep(POLL)


def still_missing(record: Mapping[str, Any], wanted: Protocol, generation: int) -> str:
    """What is still missing, as a sentence; empty when every address is served as wanted."""
    seen = record.get("observedGeneration")
    if record.get("protocol") != wanted.value or (isinstance(seen, int) and seen < generation):
        return "the manager has not read the change yet."
    waiting = record.get("waiting") or 0
    vips = record.get("vips") or {}
    others = sum(vips.get(m.value) or 0 for m in (Mode.BGP, Mode.LAYER2) if m.value != wanted.value)
    left = max(waiting, 0 if wanted is Protocol.AUTO else others)
    if not left:
        return ""
    verb = "1 address has" if left == 1 else f"{left} addresses have"
    return f"{verb} not switched yet. {record.get('reason') or ''}".strip()


def _mode_of(obj: Mapping[str, Any]) -> Mapping[str, Any]:
    status = obj.get("status")
    found = status.get("mode") if isinstance(status, Mapping) else None
    return found if isinstance(found, Mapping) else {}
