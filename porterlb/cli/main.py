"""``porterlb``, also installed as ``kubectl-porterlb``."""

from __future__ import annotations

import contextlib
import importlib
import keyword
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import click

from porterlb.cli.options import cluster_options, output_option
from porterlb.cluster import Conflict, Denied, Unavailable
from porterlb.errors import PorterError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "status": ("status", "Show an overview: replicas, nodes, pools, sessions, Services and problems."),
    "explain": ("explain", "Follow one Service from its address to the wire, with the reason of each step."),
    "doctor": ("doctor", "Look for what is wrong, and say what to do."),
    "dashboard": ("dashboard", "Open the status page of a replica in a browser."),
    "history": ("history", "What happened: moves of addresses, nodes, sessions, the leader."),
    "service": ("lists", "Show the LoadBalancer Services that PorterLB serves."),
    "eip": ("lists", "Show pools of addresses."),
    "peer": ("lists", "Show BGP peers."),
    "mode": ("mode", "Show or switch the protocol of each Eip."),
    "plan": ("plan", "Show what would change without a node, a peer or a replica."),
    "rebalance": ("rebalance", "Show which Layer 2 VIPs would move to spread them evenly, or move them."),
    "drain": ("drain", "Take a node out of service without a loss."),
    "undrain": ("drain", "Put a drained node into service again."),
    "replay": ("replay", "Run a recording again: what was decided, and why."),
    "import": ("migrate", "Convert the configuration of MetalLB or OpenELB."),
    "version": ("version", "The release of this command and of the replicas."),
    "completion": ("completion", "Print the completion script of a shell."),
    "crds": ("crds", "Print the custom resource definitions."),
    "manager": ("manager", "Run one replica, until SIGTERM."),
}
"""By name: the module in porterlb.cli that has the command, and its line in ``porterlb --help``. A module is loaded
when its command is used: loading all of them would delay help and completion too much."""


class Commands(click.Group):
    """Loads a command when it is requested."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *(name for name in super().list_commands(ctx) if name not in COMMANDS)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(f"porterlb.cli.{COMMANDS[cmd_name][0]}")
        found = getattr(module, f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from porterlb.release import release  # noqa: PLC0415  # 60 ms

        click.echo(f"porterlb, version {release()}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version and exit.",
)
@cluster_options(env=True)
@output_option
def cli() -> None:
    """Load balancer for bare-metal Kubernetes: BGP first, Layer 2 when BGP is unavailable."""


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the program: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Runs the command line; every error is one line on standard error. Returns the exit code."""
    program = Path(sys.argv[0]).name
    name = "kubectl porterlb" if program.startswith("kubectl-") else "porterlb"
    try:
        code = cli.main(args=list(args) if args is not None else None, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        return _fail(name, f"{error.format_message()} {_help(error)}", error.exit_code)
    except click.ClickException as error:
        return _fail(name, error.format_message(), error.exit_code)
    except PorterError as error:
        return _fail(name, str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        # The reader has closed the pipe (| head). Python would report that again when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Unavailable as error:
        return _fail(name, f"The cluster cannot be reached: {error} Is --cluster (or PORTERLB_CLUSTER) right?")
    except Denied as error:
        return _fail(name, f"The API answers, but refuses: {error}")
    except Conflict as error:
        return _fail(name, f"Another program changed the object at the same time: {error} Try again.")
    except Exception as error:
        if os.environ.get("PORTERLB_DEBUG"):
            raise
        text = f"{type(error).__name__}: {error}"
        return _fail(name, f"Internal error: {text} Set PORTERLB_DEBUG=1 to see the traceback, and report it.")
    return code if isinstance(code, int) else 0


def _help(error: click.UsageError) -> str:
    path = error.ctx.command_path if error.ctx else "porterlb"
    return f"Try '{path} --help'."


def _fail(name: str, message: str, code: int = 1) -> int:
    click.echo(f"{name}: {' '.join(message.split())}", err=True)
    return code
