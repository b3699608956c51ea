"""Options that choose what a list shows: -n, -A, --eip, --node, --problems."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from porterlb.cli.completion import names
from porterlb.errors import PorterError

Command = TypeVar("Command", bound=Callable[..., Any])
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """What to show. Empty fields: everything."""

    namespace: str = ""
    eip: str = ""
    node: str = ""
    problems: bool = False

    def services(self, rows: Iterable[Row]) -> list[Row]:
        """Rows of Services: in this namespace, with an address of this Eip, and with traffic to this node."""
        return [
            row
            for row in rows
            if self.namespace in ("", row["namespace"])
            and (not self.eip or self.eip in row["eips"])
            and (not self.node or self.node in row["nextHops"])
            and (not self.problems or service_wrong(row))
        ]

    def eips(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in rows if self.eip in ("", row["name"]) and (not self.problems or eip_wrong(row))]

    def peers(self, rows: Iterable[Row]) -> list[Row]:
        """Rows of peers, with the sessions of this node, and those that are not established."""
        found = []
        for row in rows:
            kept = [session for session in row["sessions"] if self.node in ("", session["node"])]
            if self.problems:
                kept = [session for session in kept if session["state"] != "ESTABLISHED"]
            alone = not row["sessions"] and not self.node
            if kept or (alone and (not self.problems or peer_wrong(row))):
                found.append({**row, "sessions": kept})
        return found

    def nodes(self, rows: Iterable[Row]) -> list[Row]:
        return [row for row in rows if self.node in ("", row["name"])]

    def known(self, eips: Iterable[str], nodes: Iterable[str]) -> None:
        """Raises PorterError for a name that does not exist."""
        for what, name, there in (("Eip", self.eip, sorted(eips)), ("node", self.node, sorted(nodes))):
            if name and name not in there:
                remedy = f"There are: {', '.join(there)}." if there else f"There is no {what}."
                raise PorterError(f"There is no {what} {name!r}.", remedy, exit_code=2)


EVERYTHING = Filter()


def service_wrong(row: Mapping[str, Any]) -> bool:
    """Whether a Service has a problem."""
    return row["serving"] != "True" or bool(row["problems"])


def eip_wrong(row: Mapping[str, Any]) -> bool:
    unserved = bool(row["used"]) and row["mode"] in ("none", "mixed")
    return row["ready"] not in ("True", "") or bool(row["problems"]) or unserved


def peer_wrong(row: Mapping[str, Any]) -> bool:
    down = any(session["state"] != "ESTABLISHED" for session in row["sessions"])
    return down or row["ready"] not in ("True", "", None) or bool(row["problems"]) or not row["sessions"]


_OPTIONS: Mapping[str, Callable[[Command], Command]] = {
    "namespace": click.option(
        "-n", "namespace_", metavar="NAMESPACE", default="", help="Only Services of this namespace."
    ),
    "all": click.option("-A", "all_", is_flag=True, help="Services of all namespaces (default)."),
    "eip": click.option(
        "--eip", metavar="NAME", default="", shell_complete=names("Eip"), help="Only this Eip and its Services."
    ),
    "node": click.option(
        "--node", metavar="NAME", default="", shell_complete=names("Node"), help="Only what concerns this node."
    ),
    "problems": click.option("--problems", is_flag=True, help="Only what has a problem."),
}


def filters(*wanted: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds these options; the command gets them as ``chosen``, a :class:`Filter`."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        def work(*args: Any, **given: Any) -> Any:
            all_ = given.pop("all_", False)
            namespace = given.pop("namespace_", "")
            chosen = Filter(
                "" if all_ else namespace,
                given.pop("eip", ""),
                given.pop("node", ""),
                given.pop("problems", False),
            )
            return command(*args, chosen=chosen, **given)

        work.__doc__, work.__name__ = command.__doc__, command.__name__
        found: Callable[..., Any] = work
        for name in reversed(wanted):
            found = _OPTIONS[name](found)
        return found

    return add
