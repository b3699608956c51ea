"""What the replicas themselves know, asked in parallel: the API learns of a dead node some 40 s later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from porterlb.cli.replica_page import replica_page
from porterlb.cluster import Cluster, Denied, NoReplica, ReplicaState, Unavailable
from porterlb.errors import PorterError

ASK_WITHIN = 0.8
"""Seconds for all replicas together: an unreachable one must not delay the answer, and a node's death must be shown
within 1 s."""

STALE = 3.0
"""Seconds after which the state that a replica wrote is outdated: it writes every second."""

FROM = 2.0
"""Seconds for the answer from one address (--from)."""


@dataclass(frozen=True)
class Asked:
    """``states``: of the replicas that answered, by node. ``silent``: why the others did not, by node. ``gone``: those
    of them that do not run, as far as the API knows."""

    states: Mapping[str, ReplicaState] = field(default_factory=dict)
    silent: Mapping[str, str] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    def saying(self, part: str, name: str, key: str, value: object) -> list[str]:
        """The replicas whose state has ``value`` at ``part[name][key]``."""
        found = []
        for node, asked in sorted(self.states.items()):
            entry = (asked.state.get(part) or {}).get(name)
            if isinstance(entry, Mapping) and entry.get(key) == value:
                found.append(node)
        return found

    @property
    def dead(self) -> dict[str, list[str]]:
        """The nodes that do not answer probes, each with the replicas that see it so."""
        names = {name for asked in self.states.values() for name in asked.state.get("nodes") or ()}
        return {name: seen for name in sorted(names) if (seen := self.saying("nodes", name, "dead", True))}

    def heard(self, node: str) -> bool | None:
        """Whether the replica on ``node`` is alive: it answered, or another one hears it. None: none could be asked."""
        if node in self.states:
            return True
        return bool(self.saying("replicas", node, "fresh", True)) if self.states else None

    def next_hops(self, addresses: Iterable[str]) -> list[str]:
        """Where the traffic of these addresses goes, according to any replica."""
        vips = [
            vip
            for _, asked in sorted(self.states.items())
            for address in addresses
            if isinstance(vip := (asked.state.get("vips") or {}).get(address), Mapping)
        ]
        return sorted({hop for vip in vips for hop in served_by(vip)})

    def askers(self, address: str) -> Mapping[str, int]:
        """For a VIP that is spread: the number of known hosts on the segment by next hop, according to the replica that
        knows most of them."""
        found = [((of.state.get("vips") or {}).get(address) or {}).get("askers") or {} for of in self.states.values()]
        return max(found, key=lambda counts: (sum(counts.values()), sorted(counts.items())), default={})

    def since(self, address: str) -> str:
        """When a VIP last moved, according to the replica that knows the latest move; empty: no replica knows."""
        found = ((state.state.get("vips") or {}).get(address) or {} for state in self.states.values())
        return max((str(vip.get("since") or "") for vip in found), default="")


def served_by(vip: Mapping[str, Any]) -> list[str]:
    """Where the traffic of a VIP goes, according to a state."""
    if vip.get("served") == "bgp":
        return [hop for hops in (vip.get("carried") or {}).values() for hop in hops]
    answering = vip.get("answering")
    return list(vip.get("hosts") or ()) or ([answering["nextHop"]] if answering else [])


async def ask(cluster: Cluster, nodes: Iterable[str], within: float = ASK_WITHIN) -> Asked:
    """Asks the replicas on ``nodes`` in parallel."""
    nodes = list(nodes)
    answers = await asyncio.gather(*(_ask(cluster, node, within) for node in nodes))
    found = dict(zip(nodes, answers, strict=True))
    return Asked(
        {node: answer for node, answer in found.items() if isinstance(answer, ReplicaState)},
        {node: str(answer).rstrip(".") for node, answer in found.items() if isinstance(answer, Exception)},
        frozenset(node for node, answer in found.items() if isinstance(answer, NoReplica)),
    )


async def _ask(cluster: Cluster, node: str, within: float) -> ReplicaState | Exception:
    """The state, or why it is not known."""
    try:
        async with asyncio.timeout(within):
            answer = await cluster.replica_state(node)
    except TimeoutError:
        return Unavailable(f"it has not answered within {within:g} s")
    except (Unavailable, Denied) as error:
        return error
    if answer.age > STALE:
        return Unavailable(f"it was heard {answer.age:.0f} s ago")
    if "vips" not in answer.state:
        return Unavailable(str(answer.state.get("waitingFor") or "it has not planned yet"))
    return answer


def read(url: str) -> ReplicaState:
    """The state that a replica serves at ``url``; for a node without the API. Raises PorterError."""
    state = _state_at(url)
    if "vips" not in state:
        why = str(state.get("waitingFor") or "it is not the address of a manager")
        raise PorterError(f"{url} knows nothing yet: {why}", "Try again in a moment.")
    return ReplicaState(str(state.get("node") or ""), state, 0.0, url)


def reach(url: str) -> None:
    """Raises PorterError if no manager answers at ``url``; one that knows nothing yet counts."""
    if not _state_at(url).keys() & {"vips", "waitingFor"}:
        raise PorterError(f"{url} is not the address of a manager.", _HERE)


def _state_at(url: str) -> dict[str, Any]:
    try:
        status, text = replica_page(url, "/state", FROM)
    except OSError as error:
        raise PorterError(f"{url} cannot be read: {error}.", _HERE) from None
    if status != 200:
        raise PorterError(f"{url} answers with status {status}.", _HERE)
    try:
        state: Any = json.loads(text)
    except ValueError as error:
        raise PorterError(f"{url} is not the address of a manager: {error}.", _HERE) from None
    return state if isinstance(state, dict) else {}


def recording(url: str) -> str:
    """What the replica at ``url`` has recorded in memory; empty if it returns none."""
    try:
        status, text = replica_page(url, "/record", RECORDING_WITHIN)
    except OSError:
        return ""
    return text if status == 200 else ""


RECORDING_WITHIN = 30.0
"""Seconds: the text is made on request."""

_HERE = "Run it on a node of the cluster, with the address of --http (http://127.0.0.1:7472 by default)."
