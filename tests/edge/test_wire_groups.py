"""Solicited-node groups: a switch that snoops MLD (a Linux bridge), and a NIC that filters multicast (macvlan)."""

from __future__ import annotations

import errno
import json
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv6Address, ip_address

import pytest
from scapy.layers.inet6 import ICMPv6MLReport2, IPv6
from scapy.layers.l2 import Ether

from lab.frames import solicitation, who_has
from lab.host import Host, segment_nic
from lab.measure import wait_until
from lab.net import Net
from porterlb.core.layer2.ndp import solicited_node
from porterlb.core.observed import Nic
from porterlb.wire.netlink import NicTable
from tests.edge.wire_lab import PATIENCE, Segment, resolve, vips

pytestmark = pytest.mark.lab

VIP, NOBODY = "fd77::abcd:100", "fd77::abcd:200"
FORGOTTEN = 3.0  # seconds after which the lab's switch forgets members that do not answer its queries


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(nodes=2, snooping=True)
    try:
        made.tell(vips=vips((VIP, ("n1", "n2"))))
        made.start()
        made.settled()
        yield made
    finally:
        made.close()


def members(segment: Segment) -> set[tuple[str, str]]:
    """(port, group) pairs that the switch has learned."""
    table = json.loads(segment.net.switch.run(["bridge", "-j", "mdb", "show"]).stdout)
    return {(entry["port"], entry["grp"]) for bridge in table for entry in bridge["mdb"]}


def group_of(address: str) -> str:
    return str(IPv6Address(solicited_node(ip_address(address).packed)))


def arrives(client: Host, host: Host, nic: str, target: str) -> bool:
    """Whether a solicitation for ``target`` that a client sends now arrives at an interface of a host."""
    with host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD)) as ears:
        host.ns.call(lambda: ears.bind((nic, 0x86DD)))
        with client.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as mouth:
            client.ns.call(lambda: mouth.bind(("eth0", 0x86DD)))
            mouth.send(solicitation(client.mac, client.v6, IPv6Address(target)))
        deadline = time.monotonic() + 0.3
        while (left := deadline - time.monotonic()) > 0:
            ears.settimeout(left)
            try:
                frame = ears.recv(2048)
            except TimeoutError:
                break
            if frame[54:55] == b"\x87" and frame[62:78] == ip_address(target).packed:
                return True
    return False


@pytest.mark.parametrize("version", [2, 1])
def test_a_snooping_switch_hands_solicitations_over_for_as_long_as_they_are_wanted(segment: Segment, version) -> None:
    segment.net.switch.ip(f"link set segment type bridge mcast_mld_version {version}")
    time.sleep(2 * FORGOTTEN + 1.0)
    assert {(node, group_of(VIP)) for node in ("n1", "n2")} <= members(segment)
    assert [answer.mac for answer in who_has(segment.client, VIP)] == [segment.host("n1").mac]
    assert not arrives(segment.client, segment.host("n1"), "eth0", NOBODY), "the switch floods: this proves nothing"

    segment.tell(vips={})
    # The last-member queries get no answer; this ends the membership long before it would expire
    wait_until(lambda: not any(group == group_of(VIP) for _, group in members(segment)), FORGOTTEN - 0.5, "a leave")
    assert not arrives(segment.client, segment.host("n1"), "eth0", VIP)


def test_one_who_leaves_takes_the_group_from_nobody_else(segment: Segment) -> None:
    segment.replicas.pop("n2").close()
    replica = segment.replicas["n1"]
    other = "fd78::abcd:100"  # the same group
    wanted = segment.tell(vips=vips((VIP, ("n1",)), (other, ("n1",)), interface="eth0"))
    replica.until(lambda r: r.report.applied == wanted.digest, "both are wanted")
    wanted = segment.tell(vips=vips((VIP, ("n1",)), interface="eth0"))
    replica.until(lambda r: r.report.applied == wanted.digest, "one is wanted")
    time.sleep(FORGOTTEN + 1.0)
    assert ("n1", group_of(VIP)) in members(segment)
    assert [answer.mac for answer in who_has(segment.client, VIP)] == [segment.host("n1").mac]


def test_thousands_of_groups_stay_known_to_the_switch(segment: Segment) -> None:
    first = ip_address("fd77::abcd:1000")
    addresses = [str(first + number) for number in range(2000)]
    wanted = segment.tell(vips=vips(*((address, ("n1", "n2")) for address in addresses)))
    for replica in segment.replicas.values():
        replica.until(lambda r: r.report.applied == wanted.digest, "all are wanted", 30.0)
    time.sleep(2 * FORGOTTEN + 1.0)
    known = members(segment)
    for node in ("n1", "n2"):
        assert not [address for address in addresses if (node, group_of(address)) not in known]
    for address in addresses[::400]:
        assert resolve(segment.client, address) == (segment.host("n1").mac, "REACHABLE")


def reports(ears: socket.socket, group: str, seconds: float) -> list[int]:
    """The record types of a group in the incoming MLDv2 reports."""
    found, deadline = [], time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        ears.settimeout(left)
        try:
            packet = Ether(ears.recv(2048))
        except TimeoutError:
            break
        except OSError as error:
            assert error.errno == errno.ENETDOWN  # reported once, for the time without carrier
            continue
        if ICMPv6MLReport2 in packet and packet[IPv6].src.startswith("fe80:") and packet[IPv6].hlim == 1:
            found += [record.rtype for record in packet[ICMPv6MLReport2].records if record.dst == group]
    return found


def test_groups_are_reported_anew_when_the_cable_is_back() -> None:
    """For a switch that sends no queries."""
    segment = Segment(nodes=2)
    try:
        segment.tell(vips=vips((VIP, ("n1", "n2"))))
        segment.start(["n1"])
        segment.replicas["n1"].until(lambda r: VIP in r.answering, "the VIP is answered")
        switch = segment.net.switch
        with switch.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x86DD))) as ears:
            time.sleep(1.5)  # until the second report of the join is over
            switch.call(lambda: ears.bind(("n1", 0x86DD)))
            segment.net.carrier("n1", False)
            segment.replicas["n1"].until(lambda r: not any(nic.up for nic in r.report.nics), "the carrier is gone")
            segment.net.carrier("n1", True)
            assert reports(ears, group_of(VIP), 3.0) == [4, 4]  # CHANGE_TO_EXCLUDE_MODE, twice
    finally:
        segment.close()


def test_what_could_not_be_reported_is_reported_later(segment: Segment) -> None:
    """While the interface has no IPv6, nothing can be sent from it; the switch learns the group once IPv6 is back."""
    host = segment.host("n2")
    host.ns.ip("address flush dev eth0 scope link", "address flush dev eth0 scope global")
    host.ns.sysctl({"net/ipv6/conf/eth0/disable_ipv6": 1})
    late = "fd77::abcd:300"
    wanted = segment.tell(vips=vips((late, ("n2", "n1")), interface="eth0"))
    segment.replicas["n2"].until(lambda r: r.report.applied == wanted.digest, "it is wanted")
    time.sleep(1.0)
    assert ("n2", group_of(late)) not in members(segment)
    host.ns.sysctl({"net/ipv6/conf/eth0/disable_ipv6": 0})
    wait_until(lambda: ("n2", group_of(late)) in members(segment), PATIENCE, "a report once IPv6 is there")
    assert "cannot report solicited-node groups on eth0 yet" in segment.replicas["n2"].process.output()


def test_a_nic_that_filters_multicast_lets_solicitations_in() -> None:
    """A macvlan delivers multicast only to listeners that joined, like the filter of a NIC."""
    segment = Segment(nodes=1)
    try:
        host, client = segment.host("n1"), segment.client
        host.ns.ip(
            "link add macvlan0 link eth0 address 02:77:00:00:00:99 type macvlan mode bridge",
            "link set macvlan0 up",
            "address add fd78::11/64 dev macvlan0 nodad",
        )
        client.ns.ip("address add fd78::200/64 dev eth0 nodad")
        served = "fd78::abcd:100"
        segment.tell(vips=vips((served, ("n1",)), interface="macvlan0"))
        segment.start()
        segment.replicas["n1"].until(lambda r: bool(r.answering.get(served)), "it is answered")
        # Its filter is a hash of 256 values: one group that was not joined may pass, eight do not
        assert not all(arrives(client, host, "macvlan0", f"fd78::5678:{number}") for number in range(1, 9))
        assert arrives(client, host, "macvlan0", served)
        assert resolve(client, served)[0] == "02:77:00:00:00:99"
    finally:
        segment.close()


@pytest.fixture
def host() -> Iterator[Host]:
    with Net() as net:
        made = Host(net, "host", [segment_nic(1)])
        net.plug(made.cables())
        made.configure()
        yield made


def test_an_interface_returns_with_its_carrier_and_with_nothing_else(host) -> None:
    table = host.ns.call(NicTable)
    index = next(index for index, nic in table.nics.items() if nic.name == "eth0")
    table.returned.clear()
    host.ns.ip("address add fd77::99/64 dev eth0 nodad", "link set eth0 mtu 1400")
    table.update()
    assert table.returned == set()
    host.net.carrier("host", False)
    host.net.carrier("host", True)
    wait_until(lambda: table.update() is None and table.nics[index].up, PATIENCE, "the carrier")
    assert table.returned == {index}
    table.close()


@pytest.mark.parametrize("event, returned", [(5, True), (4, True), (2, False)])
def test_an_interface_returns_when_its_bond_fails_over(host, event, returned) -> None:
    """The kernel's notification of IGMP_RESEND or NOTIFY_PEERS (linux/if_link.h), as a bond sends it."""
    table = host.ns.call(NicTable)

    def complete() -> Nic | None:
        """The interface, once the kernel has assigned its link-local address."""
        table.update()
        nic = next(nic for nic in table.nics.values() if nic.name == "eth0")
        return nic if any(own.ip.is_link_local for own in nic.addresses) else None

    nic = wait_until(complete, PATIENCE, "the link-local address")[0]
    assert nic is not None
    table.returned.clear()
    parts = ((1, nic.mac), (3, b"eth0\0"), (44, struct.pack("=I", event)))  # IFLA_ADDRESS, IFLA_IFNAME, IFLA_EVENT
    body = struct.pack("=BxHiII", 0, 1, nic.index, 0x11043, 0)
    for kind, value in parts:
        body += struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
    with host.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.sendto(struct.pack("=IHHII", 16 + len(body), 16, 0, 0, 0) + body, (0, 1))
        table.update()
    assert table.nics[nic.index] == nic and table.returned == ({nic.index} if returned else set())
    table.close()
