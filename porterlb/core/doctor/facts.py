"""The input of the findings: plain values that the command line has collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porterlb.core.doctor.installed import Installation
from porterlb.core.model import Network, ServiceKey, Snapshot
from porterlb.core.objects import ObjectKey
from porterlb.core.problems import Problem

State = Mapping[str, Any]
"""The content of a replica's /state: see :mod:`porterlb.core.status.state`. An older replica omits parts."""


@dataclass(frozen=True, slots=True)
class Facts:
    """``release``: of the command line. ``api``: why the objects could not be read, empty if they were; ``refused``:
    the API answers, but refuses. ``snapshot``: the objects, without the replicas' verdicts on dead nodes; None: not
    read.

    ``states``: by node, of the replicas that answered; ``silent``: why the others did not; ``gone``: those of them that
    do not run, as far as the API knows. ``clocks``: seconds by which the clock of a node is ahead of the local one.
    ``ranges``: networks that no pool may overlap, with a description. ``writers``: other field managers of the
    addresses of Services. ``schemas``: of our kinds, as in this release.
    """

    release: str = ""
    api: str = ""
    refused: bool = False
    snapshot: Snapshot | None = None
    problems: Mapping[ObjectKey, tuple[Problem, ...]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    leader: str = ""
    states: Mapping[str, State] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    clocks: Mapping[str, float] = field(default_factory=dict)
    ranges: Mapping[Network, str] = field(default_factory=dict)
    writers: Mapping[ServiceKey, tuple[str, ...]] = field(default_factory=dict)
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    installation: Installation = Installation()
