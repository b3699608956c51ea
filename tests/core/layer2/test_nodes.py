"""Which node has which MAC, and on which segments a node must be alive: forged replies, hellos, InternalIPs."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface

from porterlb.core.hello import GATEWAY, Hello, SegmentState
from porterlb.core.layer2.failure_detector import Timing
from porterlb.core.layer2.nodes import MOST_CONTESTED, Nodes
from porterlb.core.layer2.targets import Target, TargetKey, find_targets
from porterlb.core.model import Member
from porterlb.core.observed import Nic

LAN = Nic("eth0", 1, b"\2\0\0\0\1\1", True, (ip_interface("10.77.0.1/24"),))
STORAGE = Nic("eth1", 2, b"\2\0\0\0\2\1", True, (ip_interface("10.78.0.1/24"),))
B, C, ROUTER = (TargetKey(1, bytes([10, 77, 0, n])) for n in (2, 3, 254))
B2 = TargetKey(2, bytes([10, 78, 0, 2]))
MAC_B, MAC_B2, MAC_C, FORGED = b"\2\0\0\0\1\2", b"\2\0\0\0\2\2", b"\2\0\0\0\1\3", b"\6\6\6\6\6\6"
NOW = 10.0


def nodes() -> Nodes:
    """a is our node; b has a replica, c has none."""
    made = Nodes("a", Timing())
    made.set_nics({1: LAN, 2: STORAGE})
    targets = [Target("b", B), Target("b", B2, False), Target("c", C), Target(GATEWAY, ROUTER, False)]
    made.set_targets(targets, {"a", "b"}, (ip_address("10.77.0.1"),))
    for key, mac in ((B, MAC_B), (B2, MAC_B2), (C, MAC_C), (ROUTER, b"\2" * 6)):
        made.heard(*key, mac, NOW)
    return made


def hello(up: bool = True, mac: bytes = MAC_B, sequence: int = 1) -> Hello:
    lan = SegmentState((LAN.addresses[0].network,), up, mac=mac, contacts=(GATEWAY,))
    storage = SegmentState((STORAGE.addresses[0].network,), mac=MAC_B2, contacts=("a", "c"))
    return Hello("b", 1, sequence, segments=(lan, storage))


def test_the_mac_of_a_node_with_a_replica_is_that_of_its_hello() -> None:
    made = nodes()
    assert made.said(hello(), NOW)
    assert made.heard(*B, FORGED, NOW) is None and made.mac("b", 1) == MAC_B and made.mac("b", 2) == MAC_B2
    assert made.contested == {B.address: FORGED} and not made.is_known(FORGED)
    assert made.said(hello(mac=FORGED, sequence=2), NOW)  # a new NIC
    assert made.mac("b", 1) == FORGED and made.is_known(FORGED)


def test_a_node_that_answers_with_the_mac_of_its_other_interface_is_believed() -> None:
    made = nodes()
    made.said(hello(), NOW)
    made.detector.probes.suspected_elsewhere(B, NOW)
    heard = made.heard(*B, MAC_B2, NOW)
    assert heard is not None and heard.cleared


def test_a_forged_reply_keeps_no_dead_node_alive() -> None:
    made = nodes()
    made.said(hello(), NOW)
    last = made.detector.probes.findings[B].target.last
    made.heard(*B, FORGED, NOW + 5.0)
    assert made.detector.probes.findings[B].target.last == last


def test_without_a_replica_a_mac_changes_only_while_the_old_one_does_not_answer() -> None:
    made = nodes()
    assert made.heard(*C, FORGED, NOW) is None and made.mac("c", 1) == MAC_C
    made.detector.probes.suspected_elsewhere(C, NOW)
    heard = made.heard(*C, FORGED, NOW)
    assert heard is not None and heard.mac and made.mac("c", 1) == FORGED
    gone = nodes()
    gone.said(hello(), NOW)
    gone.left("b")
    assert gone.heard(*B, FORGED, NOW) is None and gone.mac("b", 1) == MAC_B


def test_what_is_remembered_of_forged_replies_is_bounded() -> None:
    made = nodes()
    targets = [Target(f"n{i}", TargetKey(1, bytes([10, 77, 1, i]))) for i in range(200)]
    made.set_targets(targets, set(), ())
    before = len(made.known())
    for target in targets:
        made.heard(*target.key, MAC_C, NOW)
    for number in range(5000):
        target = targets[number % len(targets)]
        made.heard(*target.key, b"\6" + number.to_bytes(5, "big"), NOW)
    assert len(made.contested) == MOST_CONTESTED and len(made.known()) <= before + 1
    assert {made.mac(target.node, 1) for target in targets} == {MAC_C}


def test_a_node_is_dead_everywhere_by_its_internal_ip_and_on_a_segment_by_that_alone() -> None:
    made = nodes()
    made.said(hello(up=False), NOW)
    made.step(NOW, 0.0)
    assert made.dead == {"b"} and made.judgement.on(1) == {"b"} and made.judgement.on(2) == frozenset()
    made.said(hello(sequence=2), NOW)
    made.step(NOW, 0.0)
    assert made.dead == frozenset()
    storage = SegmentState((STORAGE.addresses[0].network,), up=False)
    made.said(Hello("b", 1, 3, segments=(*hello().segments[:1], storage)), NOW)
    made.step(NOW, 0.0)
    assert made.dead == frozenset() and made.judgement.on(2) == {"b"}


def test_our_own_node_is_dead_where_its_internal_ip_has_no_carrier() -> None:
    made = nodes()
    down = Nic(LAN.name, LAN.index, LAN.mac, False, LAN.addresses)
    made.set_nics({1: down, 2: STORAGE})
    made.set_targets([Target("b", B, up=False), Target("b", B2, False)], {"a", "b"}, (ip_address("10.77.0.1"),))
    made.heard(*B2, MAC_B2, NOW)
    made.step(NOW, 0.0)
    assert made.dead == {"a"} and not made.judgement.doubt


def test_probed_are_nodes_with_an_internal_ip_on_our_segments() -> None:
    made = nodes()
    assert made.probed == {"b", "c"} and made.gateways


def test_a_bridge_that_only_connects_workloads_is_no_segment() -> None:
    """cni0 has no carrier while no pod runs, and the nodes' cni0 have different subnets."""
    made = nodes()
    inside = Nic("cni0", 3, b"\2\0\0\0\3\1", False, (ip_interface("10.244.3.1/24"),), inner=True)
    made.set_nics({1: LAN, 2: STORAGE, 3: inside})
    made.step(NOW, 0.0)
    assert not made.judgement.dead and not made.judgement.causes
    assert {network for state in made.detector.speak(NOW) for network in state.subnets} == {
        LAN.addresses[0].network,
        STORAGE.addresses[0].network,
    }
    there = Member("b", "10.77.0.2", 7473, 1, (ip_interface("10.77.0.2/24"), ip_interface("10.244.3.7/24")))
    found = find_targets("a", {"b": (ip_address("10.77.0.2"),)}, {"b": there}, [LAN, inside])
    assert [target.key for target in found] == [B]
