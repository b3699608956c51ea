"""Sends ARP or NDP requests from inside a namespace: ``python -m bench.load '{"mode": "latency", ...}'``.

``latency``: one request at a time; from just before it is sent until this process has read the answer (spinning, to
exclude the wake-up; the process's own part is about 3 µs, also for the kernel's answers). ``flood``: requests at a
steady rate by sendmmsg, with frames built beforehand. The kernel counts the answers, and none is lost because this
process is too slow. Prints one JSON object.
"""

from __future__ import annotations

import ctypes
import gc
import json
import socket
import struct
import sys
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from lab.frames import arp_request, solicitation
from porterlb.wire import packet

BATCH = 32
_SOL_PACKET, _PACKET_STATISTICS = 263, 6


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


def questions(options: dict[str, Any]) -> list[bytes]:
    """One frame per address, in an order other than that of the addresses."""
    first, count = ip_address(options["first"]), int(options["count"])
    order = [(number * 7919) % count for number in range(count)]  # a prime: each number occurs once
    if isinstance(first, IPv4Address):
        return [arp_request(options["mac"], options["v4"], IPv4Address(int(first) + n)) for n in order]
    return [solicitation(options["mac"], options["v6"], IPv6Address(int(first) + n)) for n in order]


def answers_socket(version: int) -> socket.socket:
    """Receives answers only: ARP replies or neighbor advertisements."""
    if version == 4:
        return packet.open_socket("eth0", packet.ETHERTYPE_ARP, packet.arp_program(2))
    return packet.open_socket("eth0", packet.ETHERTYPE_IPV6, packet.ndp_program(136))


def latency(options: dict[str, Any]) -> dict[str, Any]:
    frames = questions(options)
    version = ip_address(options["first"]).version
    sock = answers_socket(version)
    at, target = (28, slice(38, 42)) if version == 4 else (62, slice(62, 78))
    found, lost = [], 0
    for number in range(int(options["questions"])):
        frame = frames[number % len(frames)]
        wanted = frame[target]
        _empty(sock)
        begun = time.perf_counter_ns()
        sock.send(frame)
        while True:
            try:
                data = sock.recv(256)
            except BlockingIOError:
                if time.perf_counter_ns() - begun > 200_000_000:
                    lost += 1
                    break
                continue
            if data[at : at + len(wanted)] == wanted:
                found.append((time.perf_counter_ns() - begun) / 1000)
                break
        pause = time.monotonic() + 0.0003
        while time.monotonic() < pause:
            pass
    return {"microseconds": found, "lost": lost}


def _empty(sock: socket.socket) -> None:
    """Discards received announcements: they must not count as answers to the next request."""
    try:
        while True:
            sock.recv(256)
    except BlockingIOError:
        pass


def flood(options: dict[str, Any]) -> dict[str, Any]:
    frames = questions(options)
    frames = (frames * (BATCH * 64 // len(frames) + 1)) if len(frames) < BATCH * 64 else frames
    frames = frames[: len(frames) // BATCH * BATCH]
    size = len(frames[0])
    buffer = ctypes.create_string_buffer(b"".join(frames), size * len(frames))
    vectors = (_Vector * len(frames))()
    messages = (_Message * len(frames))()
    for number in range(len(frames)):
        vectors[number].base = ctypes.addressof(buffer) + number * size
        vectors[number].length = size
        messages[number].vectors = ctypes.addressof(vectors[number])
        messages[number].count = 1
    receiver = answers_socket(ip_address(options["first"]).version)
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # the kernel also counts frames that do not fit
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.bind(("eth0", 0))
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    fd, base, step = sender.fileno(), ctypes.addressof(messages), ctypes.sizeof(_Message)
    rate, seconds = float(options["rate"]), float(options["seconds"])
    receiver.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)  # resets the counters
    sent = refused = place = 0
    begun = time.monotonic()
    while (elapsed := time.monotonic() - begun) < seconds:
        if elapsed * rate < sent + BATCH:
            continue
        done = send(fd, ctypes.c_void_p(base + place * step), BATCH, 0)
        if done > 0:
            sent += done
        else:
            refused += 1
        place = (place + BATCH) % len(frames)
    elapsed = time.monotonic() - begun
    time.sleep(float(options.get("linger", 1.5)))
    answered = struct.unpack("=II", receiver.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[0]
    return {"sent": sent, "refused": refused, "rate": sent / elapsed, "answered": answered}


if __name__ == "__main__":
    gc.disable()
    chosen = json.loads(sys.argv[1])
    print(json.dumps({"latency": latency, "flood": flood}[chosen["mode"]](chosen)), flush=True)
