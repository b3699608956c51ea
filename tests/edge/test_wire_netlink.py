"""The table of interfaces: which of the kernel's data it keeps."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from porterlb.wire.netlink import HOST_ADDRESSES, NicTable

_NEWLINK, _DELLINK, _NEWADDR, _DELADDR = 16, 17, 20, 21
_INDEX = 2**31 - 5  # an index that no interface of the machine has


def attribute(kind: int, data: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def link(name: str) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 1, _INDEX, 0x10001, 0) + attribute(1, bytes(6)) + attribute(3, name.encode())


def address(text: str, prefix: int) -> bytes:
    return struct.pack("=BBBBI", 2, prefix, 0, 0, _INDEX) + attribute(2, IPv4Address(text).packed)


@pytest.fixture
def table() -> Iterator[NicTable]:
    table = NicTable()
    table._apply(_NEWLINK, link("kube-ipvs0"))
    yield table
    table.close()


def test_f8_of_thousands_of_host_addresses_a_few_are_kept(table: NicTable) -> None:
    """kube-proxy in IPVS mode puts every VIP of the cluster on kube-ipvs0."""
    for number in range(2000):
        table._apply(_NEWADDR, address(str(IPv4Address("10.96.0.0") + number), 32))
    assert len(table.nics[_INDEX].addresses) == HOST_ADDRESSES


def test_f8_addresses_with_a_subnet_are_all_kept(table: NicTable) -> None:
    for number in range(1, 21):
        table._apply(_NEWADDR, address(f"10.77.{number}.1", 24))
    table._apply(_NEWADDR, address("10.77.0.1", 32))
    assert len(table.nics[_INDEX].addresses) == 21
    table._apply(_DELADDR, address("10.77.0.1", 32))
    assert len(table.nics[_INDEX].addresses) == 20


def of_kind(name: str, index: int, kind: str = "", master: int = 0, family: int = 0) -> bytes:
    head = struct.pack("=BBHiII", family, 0, 1, index, 0x10001, 0)
    data = head + attribute(1, bytes(6)) + attribute(3, name.encode())
    if master:
        data += attribute(10, struct.pack("=I", master))
    return data + (attribute(18, attribute(1, kind.encode() + b"\0")) if kind else b"")


def test_e6_a_bridge_is_inside_the_node_unless_a_port_leads_out(table: NicTable) -> None:
    bridge, pod, uplink = _INDEX - 1, _INDEX - 2, _INDEX - 3
    table._apply(_NEWLINK, of_kind("cni0", bridge, "bridge"))
    table._apply(_NEWLINK, of_kind("veth1", pod, "veth", bridge))
    assert table.nics[bridge].inner and not table.nics[pod].inner
    table._apply(_NEWLINK, of_kind("eth1", uplink, master=bridge))
    assert not table.nics[bridge].inner and not table.nics[uplink].inner
    table._apply(_DELLINK, of_kind("eth1", uplink))
    assert table.nics[bridge].inner
    table._apply(_NEWLINK, of_kind("bond0.5", uplink, "vlan", bridge))
    assert not table.nics[bridge].inner


def test_a_port_that_leaves_its_bridge_is_still_an_interface(table: NicTable) -> None:
    """The kernel reports that as RTM_DELLINK of the family PF_BRIDGE."""
    table._apply(_NEWLINK, of_kind("eth1", _INDEX - 3))
    table._apply(_DELLINK, of_kind("eth1", _INDEX - 3, family=7))
    assert table.nics[_INDEX - 3].name == "eth1"


@pytest.mark.lab
def test_e6_the_kernel_tells_bridges_from_nics() -> None:
    """A bridge with a pod's veth pair, and a veth pair that is an uplink, as in a container."""
    commands = [
        "ip link add cni0 type bridge",
        "ip link add pod0 type veth peer name pod1",
        "ip link set pod1 master cni0",
        "ip link set cni0 up",
    ]
    found = subprocess.run(
        ["unshare", "--net", "sh", "-ec", "\n".join([*commands, f"{sys.executable} -c '{_TELL}'"])],
        check=True,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert found.stdout.split() == ["cni0", "True", "pod0", "False", "pod1", "False"]


_TELL = """
from porterlb.wire.netlink import NicTable
for nic in sorted(NicTable().nics.values(), key=lambda nic: nic.name):
    print(nic.name, nic.inner)
"""
