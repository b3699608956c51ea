"""A command line with many prefixes means the same to ExaBGP with the launcher as without it (take_lines_whole)."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LAUNCHER = Path(__file__).parents[2] / "exabgp" / "launcher.py"

RUN = """
import importlib.util, json, logging, sys
from types import SimpleNamespace as Of
from exabgp.logger import log, option
option.logger, log.logger = logging.getLogger("exabgp"), lambda *said: None
from exabgp.reactor.loop import Reactor
launcher, stories = json.load(sys.stdin)
slept = []
Reactor._wait_for_io = lambda self, milliseconds: slept.append(milliseconds)
if launcher:
    spec = importlib.util.spec_from_file_location("launcher", launcher)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.repair()
from exabgp.bgp.fsm import FSM
from exabgp.bgp.message.open.asn import ASN
from exabgp.bgp.neighbor import Neighbor
from exabgp.configuration.configuration import Configuration
from exabgp.protocol.family import AFI, SAFI
from exabgp.reactor.api import API
from exabgp.reactor.asynchronous import ASYNC
from exabgp.rib.outgoing import OutgoingRIB


class One(dict):
    def __init__(self, *afis):
        self.all = [(afi, SAFI.unicast) for afi in afis]
        self.rib = Of(outgoing=OutgoingRIB(True, set(self.all)))

    def families(self):
        return list(self.all)

    remove_self = Neighbor.remove_self


negotiated = Of(
    families=[(AFI.ipv4, SAFI.unicast), (AFI.ipv6, SAFI.unicast)],
    nexthop=[],
    msg_size=4096,
    local_as=ASN(64512),
    peer_as=ASN(64500),
    asn4=True,
    addpath=Of(send=lambda afi, safi: True),
)


def told(change):
    return str(change.nlri), str(change.attributes), change.nlri.action


def outcome(lines):
    neighbors = {"neighbor 192.0.2.1 ": One(AFI.ipv4, AFI.ipv6), "neighbor 192.0.2.2 ": One(AFI.ipv4)}
    configuration = Configuration([])
    configuration.neighbors = neighbors
    acks, turns, sent = [], [], []
    processes = Of(answer_done=lambda service: acks.append("done"), answer_error=lambda service: acks.append("error"))
    reactor = Of(peers=lambda service: list(neighbors), configuration=configuration)
    reactor.asynchronous, reactor.processes = ASYNC(), processes
    api = API(reactor)
    for line in lines:
        if line == "send":
            for neighbor in neighbors.values():
                for update in neighbor.rib.outgoing.updates(True):
                    sent += [message.hex() for message in update.messages(negotiated)]
            continue
        api.process(reactor, "manager", line)
        turns.append(0)
        while reactor.asynchronous._async:
            reactor.asynchronous.run()
            turns[-1] += 1
    ribs = []
    for each in neighbors.values():
        rib = each.rib.outgoing
        buckets = [bucket for families in rib._new_attr_af_nlri.values() for bucket in families.values()]
        ribs.append(
            {
                "new": sorted(map(told, rib._new_nlri.values())),
                "waiting": sorted(told(change) for bucket in buckets for change in bucket.values()),
                "seen": sorted((i.hex(), *told(change)) for seen in rib._seen.values() for i, change in seen.items()),
            }
        )
    return {"acks": acks, "turns": turns, "ribs": ribs, "sent": sent}


up = Of(fsm=FSM.ESTABLISHED, stopping=lambda: False, neighbor=Of(rib=Of(outgoing=Of(pending=lambda: False))))
for done, peers in ((False, {"up": up}), (True, {}), (True, {"up": up})):
    reactor = Of(asynchronous=Of(ready=lambda done=done: done), signal=Of(received=0), _peers=peers)
    Reactor._wait_for_io(reactor, 10)
print(json.dumps({"slept": slept, **{name: outcome(lines) for name, lines in stories.items()}}))
"""

FIRST, SECOND = "neighbor 192.0.2.1", "neighbor 192.0.2.2"
A = "attributes path-information 2 next-hop 10.0.0.1 med 5 community [ 64500:1 ] nlri"
B = "attributes path-information 2 next-hop 10.0.0.1 med 6 community [ 64500:1 ] nlri"
SIX = "attributes next-hop 2001:db8::1 nlri"
MANY = " ".join(f"10.1.{n // 256}.{n % 256}/32" for n in range(300))
MANY_SIX = " ".join(f"2001:db8:1::{n:x}/128" for n in range(300))

TAKEN = {
    "IPv4": [f"{FIRST} announce {A} {MANY}"],
    "lengths": [f"{FIRST} announce {A} 10.1.0.0/24 10.2.0.0/16 0.0.0.0/0 10.3.0.1/32"],
    "IPv6": [f"{FIRST} announce {SIX} {MANY_SIX} 2001:db8:9::/48"],
    "withdraw": [f"{FIRST} announce {A} {MANY}", "send", f"{FIRST} withdraw {A} 10.1.0.3/32 10.1.0.4/32"],
    "withdraw IPv6": [f"{FIRST} withdraw {SIX} {MANY_SIX}"],
    "known": [f"{FIRST} announce {A} {MANY}", "send", f"{FIRST} announce {A} {MANY}"],
    "other attributes": [f"{FIRST} announce {A} {MANY}", "send", f"{FIRST} announce {B} {MANY}"],
    "other next hop": [
        f"{FIRST} announce {A} {MANY}",
        "send",
        f"{FIRST} announce {A.replace('10.0.0.1', '10.0.0.9')} {MANY}",
    ],
    "other IPv6 next hop": [
        f"{FIRST} announce {SIX} {MANY_SIX}",
        "send",
        f"{FIRST} announce {SIX.replace('::1', '::9')} {MANY_SIX}",
    ],
    "withdrawn, announced": [
        f"{FIRST} announce {A} {MANY}",
        "send",
        f"{FIRST} withdraw {A} {MANY}",
        "send",
        f"{FIRST} announce {A} {MANY}",
    ],
    "all neighbors": [f"announce {A} {MANY}"],
}
LEFT = {
    "host bits": f"{FIRST} announce {A} 10.1.0.0/32 10.1.0.1/24",
    "length 33": f"{FIRST} announce {A} 10.1.0.0/32 10.1.0.1/33",
    "length -1": f"{FIRST} announce {A} 10.1.0.0/32 10.1.0.1/-1",
    "no address": f"{FIRST} announce {A} 10.1.0.0/32 10.1.0.999/32",
    "no length": f"{FIRST} announce {A} 10.1.0.0/32 10.1.0.1/x",
    "both families": f"{FIRST} announce {A} 10.1.0.0/32 2001:db8::1/128",
    "bad next hop": f"{FIRST} announce attributes next-hop nowhere nlri 10.1.0.0/32 10.1.0.1/32",
    "no prefix": f"{FIRST} announce {A}",
    "family not configured": f"{SECOND} announce {SIX} {MANY_SIX}",
    "unknown neighbor": f"neighbor 192.0.2.3 announce {A} {MANY}",
    "VPN": f"{FIRST} announce attributes next-hop 10.0.0.1 rd 1:1 label 5 nlri 10.1.0.0/32 10.1.0.1/32",
    "one prefix": f"{FIRST} announce {A} 10.1.0.0/32",
}
TWICE = [f"{FIRST} announce {way} 10.1.0.1/32 10.1.0.2/32" for way in (A, B, A)]
SHARED = {verb: [f"{FIRST} {verb} {SIX} {MANY_SIX}", "send"] for verb in ("announce", "withdraw")}


@cache
def outcomes(launcher: str) -> dict[str, Any]:
    """What ExaBGP makes of all lines, with the launcher or (empty) without."""
    stories = {**TAKEN, **{name: [line] for name, line in LEFT.items()}, "twice": TWICE, **SHARED}
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN],
        input=json.dumps([launcher, stories]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(name: str) -> Any:
    return outcomes(str(LAUNCHER))[name]


def theirs(name: str) -> Any:
    return outcomes("")[name]


@pytest.mark.parametrize("name", TAKEN)
def test_the_routes_are_those_of_exabgp(name: str) -> None:
    assert ours(name)["ribs"] == theirs(name)["ribs"]
    assert set(ours(name)["acks"]) == {"done"}
    assert not any(ours(name)["turns"]), "each line is taken at once, and not in 50 steps a turn"


@pytest.mark.parametrize("name", LEFT)
def test_anything_out_of_the_ordinary_is_left_to_exabgp(name: str) -> None:
    assert (ours(name)["acks"], ours(name)["ribs"]) == (theirs(name)["acks"], theirs(name)["ribs"])
    assert ours(name)["turns"] != [0]


def test_a_route_that_changes_twice_before_it_is_sent_is_sent_once() -> None:
    waiting = ours("twice")["ribs"][0]["waiting"]
    assert len(waiting) == 2
    assert all("med 5" in attributes for _, attributes, _ in waiting)


def test_a_route_that_is_known_is_not_sent_again() -> None:
    assert ours("known")["ribs"][0]["new"] == []


@pytest.mark.parametrize("verb", SHARED)
def test_ipv6_routes_share_updates(verb: str) -> None:
    assert len(theirs(verb)["sent"]) == 300
    sent = ours(verb)["sent"]
    assert len(sent) == 2, "300 prefixes of 21 bytes in messages of 4,096"
    assert sum(message.count("20010db80001") for message in sent) == 300


def test_exabgp_sleeps_only_when_each_command_is_done_and_longer_with_all_sessions_established() -> None:
    assert theirs("slept") == [10, 10, 10]
    assert ours("slept") == [0, 10, 100]
