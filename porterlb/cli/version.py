"""``porterlb version``: the release of this command, and of each replica that can be asked."""

from __future__ import annotations

import click

from porterlb.cli.loading import members_of
from porterlb.cli.options import Options, query
from porterlb.cli.output import show_text
from porterlb.cli.replicas import Asked, ask
from porterlb.cluster import Cluster, Denied, Unavailable
from porterlb.core.doctor.replicas import host_of
from porterlb.release import release


@click.command()
@click.option("--client", is_flag=True, help="Only the release of this command; nothing is asked.")
@query
def version(options: Options, *, client: bool) -> None:
    """Show the release of this command and of each replica that can be asked."""
    asked, why = Asked(), ""
    if not client:
        try:
            asked = options.ask(_ask)
        except (Unavailable, Denied) as error:
            why = str(error)
    replicas = {
        node: str(host_of(state.state).get("release") or "unknown") for node, state in sorted(asked.states.items())
    }
    lines = [f"porterlb {release()}", *(f"replica on {node}: {found}" for node, found in replicas.items())]
    lines += [f"replica on {node}: cannot be asked: {reason}" for node, reason in sorted(asked.silent.items())]
    if why:
        lines.append(f"The replicas cannot be asked: {why}")
    data = {"client": release(), "replicas": replicas, "silent": dict(asked.silent), "problem": why}
    show_text(options.output, data, lines)


async def _ask(cluster: Cluster) -> Asked:
    return await ask(cluster, members_of(await cluster.leases()))
