"""``porterlb``, also installed as ``kubectl-porterlb``."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from porterlb.cli.crds import crds
from porterlb.cli.doctor import doctor
from porterlb.cli.drain import drain, undrain
from porterlb.cli.explain import explain
from porterlb.cli.history import history
from porterlb.cli.lists import eip, peer, service
from porterlb.cli.manager import manager
from porterlb.cli.mode import mode
from porterlb.cli.options import cluster_options, output_option
from porterlb.cli.plan import plan
from porterlb.cli.status import status
from porterlb.cluster import Conflict, Denied, Unavailable
from porterlb.errors import PorterError
from porterlb.release import release


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(release(), prog_name="porterlb")
@cluster_options(env=True)
@output_option
def cli() -> None:
    """Load balancer for bare-metal Kubernetes: BGP first, Layer 2 when BGP is unavailable."""


for _command in (manager, status, explain, doctor, history, mode, eip, peer, service, plan, drain, undrain, crds):
    cli.add_command(_command)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the program: 0, 1 for what went wrong, 2 for wrong usage, 130 for Ctrl-C."""
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
        # Whoever reads has had enough (| head). Python would complain once more when it flushes at exit.
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
