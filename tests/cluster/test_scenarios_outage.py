"""The API server stops, returns, loses its history, hangs and is slow. Managers keep serving and catch up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import pytest

from lab.measure import wait_until
from tests.cluster.scenarios import NAMES, OUTAGE, USER, KubeProduct, gap_of_a_node_that_dies, kube_product
from tests.lab import on_call
from tests.lab.product import EIP_ANNOTATION

pytestmark = [pytest.mark.lab, pytest.mark.cluster, pytest.mark.timeout(180 + 3 * OUTAGE)]

API_PORT = 6443


@pytest.fixture(scope="module")
def road() -> Iterator[KubeProduct]:
    with kube_product() as made:
        (vip,) = made.give("web", "routed")
        made.give("local", "segment")
        made.wait_hops(vip, *NAMES, timeout=40)
        made.wait_settled()
        yield made


def test_idle_managers_ask_for_little(road: KubeProduct) -> None:
    time.sleep(5)  # exclude the requests of the start
    before = len(road.plane.audit_events(USER))
    begun = time.monotonic()
    time.sleep(20)
    asked = road.plane.audit_events(USER)[before:]
    a_minute = len(asked) * 60 / (time.monotonic() - begun)
    kinds = Counter((event["verb"], (event.get("objectRef") or {}).get("resource")) for event in asked)
    print(f"{a_minute:.0f} requests a minute of three idle managers: {dict(kinds)}")
    # The leader renews every 1.25 s (48 a minute). Each replica reports every 30 s that it is present (2 x 2). Its
    # reports about a machine that stalls for a moment add only a few requests.
    leases = sum(count for (_, resource), count in kinds.items() if resource == "leases") * 60 / 20
    assert leases <= 80, kinds
    assert a_minute <= 150, kinds


def test_a_node_that_dies_without_the_api_costs_as_much_as_with_it(road: KubeProduct) -> None:
    (vip,) = road.vips("web")
    local = road.vips("local")[0]
    with_api = gap_of_a_node_that_dies(road, vip, "node-b")
    road.node("node-b").power_on()
    road.wait_settled()
    road.wait_hops(vip, *NAMES)

    pids = road.running("node-a", "node-c")
    road.plane.stop_api()
    gone = time.monotonic()
    try:
        wait_until(lambda: all(road.state(name)["outage"] for name in NAMES), 20, "the outage to be seen")
        off = time.time()
        without = gap_of_a_node_that_dies(road, vip, "node-b")
        print(f"worst gap with the API {with_api.worst_gap_ms:.0f} ms, without {without.worst_gap_ms:.0f} ms")
        assert with_api.lost and without.lost, "flows of the stream went over the node that died"
        assert without.worst_gap_ms <= with_api.worst_gap_ms + 300, (with_api, without)
        hop = road.wait_owner(local, "node-a", "node-c")
        _person_on_call_reads_it(road, local, hop, off)

        # Its manager restarts without the API: it waits, reports that it waits, and does not exit.
        road.node("node-b").power_on()
        waiting = wait_until(lambda: road.readiness("node-b"), 20, "node-b to say what it waits for", 0.2)[0]
        assert waiting[0] == 503 and "API" in waiting[1], waiting
        assert road.manager_http("node-b", "/healthz")[0] == 200
        waiter = road.manager("node-b")
        with road.client.stream(vip, flows=6, interval=0.01) as stream:
            time.sleep(max(3.0, OUTAGE - (time.monotonic() - gone)))
            steady = stream.report()
        assert steady.lost == 0, steady
        assert waiter.alive
        assert road.readiness("node-a")[0] == 200, "what was known stays in force"
    finally:
        road.plane.start_api()
    back = time.monotonic()
    road.wait_settled()
    print(f"all agree {time.monotonic() - back:.1f} s after the API was back")
    road.wait_hops(vip, *NAMES)
    assert road.running("node-a", "node-c") == pids
    assert waiter.alive
    (fresh,) = road.give("after", "routed")
    road.wait_hops(fresh, *NAMES)
    road.delete_service("after")
    assert road.vips("web") == [vip]


def _person_on_call_reads_it(road: KubeProduct, local: str, hop: str, off: float) -> None:
    """Without the API, on another node: status, explain, the page, the log and the metrics agree.

    Args:
        local: a Layer 2 VIP, which ``hop`` serves now.
        off: a time before node-b lost its power, in seconds since 1970.
    """
    witness, seen = road.node("node-a"), ["node-a", "node-c"]
    wait_until(lambda: on_call.page_says_dead(witness, "node-b", seen), 3, "the page to tell", 0.1)
    death = next(row for row in reversed(road.state("node-a")["history"]) if row["what"] == "NodeDead")
    assert death["subject"] == "node-b"
    # One second for the stream that runs before, one for detection, and one because the time has whole seconds.
    assert datetime.fromisoformat(death["time"]).timestamp() - off <= 3.0
    code, status = on_call.ask(witness, "status")
    assert code == 0
    assert {row["name"]: row["deadBy"] for row in status["nodes"] if row["dead"]} == {"node-b": seen}
    code, told = on_call.ask(witness, "explain", local, "--wire")
    steps = {row["step"].strip(): row["text"] for row in told["steps"]}
    assert "node-b does not answer probes" in steps["Nodes"]
    assert steps["Layer 2"] == f"{hop} answers with the MAC of {hop}"
    assert {row["verdict"] for row in told["segment"]} == {"own" if hop == "node-a" else "asPlanned"}, told
    assert "Node node-b does not answer probes." in road.manager("node-a").output()
    assert 'porterlb_history_events_total{what="NodeDead",why=""}' in road.manager_http("node-a", "/metrics")[1]


def test_what_changed_meanwhile_is_found_in_a_compacted_etcd(road: KubeProduct) -> None:
    (vip,) = road.vips("web")
    (leaving,) = road.give("leaving", "routed")
    road.wait_hops(leaving, *NAMES)
    for name in NAMES:
        road.backend.cut(name)  # silently: no FIN is sent, which leaves connections half-open
    try:
        with road.client.stream(vip, flows=6, interval=0.01) as stream:
            road.delete_service("leaving")
            road.service("coming", annotations={EIP_ANNOTATION: "routed"}, policy="Local")
            road.plane.compact()
            time.sleep(6)  # longer than a lease
            report = stream.report()
        assert report.lost == 0, report
        road.wait_hops(leaving, *NAMES)  # the managers could not know of the deletion
    finally:
        for name in NAMES:
            road.backend.restore(name)
    road.wait_hops(leaving, timeout=60)
    (new,) = road.wait_vips("coming", timeout=60)
    road.wait_hops(new, *NAMES)
    assert road.vips("web") == [vip]
    road.delete_service("coming")


def test_connections_that_are_cut_and_answers_that_are_slow(road: KubeProduct) -> None:
    (vip,) = road.vips("web")
    pids = road.running("node-a", "node-c")
    with road.client.stream(vip, flows=6, interval=0.01) as stream:
        for _ in range(3):
            for name in NAMES:
                road.net.namespace(name).nft(
                    "table inet plbreset { chain out { type filter hook output priority 0; "
                    f"tcp dport {API_PORT} reject with tcp reset; }}; }}\n"
                )
            time.sleep(0.7)
            for name in NAMES:
                road.net.namespace(name).run(["nft", "delete", "table", "inet", "plbreset"])
            time.sleep(0.7)
        for _ in range(4):
            road.plane.pause_api()
            time.sleep(2.0)
            road.plane.resume_api()
            time.sleep(0.8)
        (new,) = road.give("slow", "routed")
        road.wait_hops(new, *NAMES)
        report = stream.report()
    assert report.lost == 0, report
    road.wait_settled()
    assert road.running("node-a", "node-c") == pids
    road.delete_service("slow")
    road.wait_hops(new)


def test_nothing_floods_the_api_that_has_come_back(road: KubeProduct) -> None:
    road.plane.stop_api()
    time.sleep(6)
    before = len(road.plane.audit_events(USER))
    road.plane.start_api()
    road.wait_settled()
    time.sleep(3)
    asked = road.plane.audit_events(USER)[before:]
    seconds = Counter(event["requestReceivedTimestamp"][:19] for event in asked)
    print(f"{len(asked)} requests while three managers caught up, at most {max(seconds.values())} in a second")
    assert max(seconds.values()) <= 150, seconds
    lists = Counter(
        (event["sourceIPs"][0], event["objectRef"]["resource"])
        for event in asked
        if event["verb"] == "list" and event["objectRef"]["resource"] != "leases"
    )
    assert max(lists.values()) <= 3, lists
    road.healthy()
