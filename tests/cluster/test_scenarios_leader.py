"""Replicas that compete for the lease: no address is assigned twice, and a replica that lost the lease stops
writing."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from kubernetes import client, watch
from urllib3.exceptions import ProtocolError

from lab.measure import wait_until
from tests.cluster.rights import NAMESPACE
from tests.cluster.scenarios import USER, KubeProduct, at, kube_product, writes
from tests.lab.product import EIP_ANNOTATION

pytestmark = [pytest.mark.lab, pytest.mark.cluster]

RIVALS = ("node-a", "node-b")


@pytest.fixture(scope="module")
def road() -> Iterator[KubeProduct]:
    with kube_product(*RIVALS) as made:
        made.wait_leader(*RIVALS)
        made.give("first", "routed")
        yield made


class Ledger:
    """Every address that a Service ever had, from a watch: no state between two events is missed."""

    def __init__(self) -> None:
        self.holders: dict[str, set[str]] = {}
        self.twice: list[str] = []

    def saw(self, type_: str, service: dict[str, Any]) -> None:
        name = service["metadata"]["name"]
        there = [] if type_ == "DELETED" else (service["status"].get("loadBalancer") or {}).get("ingress") or []
        for holders in self.holders.values():
            holders.discard(name)
        for entry in there:
            holders = self.holders.setdefault(entry["ip"], set())
            holders.add(name)
            if len(holders) > 1:
                self.twice.append(f"{entry['ip']}: {sorted(holders)}")


@contextmanager
def ledger(road: KubeProduct) -> Iterator[Ledger]:
    found = Ledger()
    core = client.CoreV1Api(road.plane.api)
    listed: Any = core.list_service_for_all_namespaces()
    for item in listed.items:
        found.saw("ADDED", road.plane.api.sanitize_for_serialization(item))
    stream: Any = cast(Any, watch).Watch()
    end = threading.Event()

    def read() -> None:
        options = {"resource_version": listed.metadata.resource_version, "timeout_seconds": 150}
        try:
            for event in stream.stream(core.list_service_for_all_namespaces, **options):
                found.saw(event["type"], event["raw_object"])
        except ProtocolError:
            assert end.is_set(), "the watch broke before its end"

    thread = threading.Thread(target=read, name="ledger", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        road.service("the-end", annotations={EIP_ANNOTATION: "routed"})
        wait_until(lambda: any("the-end" in holders for holders in found.holders.values()), 20, "the ledger's end")
        end.set()
        stream.stop()
        road.delete_service("the-end")
        thread.join(20)
        assert not thread.is_alive()


def took_over(road: KubeProduct) -> list[tuple[float, str]]:
    """(time, source address) of each successful change of the leader's lease by its source, in order."""
    found = []
    for event in road.plane.audit_events(USER):
        about = event.get("objectRef") or {}
        good = (event.get("responseStatus") or {}).get("code", 500) < 300
        if (
            about.get("resource") == "leases"
            and about.get("name") == "porterlb"
            and event["verb"] in ("create", "update")
            and good
        ):
            found.append((at(event), event["sourceIPs"][0]))
    return found


def test_a_leader_that_is_stopped_past_its_lease_and_goes_on(road: KubeProduct) -> None:
    begun = time.time()
    with ledger(road) as seen:
        for number in range(3):
            old = road.wait_leader(*RIVALS)
            (new,) = (name for name in RIVALS if name != old)
            # The old leader may be busy with this Service
            road.service(f"before-{number}", annotations={EIP_ANNOTATION: "routed"})
            road.managers[old].stop()
            stopped = time.monotonic()
            for more in range(2):
                road.service(f"while-{number}-{more}", annotations={EIP_ANNOTATION: "routed"})
            road.wait_leader(new, timeout=10)
            print(f"{new} leads {time.monotonic() - stopped:.1f} s after {old} was stopped")
            road.service(f"same-time-{number}", annotations={EIP_ANNOTATION: "routed"})
            road.managers[old].cont()
            for name in (f"before-{number}", f"while-{number}-0", f"while-{number}-1", f"same-time-{number}"):
                road.wait_vips(name, timeout=15)
            # The stopped replica hears the other's hellos again before it is its turn to lead.
            wait_until(lambda new=new: road.state(new)["replicas"], 10, "the replicas to hear one another")
    assert not seen.twice, seen.twice
    assert len(seen.holders) >= 13
    no_writes_of_old_leaders(road, begun)


def no_writes_of_old_leaders(road: KubeProduct, since: float) -> None:
    """Checks that each leader's status write came from the address that had last written the lease.

    ``since``: seconds since 1970. Before that time, the lease was recreated by hand, and the log does not show for
    which replica.
    """
    lease = took_over(road)
    late = []
    for when, source, *what in writes(road.plane.audit_events(USER)):
        holder = [who for taken, who in lease if taken <= when] if when > since else []
        if holder and holder[-1] != source:
            late.append((when, source, *what))
    assert not late, late
    assert len({source for _, source in lease}) == 2, "both have led"


def test_the_lease_is_taken_by_hand_and_deleted(road: KubeProduct) -> None:
    leases = client.CoordinationV1Api(road.plane.api)
    with ledger(road) as seen:
        for number in range(3):
            leader = road.wait_leader(*RIVALS)
            leases.patch_namespaced_lease("porterlb", NAMESPACE, {"spec": {"holderIdentity": "somebody_else"}})
            road.service(f"robbed-{number}", annotations={EIP_ANNOTATION: "routed"})
            wait_until(lambda leader=leader: road.leader() != leader, 10, "the leader to have lost")
            leases.delete_namespaced_lease("porterlb", NAMESPACE)
            road.wait_leader(*RIVALS)
            road.wait_vips(f"robbed-{number}", timeout=15)
    assert not seen.twice, seen.twice
    holders: dict[str, set[str]] = defaultdict(set)
    for service in road.backend.objects("Service"):
        for entry in (service["status"].get("loadBalancer") or {}).get("ingress") or []:
            holders[entry["ip"]].add(service["metadata"]["name"])
    assert all(len(names) == 1 for names in holders.values()), holders
    road.healthy()


def test_both_are_stopped_and_go_on_at_once(road: KubeProduct) -> None:
    """Both resume with an outdated view at the same moment, while there is work for a leader."""
    begun = time.time()
    with ledger(road) as seen:
        for number in range(2):
            for name in RIVALS:
                road.managers[name].stop()
            for more in range(3):
                road.service(f"asleep-{number}-{more}", annotations={EIP_ANNOTATION: "routed"})
            time.sleep(5)
            for name in RIVALS:
                road.managers[name].cont()
            for more in range(3):
                road.wait_vips(f"asleep-{number}-{more}", timeout=20)
    assert not seen.twice, seen.twice
    no_writes_of_old_leaders(road, begun)
    road.healthy()
