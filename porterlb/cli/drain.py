"""``porterlb drain`` and ``undrain``: take a node out of service, and say when it is safe to reboot it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import click

from porterlb.cli.completion import names
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import show_text
from porterlb.cli.replicas import Asked, ask
from porterlb.cluster import Cluster, Kind
from porterlb.core.doctor.text import some
from porterlb.core.drain import Progress, progress
from porterlb.core.mode import ModePolicy
from porterlb.core.model import Mode
from porterlb.core.parse.meta import DOMAINS
from porterlb.core.parse.node import DRAIN
from porterlb.core.whatif import Missing, offline_snapshot, what_if
from porterlb.errors import PorterError

OWNER = "porterlb-drain"
"""Field manager (server-side apply) of the annotation."""

ANNOTATION = f"{DRAIN[0]}.{DOMAINS[0]}/{DRAIN[1]}"

POLL = 0.5
"""Seconds between two queries of the replicas."""


@click.command()
@click.argument("node", shell_complete=names("Node"))
@click.option("--no-wait", is_flag=True, help="Do not wait until the node is drained.")
@click.option("--force", is_flag=True, help="Drain the node even if it is the only one that can serve some addresses.")
@click.option("--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, help="Seconds to wait.")
@query
def drain(options: Options, node: str, *, no_wait: bool, force: bool, timeout: float) -> None:
    """Take a node out of service without a loss, and say when it is safe to reboot it.

    BGP: routes to the node get the community GRACEFUL_SHUTDOWN (RFC 8326), and are withdrawn after the setting
    drain_after. Layer 2: its addresses move to other nodes at once. The pods on the node are not touched.
    """

    async def work(cluster: Cluster) -> Progress | None:
        found = await load(cluster)
        _known(found, node)
        if not force:
            _refuse_the_last(found, node)
        await _annotate(cluster, node, "true")
        return None if no_wait else await _wait(cluster, node, time.monotonic() + timeout, timeout)

    left = options.ask(work, writes=True)
    data = {"node": node, "draining": True, "safe": left.safe if left else None}
    if left is None:
        lines = [f"Node {node} drains; the result was not waited for. See porterlb status."]
    else:
        lines = [
            f"Node {node} is drained: no traffic of VIPs comes to it. It is safe to reboot it.",
            f"Its pods still run: use kubectl drain for them. Afterwards: porterlb undrain {node}",
        ]
    show_text(options.output, data, lines)


@click.command()
@click.argument("node", shell_complete=names("Node"))
@query
def undrain(options: Options, node: str) -> None:
    """Put a drained node into service again: it is announced again at once. Layer 2 addresses stay where they are."""

    async def work(cluster: Cluster) -> bool:
        found = await load(cluster)
        _known(found, node)
        # The first write takes over an annotation of another owner, the second one removes it.
        await _annotate(cluster, node, "false")
        await _annotate(cluster, node, None)
        after = await load(cluster)
        return after.objects.nodes[node].draining if node in after.objects.nodes else False

    if options.ask(work, writes=True):
        raise PorterError(f"Node {node} still has the annotation {ANNOTATION}.", "Remove it from the manifest.")
    lines = [f"Node {node} is in service again."]
    show_text(options.output, {"node": node, "draining": False, "safe": None}, lines)


def _known(found: Loaded, node: str) -> None:
    if node not in found.objects.nodes:
        there = ", ".join(sorted(found.objects.nodes))
        raise PorterError(f"There is no node {node!r}.", f"There are: {there}." if there else "", exit_code=2)


def _refuse_the_last(found: Loaded, node: str) -> None:
    """Raises PorterError if no node would serve some addresses, computed with the manager's own code."""
    result = what_if(offline_snapshot(found.objects, found.members), Missing(frozenset({node})), ModePolicy())
    lost = [
        f"{change.address} ({', '.join(map(str, change.services))})"
        for change in result.vips
        if change.before
        and change.before.mode is not Mode.NONE
        and (not change.after or change.after.mode is Mode.NONE)
    ]
    if lost:
        remedy = "Start pods or replicas on other nodes first, or give --force."
        raise PorterError(f"No other node can serve {some(lost)}.", remedy)


async def _annotate(cluster: Cluster, node: str, value: str | None) -> None:
    annotations: Mapping[str, Any] = {} if value is None else {ANNOTATION: value}
    await cluster.apply(Kind.NODE, node, "", {"metadata": {"annotations": annotations}}, owner=OWNER)


async def _wait(cluster: Cluster, node: str, until: float, patience: float) -> Progress:
    """Waits until the node gets no traffic. Raises PorterError if that takes too long or is impossible."""
    said = ""
    while True:
        found = await load(cluster)
        asked = await ask(cluster, found.members)
        left = progress(node, {name: state.state for name, state in asked.states.items()})
        text = _left(node, left, asked)
        if not text:
            return left
        if left.stuck:
            remedy = f"They stay served by it. Start pods elsewhere, or: porterlb undrain {node}"
            raise PorterError(f"Only {node} can serve {some(left.only)}: it is not safe to reboot it.", remedy)
        if time.monotonic() >= until:
            raise PorterError(f"After {patience:g} s: {text}", f"Wait longer, or: porterlb undrain {node}")
        if text != said:
            said = text
            click.echo(text, err=True)
        await asyncio.sleep(POLL)


def _left(node: str, left: Progress, asked: Asked) -> str:
    """What must still happen, as a sentence; empty: nothing."""
    if not asked.states:
        why = "; ".join(f"{name}: {reason}" for name, reason in sorted(asked.silent.items()))
        return f"No replica can be asked whether the node is drained ({why or 'there is none'})."
    if left.unaware:
        return f"Waiting for the replicas on {some(left.unaware)} to apply it."
    if left.announcing:
        return f"Routes to {node} have the community GRACEFUL_SHUTDOWN, and are withdrawn soon."
    if left.carried or left.answered:
        return f"Traffic still comes to {node} for {some((*left.carried, *left.answered))}."
    return ""
