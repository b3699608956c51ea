"""Lets replicas ask their segments which hosts answer for VIPs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence

from porterlb.cli.replica_page import replica_page
from porterlb.cluster import Cluster, Denied, Unavailable
from porterlb.core.layer2.inquiry import MOST, Outcome, read

WITHIN = 3.0
"""Seconds for the answers of all replicas: each listens for about 1 s, after the previous inquiry."""

Heard = Mapping[str, Sequence[Outcome] | str]
"""By node of the replica that asked: what it heard, or why the replica cannot be asked."""


async def ask_segment(cluster: Cluster, askers: Iterable[str], addresses: Sequence[str]) -> Heard:
    """Lets these replicas ask, in parallel."""
    askers = list(askers)
    answers = await asyncio.gather(*(_ask(cluster, node, _path(addresses)) for node in askers))
    return dict(zip(askers, answers, strict=True))


def ask_at(url: str, node: str, addresses: Sequence[str]) -> Heard:
    """Lets the replica on ``node``, which serves HTTP at ``url``, ask."""
    try:
        status, text = replica_page(url, _path(addresses), WITHIN)
    except OSError as error:
        return {node: str(error)}
    return {node: _outcomes(text) if status == 200 else text.strip().rstrip(".")}


async def _ask(cluster: Cluster, node: str, path: str) -> Sequence[Outcome] | str:
    try:
        async with asyncio.timeout(WITHIN):
            return _outcomes(await cluster.replica_page(node, path))
    except TimeoutError:
        return f"it has not answered within {WITHIN:g} s"
    except (Unavailable, Denied) as error:
        return str(error).rstrip(".")


def _path(addresses: Sequence[str]) -> str:
    return f"/ask?{','.join(addresses[:MOST])}"


def _outcomes(text: str) -> Sequence[Outcome] | str:
    try:
        return [read(row) for row in json.loads(text)["outcomes"]]
    except (ValueError, KeyError, TypeError):
        return "its answer cannot be read: it may run another version"
