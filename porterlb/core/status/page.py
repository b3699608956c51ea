"""The content of the status page: a part of /state, arranged for users. It contains no decision beyond /state.

Two values are equal as long as the displayed state is the same: clocks, ages and counters are omitted. The size is
bounded, whatever the size of the cluster: entries that do not fit are counted, and entries with a problem come first.

===============  ======================================================================================
``version``      1
``waitingFor``   why nothing is known yet; then there are no further fields
``node``         the replica that shows this; ``leader``: the replica that it considers the leader
``release``      of the replica
``problems``     level (``error`` or ``warning``), subject, text; errors first. ``problemsLeftOut``: a number
``counts``       services, vips, notServed, dead, nodes, replicas, live, sessions, established
``nodes``        by name: ready, usable, why, dead, deadBy, cordoned, drain, replica (``live``, ``silent`` or empty)
``peers``        by name: replicas by node (established, why)
``vips``         address, services, eip, mode, served, since, wrong (whether it has a problem), problems, nextHops,
                 announced (nodes), answerer, servedOn (nodes). ``vipsLeftOut``: a number
``history``      time, what, bad, move (whether addresses moved), message; the newest first
===============  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from typing import Any

from porterlb.core.history import What

State = Mapping[str, Any]
View = dict[str, Any]
Vips = list[tuple[str, State]]

VIPS = 5000
"""Maximum number of VIPs."""

MENTIONS = 150_000
"""Maximum number of node names in all VIPs together: about 2 MB of text."""

PROBLEMS = 200
"""Maximum number; a problem that many objects share counts as one."""

SUBJECTS = 5
"""Objects that one problem names; further ones are only counted."""

HISTORY = 100
"""Number of the last moves, and of the last other entries."""

ERROR, WARNING = "error", "warning"


def page_of(state: State) -> View:
    """The page described above. ``state``: see :mod:`porterlb.core.status.state`."""
    if "vips" not in state:
        return {"version": 1, "waitingFor": str(state.get("waitingFor") or "Nothing is known yet.")}
    in_order = _by_address(state["vips"])
    problems = sorted(_problems(state, in_order), key=lambda problem: problem["level"] != ERROR)
    vips, left_out = _vips(state, in_order)
    return {
        "version": 1,
        "waitingFor": "",
        "node": state["node"],
        "leader": state["leader"],
        "release": (state.get("host") or {}).get("release", ""),
        "problems": problems[:PROBLEMS],
        "problemsLeftOut": max(0, len(problems) - PROBLEMS),
        "counts": _counts(state),
        "nodes": {name: _node(state, name) for name in sorted({*state["nodes"], *state["replicas"]})},
        "peers": {name: peer["sessions"] for name, peer in sorted(state["peers"].items())},
        "vips": vips,
        "vipsLeftOut": left_out,
        "history": _history(state["history"]),
    }


def _counts(state: State) -> dict[str, int]:
    sessions = [session for peer in state["peers"].values() for session in peer["sessions"].values()]
    return {
        "services": len(state["services"]),
        "vips": len(state["vips"]),
        "notServed": sum(vip["served"] == "none" for vip in state["vips"].values()),
        "nodes": len(state["nodes"]),
        "dead": sum(node["dead"] for node in state["nodes"].values()),
        "replicas": len(state["replicas"]),
        "live": sum(replica["fresh"] for replica in state["replicas"].values()),
        "sessions": len(sessions),
        "established": sum(session["established"] for session in sessions),
    }


def _node(state: State, name: str) -> View:
    node = state["nodes"].get(name) or {}
    replica = state["replicas"].get(name)
    return {
        "ready": node.get("ready", ""),
        "usable": node.get("usable", False),
        "why": node.get("why", "") if node else "there is no such node",
        "dead": node.get("dead", False),
        "deadBy": node.get("deadBy", []),
        "cordoned": node.get("cordoned", False),
        "drain": node.get("drain", ""),
        "replica": "" if replica is None else "live" if replica["fresh"] else "silent",
    }


# --- problems


def _problems(state: State, vips: Vips) -> Iterator[View]:
    """All problems, in display order within a level."""
    if state["outage"]:
        yield _problem(ERROR, "API", f"The API is unavailable: {state['outage']}")
    wire, bgp = state["wire"], state["bgp"]
    if wire["doubt"]:
        yield _problem(ERROR, state["node"], "This replica hears no other host, and changes nothing until it does.")
    for subject, trouble in (("Layer 2", wire["trouble"]), ("BGP", bgp["trouble"])):
        if trouble:
            yield _problem(ERROR, subject, trouble)
    for name, node in sorted(state["nodes"].items()):
        if node["dead"]:
            seen = f", as {', '.join(node['deadBy'])} found" if node["deadBy"] else ""
            yield _problem(ERROR, name, f"The node does not answer probes{seen}.")
    yield from _together(ERROR, {a: ["Not served.", *vip["problems"]] for a, vip in vips if vip["served"] == "none"})
    for name, replica in sorted(state["replicas"].items()):
        if not replica["fresh"]:
            yield _problem(WARNING, name, "The replica is not heard.")
    yield from _sessions(state)
    for address, mac in sorted(wire["conflicts"].items()):
        yield _problem(ERROR, address, f"A foreign host ({mac}) claims the address.")
    for address, mac in sorted(wire["claimed"].items()):
        yield _problem(WARNING, address, f"A foreign host ({mac}) had the address when it was to be assigned.")
    yield from _together(WARNING, {a: vip["problems"] for a, vip in vips if vip["served"] != "none"})
    yield from _together(WARNING, {f"Service {name}": s["problems"] for name, s in state["services"].items()})
    yield from _together(WARNING, {f"Eip {name}": eip["problems"] for name, eip in state["eips"].items()})
    yield from _together(WARNING, {f"BgpPeer {name}": peer["problems"] for name, peer in state["peers"].items()})
    yield from _together(WARNING, state["problems"])
    for sentence in wire["notices"]:
        yield _problem(WARNING, "Layer 2", sentence)
    for refused in bgp["rejected"]:
        yield _problem(WARNING, refused["peer"], f"ExaBGP refused {refused['prefix']}: {refused['words']}")
    for where, sentence in state["broken"].items():
        yield _problem(WARNING, where, sentence)


def _problem(level: str, subject: str, text: str) -> View:
    return {"level": level, "subject": subject, "text": text}


def _together(level: str, found: Mapping[str, Iterable[str]]) -> Iterator[View]:
    """Problems of many objects; problems with the same sentences are merged."""
    alike: dict[str, list[str]] = {}
    for subject, sentences in found.items():
        if text := " ".join(sentences):
            alike.setdefault(text, []).append(subject)
    for text, subjects in alike.items():
        yield _problem(level, _some(subjects), text)


def _some(names: list[str]) -> str:
    more = len(names) - SUBJECTS
    return ", ".join(names[:SUBJECTS]) + (f" and {more} more" if more > 0 else "")


def _sessions(state: State) -> Iterator[View]:
    for name, peer in sorted(state["peers"].items()):
        down: dict[str, list[str]] = {}
        for node, session in sorted(peer["sessions"].items()):
            if not session["established"]:
                down.setdefault(session["why"], []).append(node)
        level = WARNING if any(session["established"] for session in peer["sessions"].values()) else ERROR
        for why, nodes in down.items():
            text = f"No session with {name}" + (f": {why.rstrip('.')}." if why else ".")
            yield _problem(level, _some(nodes), text)


# --- VIPs


def _by_address(vips: State) -> Vips:
    def order(item: tuple[str, State]) -> tuple[int, int]:
        address = ip_address(item[0])
        return address.version, int(address)

    return sorted(vips.items(), key=order)


def _vips(state: State, vips: Vips) -> tuple[list[View], int]:
    """VIPs with a problem first, then by address; and the number of those that do not fit."""
    dead = {name for name, node in state["nodes"].items() if node["dead"]}
    found = [_vip(address, vip, dead) for address, vip in vips]
    found.sort(key=lambda vip: not vip["wrong"])
    room = MENTIONS
    shown = []
    for vip in found[:VIPS]:
        room -= len(vip["nextHops"]) + len(vip["announced"]) + len(vip["servedOn"])
        if room < 0:
            break
        shown.append(vip)
    return shown, len(found) - len(shown)


def _vip(address: str, vip: State, dead: set[str]) -> View:
    told = {hop for by_replica in vip["announced"].values() for hops in by_replica.values() for hop in hops}
    answering = vip["answering"] or {}
    return {
        "address": address,
        "services": vip["services"],
        "eip": vip["eip"],
        "mode": vip["mode"],
        "served": vip["served"],
        "since": vip["since"],
        "wrong": bool(
            vip["served"] == "none" or vip["problems"] or vip["conflict"] or dead.intersection(vip["servedOn"])
        ),
        "problems": vip["problems"],
        "nextHops": vip["nextHops"],
        "announced": sorted(told),
        "answerer": answering.get("answerer", ""),
        "servedOn": vip["servedOn"],
    }


# --- history


def _history(entries: list[State]) -> list[View]:
    """The last moves and the last other entries, in one order."""
    shown = []
    left = {True: HISTORY, False: HISTORY}
    for entry in reversed(entries):
        what = What(entry["what"])
        move = what.of_vips
        if left[move]:
            left[move] -= 1
            shown.append(
                {
                    "time": entry["time"],
                    "what": entry["what"],
                    "bad": what.bad,
                    "move": move,
                    "message": entry["message"],
                }
            )
    return shown
