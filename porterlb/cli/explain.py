"""``porterlb explain``: one Service, followed from its address to the wire, with the reason of each step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from porterlb.cli.completion import names
from porterlb.cli.history import merged
from porterlb.cli.loading import Loaded, load
from porterlb.cli.options import Options, query
from porterlb.cli.output import Table, show
from porterlb.cli.replicas import Asked, ask, read
from porterlb.cli.segment import Heard, ask_at, ask_segment
from porterlb.cluster import Cluster
from porterlb.core.layer2.inquiry import written
from porterlb.core.model import ServiceKey
from porterlb.core.sentences import clauses
from porterlb.core.status import on_segment
from porterlb.core.status.on_segment import AskerReport, Comparison, PlannedAnswer
from porterlb.errors import PorterError

SERVED, DEGRADED, NOT_SERVED = 0, 3, 4
"""Exit codes; 1 is an error, 2 wrong usage."""

MOVES = 5
"""Number of history entries to show: the latest ones of the Service's addresses."""

State = Mapping[str, Any]

_DRAIN = {
    "announced": "routes with the community GRACEFUL_SHUTDOWN",
    "withdrawn": "next hop of nothing that others serve",
}


@dataclass
class Explanation:
    """``steps``: each step, with its state and reason. ``problems``: why it is not served, or not completely."""

    name: str
    code: int = SERVED
    steps: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seen: list[AskerReport] = field(default_factory=list)
    """What the replicas heard on their segments."""

    def add(self, step: str, text: str) -> None:
        self.steps.append((step, text))

    def worse(self, code: int, why: str) -> None:
        self.code = max(self.code, code)
        if why and why not in self.problems:
            self.problems.append(why)

    @property
    def verdict(self) -> str:
        return {SERVED: "served", DEGRADED: "degraded", NOT_SERVED: "not served"}[self.code]


@click.command()
@click.argument("name", metavar="NAMESPACE/SERVICE|ADDRESS", shell_complete=names("Service"))
@click.option("--from", "source", metavar="URL", help="Query one replica only, without the API: http://127.0.0.1:7472.")
@click.option("--wire", "segment", is_flag=True, help="Ask the segment who answers, and compare (about 1 s).")
@query
@click.pass_context
def explain(ctx: click.Context, options: Options, name: str, source: str | None, segment: bool) -> None:
    """Show each step from the address of a Service to the wire, with the reasons of the replicas.

    With --wire, replicas send an ARP request or a neighbor solicitation for each Layer 2 address. Exit code 3 if the
    answers differ from the plan.

    Exit code 0: served; 3: degraded; 4: not served.
    """
    found: Loaded | None = None
    heard: Heard | None = None
    if source:
        one = read(source)
        asked = Asked({one.node: one})
        if segment and (vips := askable(name, asked)):
            heard = ask_at(source, one.node, vips)
    else:

        async def work(cluster: Cluster) -> tuple[Loaded, Asked, Heard | None]:
            there = await load(cluster)
            answered = await ask(cluster, there.members)
            vips = askable(name, answered) if segment else []
            if not vips:
                return there, answered, None
            return there, answered, await ask_segment(cluster, _askers(vips, answered), vips)

        found, asked, heard = options.ask(work)
        if not asked.states:
            raise PorterError("No replica can be asked what it has decided.", "See porterlb status.")
    made = explained(name, asked, found, (heard or {}) if segment else None)
    data = {
        "name": made.name,
        "verdict": made.verdict,
        "problems": made.problems,
        "steps": [{"step": step, "text": text} for step, text in made.steps],
        **({"segment": [_as_json(seen) for seen in made.seen]} if segment else {}),
    }
    tables = [Table(("STEP", "WHAT"), [("Verdict", made.verdict), *made.steps])]
    show(options.output, data, tables, made.problems)
    ctx.exit(made.code)


def askable(name: str, asked: Asked) -> list[str]:
    """The addresses of a Service to ask the segment about: replicas answer for them in Layer 2, or should."""
    if not asked.states:
        return []
    _, state = _witness(asked)
    service = _service(name, state)
    addresses = (state["services"].get(service) or {}).get("addresses", ()) if service else ()
    return [address for address in addresses if _in_layer2(state["vips"].get(address))]


def _in_layer2(vip: State | None) -> bool:
    return vip is not None and (bool(vip["answering"]) or vip["mode"] == "layer2")


def _askers(vips: Iterable[str], asked: Asked) -> list[str]:
    """The replicas that ask: each asks for all of these addresses."""
    _, state = _witness(asked)
    answerers = sorted({_planned(state["vips"][vip]).answerer for vip in vips})
    return list(dict.fromkeys(node for answerer in answerers for node in on_segment.askers(asked.states, answerer)))


def _planned(vip: State) -> PlannedAnswer:
    answering = vip["answering"]
    if not answering:
        return PlannedAnswer()
    hops = frozenset(vip.get("hosts") or [answering["nextHop"]])
    return PlannedAnswer(hops, str(answering["answerer"]))


def explained(name: str, asked: Asked, found: Loaded | None, heard: Heard | None = None) -> Explanation:
    """Raises PorterError if no such Service is known. ``heard``: what the segments answered; None: not asked."""
    node, state = _witness(asked)
    service = _service(name, state)
    if service is None:
        raise PorterError(
            f"PorterLB serves no Service with the name or address {name}.", _there(state, name), exit_code=2
        )
    made = Explanation(service)
    if found is not None:
        for problem in found.problems("Service", *service.partition("/")[::2]):
            made.add("Object", problem["message"])
            made.worse(NOT_SERVED if problem["fatal"] else DEGRADED, problem["message"])
    allocation = state["services"].get(service) or {}
    addresses = allocation.get("addresses", ())
    pools = zip(addresses, allocation.get("eips", ()), strict=False)
    given = [f"{address} from Eip {eip}" for address, eip in pools]
    made.add("Address", ", ".join(given) or "none")
    for text in allocation.get("problems", ()):
        made.add("", text)
        made.worse(DEGRADED if addresses else NOT_SERVED, text)
    if not addresses:
        made.worse(NOT_SERVED, "")
    if found is not None:
        made.add("Endpoints", _endpoints(found, service))
    if death := allocation.get("atNodeDeath"):
        made.add("Node's death", death)
    out = [f"{n} {known['why']}" for n, known in sorted(state["nodes"].items()) if known.get("why")]
    made.add("Nodes", f"{len(state['nodes']) - len(out)} usable" + (f"; left out: {', '.join(out)}" if out else ""))
    drains = [f"{n} ({_DRAIN[stage]})" for n, known in sorted(state["nodes"].items()) if (stage := known.get("drain"))]
    if drains:
        made.add("Drained", ", ".join(drains))
    for address in addresses:
        _address(made, address, state, asked)
        if heard is not None:
            _segment(made, address, state["vips"].get(address), heard)
    for entry in _moves(asked, addresses):
        made.add("History", f"{entry['time']} {entry['message']}")
    made.add("Source", f"the replica on {node} ({asked.states[node].source}, {asked.states[node].age:.1f} s old)")
    return made


def _witness(asked: Asked) -> tuple[str, State]:
    """The replica whose state is used: the leader, because only it allocates; otherwise the first."""
    leaders = [node for node, found in sorted(asked.states.items()) if found.state.get("leader") == node]
    node = (leaders or sorted(asked.states))[0]
    return node, asked.states[node].state


def _service(name: str, state: State) -> str | None:
    if "/" in name:
        known = [*state["services"], *(key.removeprefix("Service ") for key in state["problems"])]
        return name if name in known else None
    vip = state["vips"].get(name)
    return str(vip["services"][0]) if vip else None


def _there(state: State, name: str) -> str:
    _, _, short = name.rpartition("/")
    alike = [key for key in sorted(state["services"]) if key.endswith(f"/{short}")]
    return f"Is it {alike[0]}?" if alike else "See porterlb service list."


def _endpoints(found: Loaded, service: str) -> str:
    namespace, _, name = service.partition("/")
    endpoints = found.objects.endpoints.get(ServiceKey(namespace, name), ())
    ready = sorted({endpoint.node or "(no node)" for endpoint in endpoints if endpoint.ready})
    policy = found.objects.services.get(ServiceKey(namespace, name))
    what = f"{sum(endpoint.ready for endpoint in endpoints)} of {len(endpoints)} ready"
    where = f" on {', '.join(ready)}" if ready else ""
    return f"{what}{where}" + (f"; externalTrafficPolicy {policy.traffic_policy.value}" if policy else "")


def _address(made: Explanation, address: str, state: State, asked: Asked) -> None:
    vip = state["vips"].get(address)
    if vip is None:
        made.add(address, "assigned, but not in the status of the Service yet")
        made.worse(DEGRADED, f"{address} is not planned yet.")
        return
    made.add(address, f"served by {vip['served']}; planned {vip['mode']} (protocol {vip['protocol']}, {vip['phase']})")
    made.add("  next hops", ", ".join(vip["nextHops"]) or "none")
    for text in vip["problems"]:
        made.add("  why", text)
        made.worse(DEGRADED, text)
    if vip["served"] == "none":
        made.worse(NOT_SERVED, f"{address} is not served.")
    for peer, by_replica in sorted(vip["announced"].items()):
        _peer(made, address, peer, by_replica, vip, state)
    if left_out := ((state.get("eips") or {}).get(vip["eip"]) or {}).get("layer2LeftOut"):
        made.add("  left out", f"in Layer 2: {clauses(left_out)}")
    answering = vip["answering"]
    if answering:
        made.add("  Layer 2", _layer2(vip, asked.askers(address)))
        views = {node: _answer(found.state, address) for node, found in sorted(asked.states.items())}
        if len(set(views.values())) > 1:
            text = "; ".join(f"{node} sees {hop or 'nobody'}" for node, hop in views.items())
            made.add("  views differ", text)
            made.worse(DEGRADED, f"Replicas see different next hops for {address}: {text}.")
        if not vip.get("hosts") and (state["nodes"].get(answering["nextHop"]) or {}).get("dead"):
            made.worse(DEGRADED, f"The next hop {answering['nextHop']} of {address} does not answer probes.")
    if vip["conflict"]:
        made.add("  conflict", f"a foreign host ({vip['conflict']}) claims the address")
        made.worse(DEGRADED, f"A foreign host ({vip['conflict']}) claims {address}.")


def _segment(made: Explanation, address: str, vip: State | None, heard: Heard) -> None:
    """Adds what replicas heard on the segment when they asked for an address."""
    if vip is None or not _in_layer2(vip):
        made.add("  segment", "not asked: no replica answers for the address in Layer 2")
        return
    if not heard:
        made.add("  segment", "not asked: no replica can be reached")
    found: list[AskerReport] = []
    for node, outcomes in heard.items():
        if isinstance(outcomes, str):
            made.add("  segment", f"{node} cannot be asked: {outcomes}")
            continue
        found += [on_segment.judged(node, of, _planned(vip)) for of in outcomes if of.address == address]
    others = [seen for seen in found if seen.verdict is not Comparison.OWN]
    for seen in others or found:
        made.seen.append(seen)
        made.add("  segment", on_segment.sentence(seen))
        if seen.verdict.differs:
            made.worse(DEGRADED, on_segment.problem(seen))


def _as_json(seen: AskerReport) -> dict[str, Any]:
    planned = {"nextHops": sorted(seen.planned.next_hops), "answerer": seen.planned.answerer}
    return {"asker": seen.asker, "verdict": seen.verdict.value, "planned": planned, **written(seen.outcome)}


def _peer(
    made: Explanation, address: str, peer: str, by_replica: Mapping[str, Iterable[str]], vip: State, state: State
) -> None:
    planned = sorted({hop for hops in by_replica.values() for hop in hops})
    carried = vip["carried"].get(peer, [])
    told = "; ".join(f"{replica} announces {', '.join(hops)}" for replica, hops in sorted(by_replica.items()) if hops)
    made.add(f"  peer {peer}", f"{told or 'nobody announces it'}; the router has {', '.join(carried) or 'nothing'}")
    router = str((state["peers"].get(peer) or {}).get("router") or "")
    if "%" in router:
        made.add("", f"the router of {state['node']} is {router}")
    down = [
        replica
        for replica, known in sorted(state["replicas"].items())
        if by_replica.get(replica) and known.get("fresh") and peer not in known.get("sessions", ())
    ]
    if down:
        why = str((state["peers"].get(peer) or {}).get("reason") or "")
        made.add("", f"no session: {', '.join(down)}. {why}".strip())
    bfd = (state["peers"].get(peer) or {}).get("bfd")
    if bfd:
        remote = f", the router says {bfd['remoteState']}" if bfd["remoteState"] else ""
        times = f", {bfd['detectionTime']} ms until a failure is found" if bfd["state"] == "Up" else ""
        made.add("", f"BFD of {state['node']}: {bfd['state']}{remote}{times}. {bfd['reason']}".strip())
    missing = [hop for hop in planned if hop not in carried]
    if missing and vip["mode"] == "bgp":
        made.worse(DEGRADED, f"{peer} lacks next hop {', '.join(missing)} of {address}.")


def _layer2(vip: State, askers: Mapping[str, int]) -> str:
    """Which replica answers; if each host has its own next hop, the number of hosts per next hop."""
    if vip.get("hosts"):
        known = "; ".join(f"{node}: {askers.get(node, 0)} known" for node in sorted({*vip["hosts"], *askers}))
        return f"each host has a next hop of its own, answered by its replica ({known})"
    answering = vip["answering"]
    return f"{answering['answerer']} answers with the MAC of {answering['nextHop']}"


def _answer(state: State, address: str) -> str:
    """The next hop that a replica sees; all of them if the hosts share several."""
    vip = state["vips"].get(address) or {}
    answering = vip.get("answering")
    return ", ".join(vip.get("hosts") or ()) or (str(answering["nextHop"]) if answering else "")


def _moves(asked: Asked, addresses: Iterable[str]) -> list[dict[str, Any]]:
    wanted = set(addresses)
    return [row for row in merged(asked) if wanted.intersection(row.get("vips") or ())][:MOVES]
