"""The reason for a lost session: the same correct sentence in the status, the events, the command line and the
metrics."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lab.backend import DirBackend
from lab.cluster import CHECKOUT
from lab.measure import wait_until
from lab.netns import run_command
from tests.lab.product import Product, product

pytestmark = pytest.mark.lab

NODE = "node-a"
PEER = "router1-v4"


@pytest.fixture(scope="module", params=["bird", "frr", "gobgp"])
def one(request: pytest.FixtureRequest) -> Iterator[Product]:
    """One node with one session, hold time 3 s."""
    with product("manifests", nodes=1, routers=[request.param], pod_servers=False) as lab:
        lab.prepare(peers=False)
        lab.peer(timers={"config": {"holdTime": 3}})
        lab.manage()
        lab.give("web", "routed")
        try:
            yield lab
        finally:
            print(lab.logs())


def told(lab: Product, *words: str) -> str:
    """The reason of the last loss once it contains these words. It must be the same in all user-visible places."""

    def in_status() -> str:
        entry = lab.backend.status("BgpPeer", PEER).get("nodesPeerStatus", {}).get(NODE, {})
        reason = str(entry.get("lastLoss", {}).get("reason", ""))
        current = reason == lab.state(NODE)["peers"][PEER]["reason"]
        return reason if current and all(word in reason for word in words) else ""

    reason, _ = wait_until(in_status, 20, f"the status of {PEER} to say {words}")

    def in_events() -> bool:
        backend = lab.backend
        assert isinstance(backend, DirBackend)
        lines = Path(backend.folder, ".porterlb", "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        lost = [event for event in events if event["reason"] == "SessionLost" and event["name"] == PEER]
        return any(NODE in event["message"] and reason in event["message"] for event in lost)

    wait_until(in_events, 10, f"an event that says {reason!r}")
    rows = json.loads(peer_list(lab, "-o", "json"))["items"]
    (row,) = [row for row in rows if row["name"] == PEER]
    assert row["sessions"][0]["lastLoss"]["reason"] == reason
    return reason


def peer_list(lab: Product, *options: str) -> str:
    backend = lab.backend
    assert isinstance(backend, DirBackend)
    argv = [sys.executable, "-P", "-m", "porterlb", "--cluster", f"dir:{backend.folder}", "peer", "list", *options]
    return run_command(["env", f"PYTHONPATH={CHECKOUT}", "COLUMNS=200", *argv]).stdout


def counted(lab: Product, kind: str) -> float:
    """The number of losses of this kind in the metrics."""
    _, text = lab.manager_http(NODE, "/metrics")
    head = f'porterlb_bgp_session_losses_total{{peer="{PEER}",reason="{kind}"}} '
    return sum(float(line.removeprefix(head)) for line in text.splitlines() if line.startswith(head))


def up(lab: Product) -> None:
    """Waits until the session is established on both sides."""
    lab.router.wait_established({lab.node(NODE).v4}, 30)
    wait_until(lambda: lab.state(NODE)["peers"][PEER]["state"] == "established", 10, "the session in /state")


def test_hold_timer(one: Product) -> None:
    up(one)
    before = counted(one, "hold_timer")
    one.router.pause()
    try:
        assert "Hold timer expired" in told(one, "Hold timer expired")
    finally:
        one.router.resume()
    assert counted(one, "hold_timer") == before + 1


def test_shutdown_message_of_the_operator(one: Product) -> None:
    up(one)
    before = counted(one, "shutdown")
    words = "moving racks, back at noon: ticket 4711"
    one.router.shutdown_session(one.node(NODE).v4, words)
    try:
        assert "cease, administrative shutdown (6/2)" in told(one, words)
        assert words in peer_list(one)
        ready = one.wait_condition("BgpPeer", PEER, "Ready", "False")
        assert words in ready["message"]
    finally:
        one.router.enable_session(one.node(NODE).v4)
    assert counted(one, "shutdown") == before + 1
    assert one.wait_condition("BgpPeer", PEER, "Ready", "True", timeout=40)


def test_reset_by_a_firewall(one: Product) -> None:
    up(one)
    before = counted(one, "reset")
    table = "add table inet cut\ndelete table inet cut\n"
    one.router.ns.nft(
        table + "table inet cut {\n chain in { type filter hook input priority 0 ;"
        " tcp dport 179 counter reject with tcp reset ; }\n}\n"
    )
    try:
        told(one, "reset")
    finally:
        one.router.ns.nft(table)
    assert counted(one, "reset") == before + 1


def test_a_router_that_is_killed(one: Product) -> None:
    up(one)
    before = counted(one, "reset")
    one.router.kill_daemon()
    try:
        wait_until(lambda: counted(one, "reset") == before + 1, 10, "the loss to be counted")
        told(one, "The TCP connection was", "by the peer")  # closed, or reset if it had unread data
    finally:
        one.router.start_daemon()


def test_a_router_that_forgets_us(one: Product) -> None:
    """De-configured: a Cease whose code is shown in words."""
    up(one)
    sessions = one.router.config.sessions
    one.router.reconfigure(replace(one.router.config, sessions=()))
    try:
        told(one, "NOTIFICATION cease", "6/")
    finally:
        one.router.reconfigure(replace(one.router.config, sessions=sessions))
    up(one)
