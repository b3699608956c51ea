"""Options that every command has, before or after its name: which cluster, and the output format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from porterlb.cluster import Cluster
from porterlb.open_cluster import open_cluster

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Options:
    """The given options; the last one counts: ``porterlb -o json eip list -o yaml`` is YAML."""

    cluster: str = "kube"
    kubeconfig: str = ""
    context: str = ""
    namespace: str = "porterlb-system"
    output: str = "table"

    def ask(self, work: Callable[[Cluster], Awaitable[T]], *, writes: bool = False) -> T:
        """Runs ``work`` with the cluster, and closes the cluster in any case."""
        import asyncio  # noqa: PLC0415  # with logging 40 ms, which --help and completion must not wait for
        import logging  # noqa: PLC0415

        # An error is reported once, in one line, by the code that ends the program.
        logging.getLogger().addHandler(logging.NullHandler())

        async def main() -> T:
            cluster = open_cluster(
                self.cluster,
                namespace=self.namespace,
                kubeconfig=self.kubeconfig,
                context=self.context,
                read_only=not writes,
            )
            try:
                return await work(cluster)
            finally:
                await cluster.close()

        return asyncio.run(main())


pass_options = click.make_pass_decorator(Options, ensure=True)


def _note(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None and param.name is not None:
        setattr(ctx.ensure_object(Options), param.name, value)


def _option(*names: str, env: str = "", **more: Any) -> Callable[[Command], Command]:
    return click.option(*names, expose_value=False, callback=_note, envvar=env or None, **more)


def cluster_options(*, env: bool = False) -> Callable[[Command], Command]:
    """--cluster and related options. ``env``: also from the environment; for the program itself only, so that a
    variable read for the command does not override an option before the command."""

    def add(command: Command) -> Command:
        for option in (
            _option("--namespace", metavar="NAME", env="POD_NAMESPACE" if env else "", help="Release namespace."),
            _option("--context", metavar="NAME", help="Context of the kubeconfig."),
            _option("--kubeconfig", metavar="FILE", help="Path of the kubeconfig."),
            _option(
                "--cluster",
                metavar="kube|dir:PATH",
                env="PORTERLB_CLUSTER" if env else "",
                help="Kubernetes API (default), or a directory of manifests.",
            ),
        ):
            command = option(command)
        return command

    return add


def output_option(command: Command) -> Command:
    """-o table|wide|json|yaml."""
    choice = click.Choice(["table", "wide", "json", "yaml"])
    text = "Output format. Default: table. wide: a table with more columns, if the command has them."
    return _option("-o", "--output", type=choice, help=text)(command)


def query(command: Command) -> Command:
    """All options of a command that queries or changes the cluster, and the Options as its first argument."""
    wrapped: Command = pass_options(cluster_options()(output_option(command)))  # type: ignore[assignment]
    return wrapped
