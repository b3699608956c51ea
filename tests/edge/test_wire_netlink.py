"""The table of interfaces: what is kept of the kernel's messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from porterlb.wire.netlink import HOST_ADDRESSES, NicTable

_NEWLINK, _NEWADDR, _DELADDR = 16, 20, 21
_INDEX = 2**31 - 5  # no interface of the machine


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
