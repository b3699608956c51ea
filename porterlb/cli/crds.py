"""``porterlb crds``: the custom resource definitions, for kubectl."""

from __future__ import annotations

import click

from porterlb import crds as definitions


@click.command()
def crds() -> None:
    """Print the custom resource definitions as YAML: porterlb crds | kubectl apply --server-side -f -"""
    click.echo("---\n".join(definitions.text(name) for name in definitions.NAMES), nl=False)
