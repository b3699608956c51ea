"""``porterlb manager``: the daemon. Every setting of :mod:`porterlb.settings` is an option made from the dataclass."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

import click

from porterlb import logs
from porterlb.cli.options import Options, cluster_options, pass_options
from porterlb.errors import PorterError
from porterlb.settings import PROFILES, Settings

SHARED = ("cluster", "kubeconfig", "context", "namespace")
"""Options that every command has."""

HTTP = ("http_host", "http_port")
"""One option: --http HOST:PORT."""

_ENVIRONMENT: Mapping[str, str] = {"node": "NODE_NAME"}


def documentation() -> dict[str, str]:
    """The docstring of each setting, by name; if several settings share one, it is below the last of them."""
    body = ast.parse(inspect.getsource(Settings)).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    waiting: list[str] = []
    for statement in body.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            waiting.append(statement.target.id)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            found.update(dict.fromkeys(waiting, " ".join(str(statement.value.value).split())))
            waiting.clear()
    return found


def environment(name: str) -> str:
    """The environment variable that a setting is read from, if its option is not given."""
    return _ENVIRONMENT.get(name, f"PORTERLB_{name.upper()}")


def _setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    texts, types = documentation(), get_type_hints(Settings)
    for setting in reversed(fields(Settings)):
        name = setting.name
        if name in SHARED or name in HTTP:
            continue
        flag = name.replace("_", "-")
        help_text = texts.get(name, "")
        if setting.default is not MISSING and setting.default not in ("", None):
            shown = ("no", "yes")[setting.default] if isinstance(setting.default, bool) else setting.default
            help_text = f"{help_text} [default: {shown}]".strip()
        boolean = types[name] is bool
        command = click.option(
            f"--{flag}/--no-{flag}" if boolean else f"--{flag}",
            name,
            type=None if boolean else types[name],
            default=None,
            envvar=environment(name),
            show_envvar=True,
            help=help_text,
        )(command)
    return command


@click.command()
@click.option(
    "--http",
    metavar="HOST:PORT",
    envvar="PORTERLB_HTTP",
    show_envvar=True,
    help="Address and port of /healthz, /readyz, /metrics and /state. [default: 127.0.0.1:7472]",
)
@click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="default",
    envvar="PORTERLB_PROFILE",
    show_envvar=True,
    help="fast: probes and hellos every 20 ms. Other options have precedence.",
)
@_setting_options
@cluster_options()
@pass_options
@click.pass_context
def manager(ctx: click.Context, options: Options, /, http: str | None, profile: str, **given: Any) -> None:
    """Run one replica until SIGTERM: assign addresses, announce them by BGP, and answer ARP and NDP for them."""
    settings = settings_from(options, http, profile, given)
    logs.set_up(settings.log_format, level=settings.log_level)
    from porterlb import app  # noqa: PLC0415  # everything that the manager needs, and nothing else does

    ctx.exit(app.run(settings))


def settings_from(options: Options, http: str | None, profile: str, given: Mapping[str, Any]) -> Settings:
    """The given options override the profile, which overrides the defaults. Raises PorterError if they are invalid."""
    values: dict[str, Any] = {
        **PROFILES[profile],
        **{name: value for name, value in given.items() if value is not None},
        **{name: getattr(options, name) for name in SHARED},
    }
    values.setdefault("node", "")
    if http is not None:
        values["http_host"], values["http_port"] = host_and_port(http)
    return Settings(**values)


def host_and_port(text: str) -> tuple[str, int]:
    """``127.0.0.1:7472``, ``[::1]:7472``, ``:7472`` (every address)."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise PorterError(f"--http: {text!r} is not HOST:PORT.", "Write for example 127.0.0.1:7472 or [::1]:7472.", 2)
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  # what --http :PORT asks for
