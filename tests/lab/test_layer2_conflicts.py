"""A foreign host that claims a VIP: the user is informed, and the VIP is defended at most once in 10 s."""

from __future__ import annotations

import time
from ipaddress import ip_address

import pytest

from lab.frames import mac_bytes
from lab.measure import wait_until
from tests.lab.scenarios import Stage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(180)]


def serving(stage: Stage, name: str) -> dict[str, str]:
    return stage.lab.conditions("Service", name, "default").get("Serving", {})


def test_a_rival_host_is_reported_and_defended_against(cluster: str) -> None:
    with Stage(cluster) as stage:
        vips = stage.serve("web", at="node-b")
        stage.settle()
        time.sleep(5.0)  # the initial announcements are over: every later announcement is a defense
        rival = stage.lab.add_host("rival", 239)
        with stage.lab.segment_client.capture("arp or icmp6") as capture:
            begun = time.time()
            rival.ns.ip(f"address add {vips[0]}/24 dev eth0", f"address add {vips[1]}/64 dev eth0 nodad")
            told = {}

            def claim() -> bool:
                # As a host that really uses the address: it sends requests for other addresses with the VIP as source
                for vip in vips:
                    source = ["-I", vip]
                    rival.run(["ping", "-c", "1", "-W", "1", *source, stage.lab.segment_client.v6 if ":" in vip
                               else stage.lab.segment_client.v4], check=False)  # fmt: skip
                    rival.flush_neighbours()
                told.update(serving(stage, "web"))
                return told.get("reason") == "AddressConflict"

            wait_until(claim, 20.0, "the condition that tells of the rival", interval=0.2)
            assert rival.mac in told["message"] and told["status"] == "True"
            while time.time() < begun + 8.0:
                claim()
                time.sleep(0.3)
            defences = [frame for frame in capture.frames() if frame.at > begun and _announces(frame.data, vips[0])]
        assert 1 <= len(defences) <= 2, len(defences)  # one in 10 s; at most a second one if the answerer changed
        events = stage.lab.backend.events("Service", "web", "default")
        assert "AddressConflict" in [event["reason"] for event in events]
        assert [event["type"] for event in events if event["reason"] == "AddressConflict"] == ["Warning"]
        rival.ns.ip("link set eth0 down")
        for vip in vips:
            assert stage.owner(vip) == "node-b"


def test_g7_a_second_manager_with_the_name_of_a_node_ends(cluster: str) -> None:
    """It was started on another node by mistake. The first one serves without interruption, and reports the mistake."""
    with Stage(cluster) as stage:
        vip = stage.serve("web", at="node-b", families=("IPv4",))[0]
        stage.settle()
        stage.manager("node-c").terminate()
        wait_until(lambda: stage.owners(vip) == {"node-b"}, 5.0, "node-b to answer")
        second = stage.lab.start_manager("node-c", "--node", "node-b")
        seen = set()
        while second.alive:
            seen.add(frozenset(stage.owners(vip, 0.1)))
            assert len(seen) < 10  # the loop ends with the process, or with the timeout of the test
        assert second.returncode == 1
        assert "Another manager runs with the node name node-b" in second.output()
        assert seen == {frozenset({"node-b"})}
        assert any("Another manager was started" in said for said in stage.lab.state("node-b")["wire"]["notices"])
        assert stage.owners(vip) == {"node-b"}


def _announces(frame: bytes, vip: str) -> bool:
    """Whether a frame is a gratuitous ARP for the VIP that a node sent."""
    packed = ip_address(vip).packed
    return (
        frame[12:14] == b"\x08\x06"
        and frame[28:32] == frame[38:42] == packed
        and frame[6:12] != mac_bytes("02:77:00:00:00:ef")
    )


def test_an_address_that_a_foreign_host_uses_is_not_given_out(cluster: str) -> None:
    with Stage(cluster) as stage:
        squatter = stage.lab.add_host("squatter", 238)
        squatter.ns.ip("address add 10.77.0.100/24 dev eth0", "address add fd77::1:0/64 dev eth0 nodad")
        vips = stage.serve("web")
        assert vips == ["10.77.0.101", "fd77::1:1"]
        stage.settle()
        assert stage.owners("10.77.0.100") == {squatter.mac}


def test_failovers_make_no_rivals_and_no_duplicates(cluster: str) -> None:
    with Stage(cluster) as stage:
        at = stage.serve_one_at_each()
        stage.settle()
        with stage.watched(stage.all_vips()) as answers:
            stage.lab.node("node-b").power_off()
            time.sleep(1.5)
        stage.back("node-b")
        time.sleep(1.0)
        assert [seen for seen in answers if len(seen) > 1] == []
        for name in stage.running:
            assert stage.lab.state(name)["wire"]["conflicts"] == {}
        for service in ("at-a", "at-b", "at-c"):
            assert serving(stage, service)["reason"] == "Layer2"
        assert at
