"""The fuzz targets: a reader of untrusted bytes, seeds, and the properties that must hold for every input.

A target gets bytes and returns nothing. Any exception is a fault: readers report errors in their return value.
"""

from __future__ import annotations

import hmac
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from porterlb.core.bfd import packet as bfd
from porterlb.core.depth import shallow
from porterlb.core.exabgp_text import events
from porterlb.core.hello import codec
from porterlb.core.hello.value import Hello, HelloRefusal
from porterlb.core.layer2.arp import parse_arp
from porterlb.core.layer2.mld import parse_query
from porterlb.core.layer2.ndp import parse_ndp
from porterlb.core.layer2.questions import arp_question, ndp_question
from porterlb.core.migration import metallb, openelb
from porterlb.core.parse import (
    parse_conf,
    parse_eip,
    parse_endpoint_slice,
    parse_meta,
    parse_node,
    parse_peer,
    parse_service,
)
from porterlb.edge.manifests import documents

KEY = b"a key of the replicas"
PLANTED = 0x5A if os.environ.get("PORTERLB_FUZZ_PLANTED") else 0
"""A planted fault for the test of the fuzzer itself: a detection multiplier that raises."""


@dataclass(frozen=True, slots=True)
class Target:
    """``words``: texts of the format, for the mutator's dictionary."""

    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[str, ...] = ()
    longest: int = 4096


def frames(data: bytes) -> None:
    """An Ethernet frame from the segment."""
    parse_arp(data), parse_ndp(data), parse_query(data), arp_question(data), ndp_question(data)


def hellos(data: bytes) -> None:
    """A datagram from any host, and one from a host that has the key."""
    codec.claimed_node(data)
    assert isinstance(codec.decode(data, KEY), Hello | HelloRefusal)
    signed = b"PLBH" + data
    signed += hmac.digest(KEY, signed, sha256)
    read = codec.decode(signed, KEY)
    if isinstance(read, Hello):
        again = codec.decode(codec.encode(read, KEY), KEY)
        assert again == read


def exabgp(data: bytes) -> None:
    """A line from ExaBGP, which passes on routers' texts."""
    for line in data.split(b"\n"):
        events.parse(line)


def bfd_packets(data: bytes) -> None:
    """A UDP datagram on port 3784."""
    read = bfd.decode(data)
    if PLANTED and isinstance(read, bfd.Packet) and read.multiplier == PLANTED:
        raise ValueError("planted")
    if isinstance(read, bfd.Packet):
        assert bfd.decode(read.encode()) == read


def manifests(data: bytes) -> None:
    """A file of a directory of manifests."""
    loaded = documents.load(data.decode("utf-8", "replace"), "fuzzed.yaml")
    for document in loaded.documents:
        _objects(document.object)


def objects(data: bytes) -> None:
    """An object of the Kubernetes API, and the objects of other load balancers for `porterlb import`."""
    try:
        value = json.loads(shallow(data.decode("utf-8", "replace"), 60))
    except (ValueError, RecursionError):
        return
    _objects(value)
    some = value if isinstance(value, list) else [value]
    found = [obj for obj in some if isinstance(obj, Mapping)]
    for convert in (metallb.convert, openelb.convert):
        convert(found)


def _objects(value: Any) -> None:
    parse_meta(value)
    parse_endpoint_slice(value)
    for parsed in (
        parse_eip(value),
        parse_peer(value),
        parse_conf(value),
        parse_node(value),
        parse_service(value, True),
    ):
        if parsed is None:
            continue
        assert (parsed.value is None) == any(problem.fatal for problem in parsed.problems)
        for problem in parsed.problems:
            assert problem.message.endswith(".") and "\n" not in str(problem)


_ARP = bytes.fromhex("ffffffffffff020000000001080600010800060400010200000000010a4d000b0000000000000a4d0064")
_NS = bytes.fromhex(
    "3333ff000064020000000001 86dd 60000000 0020 3aff fd770000000000000000000000000011 ff0200000000000000000001ff000064"
    "8700 0000 00000000 fd770000000000000000000000000064 0101020000000001"
)
_QUERY = bytes.fromhex(
    "333300000001020000000001 86dd 60000000 0024 0001 fe800000000000000000000000000001 ff020000000000000000000000000001"
    "3a00 0502 0000 0100 8200 0000 2710 0000 00000000000000000000000000000000 027d 0000"
)
_BFD = bytes.fromhex("20c80318 00000001 00000002 0000c350 0000c350 00000000")
_UP = (
    b'{"exabgp":"5.0.0","time":1,"host":"h","pid":1,"ppid":1,"counter":1,"type":"state","neighbor":{"address":{"local":'
    b'"10.0.0.1","peer":"10.0.0.2"},"asn":{"local":64512,"peer":64500},"state":"down","reason":"peer reset, message '
    b'(notification sent (6, 2))"}}'
)
_NOTIFICATION = (
    b'{"type":"notification","neighbor":{"address":{"peer":"10.0.0.2"},"direction":"receive","notification":{"code":6,'
    b'"subcode":2,"data":"","message":"0b6d61696e74656e616e6365"}}}'
)
_EIP: dict[str, Any] = {
    "apiVersion": "network.kubesphere.io/v1alpha2",
    "kind": "Eip",
    "metadata": {"name": "pool", "annotations": {"eip.porter.kubesphere.io/is-default-eip": "true"}},
    "spec": {
        "address": "10.0.0.1-10.0.0.9,fd77::/120",
        "exclude": "10.0.0.4",
        "interface": "can_reach:10.0.0.1",
        "priority": 3,
        "namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
    },
    "status": {"used": {"10.0.0.1": "default/web"}},
}
_PEER: dict[str, Any] = {
    "apiVersion": "network.kubesphere.io/v1alpha2",
    "kind": "BgpPeer",
    "metadata": {"name": "tor", "generation": 2},
    "spec": {
        "conf": {"neighborAddress": "10.0.0.254", "peerAs": 64500, "authPasswordSecret": {"name": "x", "key": "y"}},
        "afiSafis": [{"config": {"family": {"afi": "AFI_IP", "safi": "SAFI_UNICAST"}, "enabled": True}}],
        "timers": {"config": {"holdTime": 9}},
        "bfd": {"enabled": True, "detectMultiplier": 3},
        "advertise": [{"communities": ["64500:1", "no-export"], "largeCommunities": ["1:2:3"], "med": 5}],
    },
}
_SERVICE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "default", "uid": "u"},
    "spec": {
        "type": "LoadBalancer",
        "loadBalancerClass": "network.kubesphere.io/porterlb",
        "ports": [{"port": 80, "protocol": "TCP"}],
        "ipFamilies": ["IPv4"],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
}
_POOL: dict[str, Any] = {
    "apiVersion": "metallb.io/v1beta1",
    "kind": "IPAddressPool",
    "metadata": {"name": "first", "namespace": "metallb-system"},
    "spec": {
        "addresses": ["10.0.0.0/28"],
        "autoAssign": True,
        "serviceAllocation": {"priority": 5, "namespaces": ["a"]},
    },
}
_BGPPEER: dict[str, Any] = {
    "apiVersion": "metallb.io/v1beta2",
    "kind": "BGPPeer",
    "metadata": {"name": "r"},
    "spec": {"myASN": 64512, "peerASN": 64500, "peerAddress": "10.0.0.254", "holdTime": "90s", "bfdProfile": "p"},
}
_ALL = (_EIP, _PEER, _SERVICE, _POOL, _BGPPEER)


def _words(value: Any) -> set[str]:
    if isinstance(value, Mapping):
        return {f'"{key}"' for key in value} | {word for inner in value.values() for word in _words(inner)}
    if isinstance(value, list):
        return {word for inner in value for word in _words(inner)}
    return {json.dumps(value)}


_WORDS = tuple(sorted({word for obj in _ALL for word in _words(obj)}))

TARGETS: Mapping[str, Target] = {
    "frames": Target(frames, (_ARP, _NS, _QUERY), longest=1514),
    "hellos": Target(hellos, (codec.encode(Hello("node-a", 1, 1), KEY)[4:-32],), longest=codec.MAX_DATAGRAM),
    "exabgp": Target(exabgp, (b"done", b"error", _UP, _NOTIFICATION, b"[" + _UP + b"]")),
    "bfd": Target(bfd_packets, (_BFD,), longest=128),
    "manifests": Target(manifests, tuple(json.dumps(obj, indent=1).encode() for obj in _ALL), _WORDS),
    "objects": Target(objects, tuple(json.dumps(obj).encode() for obj in _ALL), _WORDS),
}
