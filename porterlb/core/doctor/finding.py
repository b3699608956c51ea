"""One finding, and the display order of findings: causes before their consequences."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass


class Severity(enum.StrEnum):
    """An error prevents service now or at the next failure; a warning does not yet."""

    ERROR = "error"
    WARNING = "warning"


class Check(enum.StrEnum):
    """The subject of a finding. The order is the display order within one severity: earlier ones may be the cause of
    later ones."""

    API = "api"
    CRDS = "crds"
    RIGHTS = "rights"
    MANAGERS = "managers"
    RELEASES = "releases"
    CLOCKS = "clocks"
    HELLOS = "hellos"
    SPEAKERS = "speakers"
    NODES = "nodes"
    KUBE_PROXY = "kube-proxy"
    SYSCTLS = "sysctls"
    INTERFACES = "interfaces"
    MEMORY = "memory"
    OBJECTS = "objects"
    PEERS = "peers"
    SESSIONS = "sessions"
    POOLS = "pools"
    CONFLICTS = "conflicts"
    OTHERS = "other-load-balancers"
    SERVICES = "services"


@dataclass(frozen=True, slots=True)
class Finding:
    """``where``: the object, node or file. ``what``: the problem, a sentence. ``do``: what to do, a sentence."""

    check: Check
    severity: Severity
    where: str
    what: str
    do: str


_CHECKS = {check: rank for rank, check in enumerate(Check)}
_SEVERITIES = {severity: rank for rank, severity in enumerate(Severity)}


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each finding once: errors first, then by check, then by place."""

    def rank(one: Finding) -> tuple[int, int, str, str]:
        return _SEVERITIES[one.severity], _CHECKS[one.check], one.where, one.what

    return tuple(sorted(dict.fromkeys(findings), key=rank))


def verdict(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity; None if there are no findings."""
    found = {one.severity for one in findings}
    return next((severity for severity in Severity if severity in found), None)
