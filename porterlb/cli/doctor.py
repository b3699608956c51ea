"""``porterlb doctor``: collects the facts, shows the findings, and packs both into a file for a bug report."""

from __future__ import annotations

import asyncio
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import click

from porterlb import crds
from porterlb.cli import bundle as bundles
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import show_text
from porterlb.cli.replicas import Asked, ask, read, recording
from porterlb.cluster import Cluster, Denied, Unavailable
from porterlb.core.doctor.examine import examine
from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Finding, Severity, verdict
from porterlb.core.doctor.installation import active_writers
from porterlb.core.doctor.pools import ranges_of
from porterlb.core.model import Network, ServiceKey, Snapshot
from porterlb.core.whatif import Missing, offline_snapshot, without
from porterlb.release import release

HEALTHY, WARNINGS, ERRORS = 0, 3, 4
"""Exit codes, as those of ``explain``; 1 is an error of the command itself, 2 wrong usage."""

_CODES = {None: HEALTHY, Severity.WARNING: WARNINGS, Severity.ERROR: ERRORS}

ASK_WITHIN = 3.0
"""Seconds for all replicas together: here a slow answer is better than none."""


@dataclass
class Collected:
    """``found``: None if the objects could not be read."""

    facts: Facts
    asked: Asked = field(default_factory=Asked)
    found: Loaded | None = None
    texts: Mapping[str, str] = field(default_factory=dict)


@click.command()
@click.option("--bundle", metavar="FILE", help="Also write a .tar.gz for a bug report, without secrets.")
@click.option("--from", "source", metavar="URL", help="Ask one replica only, without the API: http://127.0.0.1:7472.")
@query
@click.pass_context
def doctor(ctx: click.Context, options: Options, bundle: str | None, source: str | None) -> None:
    """Look for what is wrong: in the API, the managers, the nodes, the sessions, the pools and the Services.

    Each finding says what, where, and what to do. Exit code 0: nothing found; 3: warnings; 4: errors.
    """
    if source:
        one = read(source)
        asked = Asked({one.node: one})
        collected = Collected(Facts(release=release(), states={one.node: one.state}, clocks=_clocks(asked)), asked)
        if bundle and (text := recording(source)):
            collected.texts = {f"{one.node}/{bundles.RECORDING}": text}
    else:

        async def work(cluster: Cluster) -> Collected:
            return await collect(cluster, texts=bool(bundle))

        collected = options.ask(work)
    findings = examine(collected.facts)
    data = as_json(findings, collected.facts)
    if bundle:
        bundles.write(Path(bundle), bundles.contents(data, collected.found, collected.asked, collected.texts))
        click.echo(f"{bundle} was written. Read it before you send it: names and addresses are in it.", err=True)
    show_text(options.output, data, lines(findings, collected.facts, _width()))
    ctx.exit(_CODES[verdict(findings)])


async def collect(cluster: Cluster, *, texts: bool = False) -> Collected:
    """Reads everything that can be read; anything else becomes a finding. ``texts``: also logs and metrics."""
    installing = asyncio.create_task(cluster.installation())
    try:
        try:
            found = await load(cluster)
        except (Unavailable, Denied) as error:
            refused = isinstance(error, Denied)
            facts = Facts(release=release(), api=str(error), refused=refused, schemas=_schemas())
            return Collected(replace(facts, installation=await installing) if refused else facts)
        asked = await ask(cluster, found.members, ASK_WITHIN)
        written: dict[str, str] = {}
        for node in asked.states if texts else ():
            try:
                more = await cluster.replica_texts(node)
            except (Unavailable, Denied) as error:
                more = {"unread.txt": f"{error}\n"}
            written |= {f"{node}/{name}": text for name, text in more.items()}
        facts = facts_of(found, asked)
        return Collected(replace(facts, installation=await installing), asked, found, written)
    finally:
        installing.cancel()


def facts_of(found: Loaded, asked: Asked) -> Facts:
    """The facts from objects and replicas, without the installation."""
    objects = found.objects
    nodes = {key.name: obj for key, obj in found.each("Node")}
    services = dict(found.each("Service"))
    ours = {ServiceKey(key.namespace, key.name): obj for key, obj in services.items()}
    writers = {
        key: active
        for key, obj in ours.items()
        if key in objects.services and (active := active_writers((obj.get("metadata") or {}).get("managedFields")))
    }
    pods = {name: _networks((obj.get("spec") or {}).get("podCIDRs")) for name, obj in nodes.items()}
    cluster_ips = [net for obj in ours.values() for net in _networks((obj.get("spec") or {}).get("clusterIPs"))]
    return Facts(
        release=release(),
        snapshot=_snapshot(found, asked),
        problems=objects.problems,
        broken=found.broken,
        leader=found.leader,
        states={node: state.state for node, state in asked.states.items()},
        silent=asked.silent,
        gone=asked.gone,
        clocks=_clocks(asked),
        ranges=ranges_of(pods, (), cluster_ips),
        writers=writers,
        schemas=_schemas(),
    )


def _snapshot(found: Loaded, asked: Asked) -> Snapshot:
    """The objects, with the sessions that the replicas have now, and without the nodes that they find dead."""
    snapshot = offline_snapshot(found.objects, found.members)
    told = {
        (node, str(peer))
        for node, state in asked.states.items()
        for peer in ((state.state.get("replicas") or {}).get(node) or {}).get("sessions") or ()
    }
    kept = {session for session in snapshot.view.sessions if session[0] not in asked.states}
    snapshot = replace(snapshot, view=replace(snapshot.view, sessions=frozenset(kept | told)))
    nodes = frozenset(name for name in asked.dead if name in found.objects.nodes)
    silent = frozenset(name for name in found.members if asked.heard(name) is False)
    return without(snapshot, Missing(nodes, replicas=silent - nodes))


def _clocks(asked: Asked) -> dict[str, float]:
    """Seconds by which the clocks of nodes are ahead of ours; not for states from files, whose age is unknown."""
    now = time.time()
    found = {node: state.state.get("clock") for node, state in asked.states.items() if state.source != "file"}
    return {node: float(clock) - now for node, clock in found.items() if isinstance(clock, int | float)}


def _networks(texts: object) -> list[Network]:
    found: list[Network] = []
    for text in texts if isinstance(texts, list) else ():
        try:
            found.append(ip_network(str(text), strict=False))
        except ValueError:
            continue  # "None": a headless Service
    return found


def _schemas() -> dict[str, Mapping[str, Any]]:
    return {kind: crds.schema(kind) for kind in crds.load()}


def as_json(findings: Sequence[Finding], facts: Facts) -> dict[str, Any]:
    """The stable shape: ``verdict``, ``findings``, ``unread``."""
    worst = verdict(findings)
    return {
        "verdict": worst.value if worst else "healthy",
        "release": facts.release,
        "findings": [
            {
                "check": one.check.value,
                "severity": one.severity.value,
                "where": one.where,
                "what": one.what,
                "do": one.do,
            }
            for one in findings
        ],
        "unread": dict(facts.installation.unread),
    }


def lines(findings: Sequence[Finding], facts: Facts, width: int = 0) -> list[str]:
    """The text output: the findings, the worst first, then a summary. ``width`` 0: lines are not broken."""
    shown: list[str] = []
    for one in findings:
        shown += _wrapped(f"{one.severity.value.upper()} {one.where}: {one.what}", "  ", width)
        shown += _wrapped(f"  To do: {one.do}", "    ", width)
    errors = sum(one.severity is Severity.ERROR for one in findings)
    replicas = f"{len(facts.states)} replicas" if len(facts.states) != 1 else "1 replica"
    counted = f"{_many(errors, 'error')}, {_many(len(findings) - errors, 'warning')}"
    shown.append(f"{counted if findings else 'Nothing is wrong'} ({replicas} asked).")
    shown += [f"Not checked: {what}: {why}" for what, why in sorted(facts.installation.unread.items())]
    return shown


def _many(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _wrapped(text: str, indent: str, width: int) -> list[str]:
    if not width:
        return [text]
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    ) or [""]


def _width() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
