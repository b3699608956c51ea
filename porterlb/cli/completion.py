"""``porterlb completion``: the script for a shell, and the names of objects that it completes."""

from __future__ import annotations

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem, get_completion_class

from porterlb.cli.options import Options

VARIABLE = "_PORTERLB_COMPLETE"
"""click's variable for a program of this name: if the script sets it, the program completes instead of running."""

WITHIN = 2.0
"""Seconds for the names of objects: the user waits for them after pressing Tab."""

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell: source <(porterlb completion bash)"""
    found = get_completion_class(shell)
    assert found is not None, "click knows all three"
    # Only the script: the constructor of the class for bash would start bash to find its version.
    made = found.__new__(found)
    made.__dict__.update(cli=None, ctx_args={}, prog_name="porterlb", complete_var=VARIABLE)
    click.echo(made.source_template % made.source_vars())


Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def names(*kinds: str) -> Completer:
    """Completes the names of objects of these kinds: ``Eip``, ``Node``, ``BgpPeer``, ``Service`` (namespace/name)."""

    def complete(ctx: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
        options = ctx.ensure_object(Options)
        try:
            found = _names(options, kinds)
        except Exception:  # a failed completion must print nothing into the command line
            return []
        return [CompletionItem(name) for name in found if name.startswith(begun)]

    return complete


def _names(options: Options, kinds: tuple[str, ...]) -> list[str]:
    import asyncio  # noqa: PLC0415

    from porterlb.cluster import Cluster, Kind  # noqa: PLC0415

    async def work(cluster: Cluster) -> list[str]:
        found = []
        async with asyncio.timeout(WITHIN):
            for kind in Kind:
                if kind.kind not in kinds:
                    continue
                for obj in await cluster.objects(kind):
                    if kind is Kind.SERVICE and (obj.get("spec") or {}).get("type") != "LoadBalancer":
                        continue
                    metadata = obj["metadata"]
                    prefix = f"{metadata.get('namespace')}/" if kind is Kind.SERVICE else ""
                    found.append(f"{prefix}{metadata['name']}")
        return sorted(found)

    return options.ask(work)
