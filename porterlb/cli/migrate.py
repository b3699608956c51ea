"""``porterlb import``: manifests of PorterLB from those of another load balancer. Reads files; changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from porterlb.cli.options import Options, output_option, pass_options
from porterlb.cli.output import show
from porterlb.core.migration import metallb, openelb
from porterlb.core.migration.value import Conversion, Weight
from porterlb.edge.manifests import yamltext
from porterlb.errors import PorterError

CONVERTERS = {"metallb": metallb.convert, "openelb": openelb.convert}
INCOMPLETE = 3
"""Exit code if something was not converted."""
LARGEST = 64 << 20
"""Bytes of all input."""


@click.command("import")
@click.argument("product", type=click.Choice(sorted(CONVERTERS)))
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, allow_dash=True))
@output_option
@pass_options
@click.pass_context
def import_(ctx: click.Context, options: Options, product: str, files: tuple[str, ...]) -> None:
    """Convert the configuration of MetalLB or OpenELB.

    FILES are YAML manifests or the output of kubectl get -o yaml; - is standard input. The manifests are printed on
    standard output, and remarks on standard error. The cluster is not contacted. Exit code 3: some fields are not
    converted.
    """
    objects = [obj for file in files for obj in read(file)]
    made = CONVERTERS[product](objects)
    if not made.manifests:
        raise PorterError(f"There is no object of {product} in the input.", exit_code=1)
    if options.output == "json":
        show("json", as_data(made), [])
    else:
        print(yaml.safe_dump_all(made.manifests, sort_keys=False, allow_unicode=True), end="")
        for remark in made.remarks:
            print(remark, file=sys.stderr)
    ctx.exit(INCOMPLETE if any(remark.weight is Weight.LOST for remark in made.remarks) else 0)


def as_data(made: Conversion) -> dict[str, Any]:
    """The stable shape of ``-o json``."""
    return {
        "manifests": made.manifests,
        "remarks": [
            {"weight": remark.weight.value, "object": remark.subject, "text": remark.text} for remark in made.remarks
        ],
    }


def read(file: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a file, those of a List one by one. Raises PorterError."""
    try:
        data = sys.stdin.buffer.read(LARGEST + 1) if file == "-" else Path(file).read_bytes()
        text = data.decode("utf-8")
    except OSError as error:
        raise PorterError(f"{file} cannot be read: {error.strerror}.", exit_code=2) from None
    except UnicodeDecodeError:
        raise PorterError(f"{file} is not UTF-8 text.", exit_code=2) from None
    if len(data) > LARGEST:
        raise PorterError(f"{file} is larger than {LARGEST >> 20} MiB.", exit_code=2)
    try:
        for tree in yamltext.documents(text):
            yield from _flat(tree.value)
    except yamltext.Unreadable as error:
        raise PorterError(f"{file}:{error.line}: {error.message}", exit_code=2) from None


def _flat(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping) and isinstance(value.get("items"), list):
        for item in value["items"]:
            yield from _flat(item)
    elif isinstance(value, Mapping):
        yield value
