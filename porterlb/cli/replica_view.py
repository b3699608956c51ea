"""The overview of one replica's own state, for use without the API server. Same shape as ``porterlb status``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from porterlb.cli.replicas import served_by
from porterlb.cluster import ReplicaState

Row = dict[str, Any]


def overview(found: ReplicaState) -> Row:
    """See :func:`porterlb.cli.status.overview`; ``api``: False, because the API is not asked."""
    state = found.state
    services = [_service(state, name, service) for name, service in sorted(state["services"].items())]
    served = [row for row in services if row["serving"] == "True"]
    node = str(state["node"])
    vips = Counter(str(vip["layer2"]) for vip in state["vips"].values() if vip.get("layer2"))
    nodes = [
        {
            "name": name,
            "addresses": known["addresses"],
            "ready": known["ready"],
            "cordoned": known["cordoned"],
            "draining": bool(known.get("drain")),
            "dead": known["dead"],
            "deadBy": (known.get("deadBy") or [node]) if known["dead"] else [],
            "vips": vips[name],
        }
        for name, known in sorted(state["nodes"].items())
    ]
    dead = [
        f"{row['name']} does not answer probes (seen by {', '.join(row['deadBy'])})." for row in nodes if row["dead"]
    ]
    silent = [name for name, replica in sorted(state["replicas"].items()) if not replica["fresh"]]
    outage = [f"The API is unavailable: {state['outage']}"] if state["outage"] else []
    own = [f"{key}: {text}" for key, texts in sorted(state["problems"].items()) for text in texts]
    return {
        "leader": state["leader"],
        "replicas": [
            {"node": name, "address": "", "boot": replica.get("boot"), "heard": replica["fresh"], "why": ""}
            for name, replica in sorted(state["replicas"].items())
        ],
        "nodes": nodes,
        "eips": [_eip(state, name, eip) for name, eip in sorted(state["eips"].items())],
        "peers": [_peer(state, name, peer) for name, peer in sorted(state["peers"].items())],
        "services": {
            "total": len(services),
            "served": len(served),
            "bgp": sum(row["mode"] == "bgp" for row in served),
            "layer2": sum(row["mode"] == "layer2" for row in served),
            "list": services,
        },
        "sources": [{"replica": node, "source": found.source, "age": found.age}],
        "api": False,
        "problems": [*dead, *(f"The replica on {name} is not heard." for name in silent), *outage, *own],
    }


def _service(state: Mapping[str, Any], name: str, service: Mapping[str, Any]) -> Row:
    namespace, _, short = name.partition("/")
    vips = [state["vips"].get(address) or {} for address in service["addresses"]]
    modes = [str(vip.get("served", "none")) for vip in vips]
    ok = bool(modes) and "none" not in modes
    problems = [*service["problems"], *(text for vip in vips for text in vip.get("problems", ()))]
    hops = sorted({hop for vip in vips for hop in served_by(vip)})
    where = f"Next hops: {', '.join(hops)}." if hops else ""
    return {
        "namespace": namespace,
        "name": short,
        "addresses": service["addresses"],
        "eips": list(service["eips"]),
        "nextHops": hops,
        "assigned": "True" if service["addresses"] else "False",
        "serving": "True" if ok else "False",
        "mode": modes[0] if ok else "",
        "since": max((str(vip.get("since", "")) for vip in vips), default=""),
        "reason": "",
        "message": " ".join([where, *problems]).strip(),
        "problems": [],
    }


def _eip(state: Mapping[str, Any], name: str, eip: Mapping[str, Any]) -> Row:
    modes = sorted({vip["served"] for vip in state["vips"].values() if vip["eip"] == name} - {"none"})
    return {
        "name": name,
        "address": "",
        "protocol": eip["protocol"],
        "mode": modes[0] if len(modes) == 1 else "mixed" if modes else "none",
        "since": "",
        "used": eip["used"],
        "size": eip["size"],
        "ready": "",
        "message": " ".join(eip["problems"]),
        "problems": [],
    }


def _why_down(peer: Mapping[str, Any]) -> str:
    """Why the replica's own session is down, or what the session cannot carry."""
    if str(peer["state"]) == "established":
        return str(peer.get("refusal", ""))
    return str(peer.get("refusal") or peer.get("lastAttempt") or peer.get("reason") or "")


def _peer(state: Mapping[str, Any], name: str, peer: Mapping[str, Any]) -> Row:
    """The replica's own session with its state; for the others, only whether they are established."""
    sessions = [
        {
            "node": node,
            "router": str(peer.get("router") or "") if node == state["node"] else "",
            "state": str(peer["state"]).upper() if node == state["node"] else "ESTABLISHED",
            "since": "",
            "announced": None,
            "reason": _why_down(peer) if node == state["node"] else "",
            "negotiated": None,
            "bfd": peer.get("bfd") if node == state["node"] else None,
            "lastLoss": None,
        }
        for node, replica in sorted(state["replicas"].items())
        if (node == state["node"] and peer["state"]) or name in replica.get("sessions", ())
    ]
    return {
        "name": name,
        "address": "",
        "as": None,
        "established": sum(session["state"] == "ESTABLISHED" for session in sessions),
        "sessions": sessions,
        "ready": "",
        "message": " ".join(peer["problems"]),
        "problems": [],
    }
