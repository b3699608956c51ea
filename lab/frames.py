"""Frames on the segment: the hosts that answer for an address, and captures."""

from __future__ import annotations

import select
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from lab.host import Host
from lab.measure import wait_until
from lab.netns import LabError
from lab.process import Process

ETH_ARP = 0x0806
ETH_IPV6 = 0x86DD


@dataclass(frozen=True)
class Answer:
    """One answer to an ARP request or neighbor solicitation: the MAC in it, the MAC that sent the frame, and its delay
    in seconds."""

    mac: str
    source: str
    after: float


def mac_text(raw: bytes) -> str:
    return ":".join(f"{byte:02x}" for byte in raw)


def mac_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def who_has(host: Host, address: str, timeout: float = 0.3, questions: int = 1) -> list[Answer]:
    """Sends a broadcast ARP request or multicast neighbor solicitation, and collects every answer until the timeout.

    Answers are sent to this host only: broadcast announcements that arrive in the meantime do not count.

    Args:
        timeout: seconds to listen after each request.
        questions: number of requests.
    """
    nic = host.nics[0]
    target = ip_address(address)
    if isinstance(target, IPv4Address):
        protocol, question, parse = ETH_ARP, arp_request(nic.mac, nic.v4, target), _parse_arp
    else:
        protocol, question, parse = ETH_IPV6, solicitation(nic.mac, nic.v6, target), _parse_na
    answers: list[Answer] = []
    with host.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol)) as sock:
        host.ns.call(lambda: sock.bind((nic.name, protocol)))
        for _ in range(questions):
            asked = time.monotonic()
            sock.send(question)
            while (left := asked + timeout - time.monotonic()) > 0:
                if not select.select([sock], [], [], left)[0]:
                    break
                frame, info = sock.recvfrom(2048)
                if info[2] != socket.PACKET_HOST:
                    continue
                if mac := parse(frame, target.packed):
                    answers.append(Answer(mac, mac_text(frame[6:12]), time.monotonic() - asked))
    return answers


def arp_request(mac: str, sender: str, target: IPv4Address) -> bytes:
    """A broadcast ARP request (RFC 826) as an Ethernet frame."""
    own = mac_bytes(mac)
    body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, own, socket.inet_aton(sender), bytes(6), target.packed)
    return b"\xff" * 6 + own + struct.pack("!H", ETH_ARP) + body


def solicitation(mac: str, sender: str, target: IPv6Address) -> bytes:
    """A neighbor solicitation (RFC 4861) to the solicited-node group, with the source link-layer option."""
    own = mac_bytes(mac)
    group = IPv6Address("ff02::1:ff00:0").packed[:13] + target.packed[13:]
    source = IPv6Address(sender).packed
    icmp = struct.pack("!BBHI16sBB6s", 135, 0, 0, 0, target.packed, 1, 1, own)
    total = _ones_sum(source + group + struct.pack("!II", len(icmp), 58) + icmp)
    icmp = icmp[:2] + struct.pack("!H", total) + icmp[4:]
    header = struct.pack("!IHBB16s16s", 6 << 28, len(icmp), 58, 255, source, group)
    return b"\x33\x33" + group[12:] + own + struct.pack("!H", ETH_IPV6) + header + icmp


def _ones_sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _parse_arp(frame: bytes, target: bytes) -> str:
    if len(frame) >= 42 and frame[20:22] == b"\x00\x02" and frame[28:32] == target:
        return mac_text(frame[22:28])
    return ""


def _parse_na(frame: bytes, target: bytes) -> str:
    # Ethernet 14, IPv6 40, then type 136 and the target; the option with the link-layer address comes first
    if len(frame) >= 86 and frame[20] == 58 and frame[54] == 136 and frame[62:78] == target and frame[78] == 2:
        return mac_text(frame[80:86])
    return ""


@dataclass(frozen=True)
class Frame:
    """A captured frame. `at` is wall-clock seconds (``time.time()``), as recorded by tcpdump."""

    at: float
    data: bytes


class Capture:
    """Runs tcpdump on one interface from construction until `stop`.

    Args:
        expression: a pcap filter, e.g. ``arp or icmp6``.
    """

    def __init__(self, host: Host, expression: str = "", interface: str = "eth0") -> None:
        self._host = host
        self.file = host.net.folder / f"{host.name}-{time.monotonic_ns()}.pcap"
        options = ["-n", "-U", "--immediate-mode", "-s", "512", "-B", "8192", "-Z", "root", "-w", str(self.file)]
        argv = ["tcpdump", "-i", interface, *options]
        self.process: Process = host.start(f"tcpdump-{self.file.stem}", argv + ([expression] if expression else []))

        def listening() -> bool:
            if not self.process.alive:
                raise LabError(f"tcpdump has ended: {self.process.output()}")
            return "listening on" in self.process.output()

        wait_until(listening, 10.0, "tcpdump to listen", interval=0.005)

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the capture. A second call does nothing."""
        if self.process.alive:
            self.process.signal(signal.SIGINT)
            self.process.wait(10.0)

    def frames(self, keep: Callable[[bytes], bool] = lambda _: True) -> list[Frame]:
        """The raw frames captured so far for which `keep` returns True."""
        return [frame for frame in read_pcap(self.file) if keep(frame.data)]

    def summaries(self) -> list[str]:
        """The packets captured so far, one line of tcpdump's text per packet."""
        return self._host.run(["tcpdump", "-n", "-e", "-tt", "-r", str(self.file)]).stdout.splitlines()


def read_pcap(path: Path) -> list[Frame]:
    """The frames of a pcap file in this machine's byte order. An incomplete last frame is omitted."""
    data = path.read_bytes()
    frames = []
    position = 24
    while position + 16 <= len(data):
        seconds, fraction, kept, _ = struct.unpack_from("=IIII", data, position)
        if position + 16 + kept > len(data):
            break
        frames.append(Frame(seconds + fraction / 1e6, data[position + 16 : position + 16 + kept]))
        position += 16 + kept
    return frames
