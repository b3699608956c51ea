"""Recorded inputs and decisions as sentences, each with the VIP that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from porterlb.core.history.entries import Entry, What
from porterlb.core.history.history import History, ServedBy, why_moved
from porterlb.core.history.words import sentence
from porterlb.core.known import Known
from porterlb.core.model import Address, Mode
from porterlb.core.plan import Plan
from porterlb.core.record.plans import Did
from porterlb.core.vip import VipPlan, served

Said = tuple[str, str]
"""A VIP, or empty, and a sentence."""

Line = Mapping[str, Any]


# ---- inputs of the manager


def came_in(line: Line) -> list[Said]:
    """An input of the manager; empty for inputs that are not useful to readers."""
    write = _INPUTS.get(line["what"])
    return write(line) if write is not None else []


def _object(line: Line) -> list[Said]:
    metadata = line["object"].get("metadata") or {}
    name = "/".join(str(part) for part in (metadata.get("namespace"), metadata.get("name")) if part)
    return [("", f"{line['kind']} {name} has changed.")]


def _gone(line: Line) -> list[Said]:
    kind, namespace, name = line["key"]
    return [("", f"{kind} {namespace}/{name} is gone." if namespace else f"{kind} {name} is gone.")]


def _value(text: str, empty: str = "") -> Callable[[Line], list[Said]]:
    def said(line: Line) -> list[Said]:
        value = str(line.get("value", ""))
        return [("", text.format(value) if value or not empty else empty)]

    return said


_INPUTS: Mapping[str, Callable[[Line], list[Said]]] = {
    "state": lambda _: [("", "The recording begins with the state of this moment.")],
    "object": _object,
    "gone": _gone,
    "synced": _value("All objects of kind {} are known."),
    "outage": _value("The API is unavailable: {}", "The API is available."),
    "leader": _value("The leader is {}.", "There is no leader."),
    "members": lambda _: [("", "The members have changed.")],
    "passwords": lambda line: [("", f"Peers with a password from a Secret: {_names(line['peers'])}.")],
    "delivering": lambda _: [("", "A kube-proxy says that it can deliver.")],
    "proxies": lambda line: [("", f"Returned nodes whose kube-proxy runs: {_names(line['nodes'])}.")],
    "challenge": lambda _: [("", "Another manager was started with the name of this node.")],
}


# ---- decisions of the manager


def planned(did: Did, before: Plan | None, known: Known) -> list[Said]:
    """The decisions of a plan. ``known``: the state with that plan."""
    if "failed" in did:
        return [("", f"Planning failed ({did['failed']}): the last plan stays in force.")]
    said: list[Said] = []
    for key, row in did["services"].items():
        said += _allocated(key, row)
    old = before.vips if before is not None else {}
    for text, row in did["vips"].items():
        address = ip_address(text)
        said += _moved(address, row, old.get(address), known.plan.vips.get(address), known)
    for peer, row in did["sessions"].items():
        said.append(("", f"The BGP session {peer} is {'ended' if row is None else 'to be as configured'}."))
    for peer, rows in did["problems"].items():
        said += [("", f"BgpPeer {peer}: {row['message']}") for row in rows or ()]
    return said


def _allocated(key: str, row: Mapping[str, Any] | None) -> list[Said]:
    if row is None:
        return [("", f"Service {key} no longer has an address: it was deleted, or is not ours.")]
    refusals = [("", f"Service {key}: {refusal['message']}") for refusal in row["refusals"]]
    if row["addresses"]:
        return [(row["addresses"][0], f"Service {key} has {_names(row['addresses'])}."), *refusals]
    return refusals


def _moved(
    address: Address, row: Mapping[str, Any] | None, before: VipPlan | None, after: VipPlan | None, known: Known
) -> list[Said]:
    text = str(address)
    if row is None or after is None:
        return [(text, f"{text}: no longer planned.")]
    place, fresh = _place(before), _place(after)
    problems = [(text, f"{text}: {problem['message']}") for problem in row["problems"]]
    if (place.mode, place.hops, place.protocol) == (fresh.mode, fresh.hops, fresh.protocol):
        return problems or [(text, f"{text}: still {fresh.mode.value} on {_names(fresh.hops)}; {_detail(row)}.")]
    why, cause = why_moved(History(), place, fresh, after, known)
    what = What.VIP_MOVED if place.mode is fresh.mode else What.VIP_MODE
    detail = f"{place.mode.value} to {fresh.mode.value}" if what is What.VIP_MODE else fresh.mode.value
    if before is None or place.mode is Mode.NONE:
        what, detail = What.VIP_SERVED, fresh.mode.value
    if fresh.mode is Mode.NONE:
        what, detail = What.VIP_NOT_SERVED, ""
    entry = Entry("", what, "", place.hops, fresh.hops, why, cause, detail, (address,))
    return [(text, sentence(entry).replace("served by", "to be served by")), *problems]


def _place(vip: VipPlan | None) -> ServedBy:
    """The planned place: the actual announcements follow later."""
    if vip is None:
        return ServedBy(Mode.NONE)
    mode = served(vip)
    hops = tuple(sorted(vip.next_hops)) if mode is Mode.BGP else vip.candidates[:1] if mode is Mode.LAYER2 else ()
    return ServedBy(mode, hops, protocol=vip.protocol)


def _detail(row: Mapping[str, Any]) -> str:
    """What this replica does for a VIP."""
    paths = sorted(f"{path['next_hop']} to {path['peer']}" for path in row["paths"])
    routes = f"announces {', '.join(paths)}" if paths else "announces nothing"
    order = _names(row["candidates"]) if row["candidates"] else "none"
    return f"phase {row['mode']['phase']}, this replica {routes}, Layer 2 order {order}"


# ---- the wire process


def wire(rows: Iterable[list[Any]]) -> list[Said]:
    """The decisions of Layer 2."""
    said: list[Said] = []
    for name, *rest in rows:
        write = _ROWS.get(name)
        if write is not None:
            said.append(write(*rest))
    return said


def _at(packed: str) -> str:
    return str(ip_address(bytes.fromhex(packed)))


def _mac(packed: str) -> str:
    return bytes.fromhex(packed).hex(":")


def _served(vip: str, hop: str, answerer: str) -> Said:
    if not hop:
        return vip, f"{vip}: no live next hop."
    return vip, f"{vip}: next hop {hop}, answered by {answerer or 'nobody'}."


def _report(name: str, value: Any) -> Said:
    write = _REPORTS.get(name)
    return "", write(value) if write is not None else f"Reports {name}: {value}."


_REPORTS: Mapping[str, Callable[[Any], str]] = {
    "dead": lambda nodes: f"Dead nodes: {_names(nodes)}.",
    "dead_on": lambda found: f"Dead by subnet: {_by_name(found)}.",
    "votes": lambda nodes: f"Nodes that a replica finds silent: {_names(nodes)}.",
    "alone": lambda yes: "More than half of the replicas do not answer." if yes else "Most replicas answer.",
    "probed": lambda nodes: f"Nodes that are probed: {_names(nodes)}.",
    "fresh": lambda nodes: f"Replicas that are heard: {_names(nodes)}.",
    "doubt": lambda yes: "In doubt: nothing is heard, so nothing changes." if yes else "The doubt is over.",
    "claimed": lambda found: f"Addresses that a foreign host has: {_names(found)}.",
    "clear": lambda found: f"Addresses that nobody else has: {_names(found)}.",
    "rivals": lambda found: f"VIPs that a foreign host claims: {_names(found)}.",
    "notices": lambda found: f"Notices: {_names(sorted({notice['kind'] for notice in found}))}.",
    "applied": lambda digest: f"The plan {digest:x} is applied.",
}

_NOTES: Mapping[str, str] = {
    "NODE_DIED": "Node {} is dead.",
    "NODE_REVIVED": "Node {} is alive again.",
    "DEAD_ON_SEGMENT": "Node {} is dead on a segment, and alive on that of its InternalIP.",
    "ALIVE_ON_SEGMENT": "Node {} is alive again on a segment.",
    "TWO_ANSWERS": "Another node also answers for {}: this replica stops answering for it.",
    "MANAGER_SILENT": "The manager has hung: handing over.",
    "MANAGER_BACK": "The manager is back.",
}

_ROWS: Mapping[str, Callable[..., Said]] = {
    "served": _served,
    "own": lambda nic, vip, mac: (_at(vip), f"{_at(vip)}: answers with {_mac(mac)} on interface {nic}."),
    "disown": lambda nic, vip: (_at(vip), f"{_at(vip)}: answers no longer on interface {nic}."),
    "announce": lambda nic, vip, defence: (
        _at(vip),
        f"{_at(vip)}: {'defended' if defence else 'announced'} on interface {nic}.",
    ),
    "tell": lambda nic, vip, mac, at: (
        _at(vip),
        f"{_at(vip)}: host {_at(at)} is told {_mac(mac)} on interface {nic}.",
    ),
    "late": lambda _, vip: (_at(vip), f"{_at(vip)}: the last question is answered late."),
    "check": lambda nic, vip: (vip, f"{vip}: probed for another owner on interface {nic}."),
    "note": lambda kind, subject: ("", _NOTES.get(kind, kind).format(subject)),
    "report": _report,
    "end": lambda: ("", "The wire process ends."),
    "say": lambda goodbye, answers, dead: (
        "",
        f"Says {'goodbye' if goodbye else 'hello'}: {'answers' if answers else 'does not answer'}, "
        f"dead nodes {_names(dead)}.",
    ),
}


def _names(names: Iterable[Any]) -> str:
    return ", ".join(str(name) for name in names) or "none"


def _by_name(found: Mapping[str, Iterable[str]]) -> str:
    return "; ".join(f"{name}: {_names(nodes)}" for name, nodes in found.items()) or "none"
