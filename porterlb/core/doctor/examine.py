"""Every check, on one set of facts."""

from __future__ import annotations

from dataclasses import replace

from porterlb.core.doctor import host, installation, pools, replicas, sessions
from porterlb.core.doctor.facts import Facts
from porterlb.core.doctor.finding import Finding, ordered
from porterlb.core.doctor.text import sentence

_PARTS = (installation.findings, replicas.findings, host.findings, sessions.findings, pools.findings)


def examine(facts: Facts) -> tuple[Finding, ...]:
    """All findings, the most severe and likely causes first. The same facts give the same findings."""
    found = (finding for part in _PARTS for finding in part(facts))
    return ordered(replace(finding, what=sentence(finding.what)) for finding in found)
