"""The template frames, built once with scapy. Everything that is sent later is a patched copy (core.neighbour)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from porterlb.core.neighbour import ArpTemplate, NeighbourTemplate


@dataclass(frozen=True, slots=True)
class Templates:
    arp: ArpTemplate
    neighbour: NeighbourTemplate


class Building:
    """The templates while a forked child makes them: scapy costs 60 MB and up to a second, which the process that
    answers neither keeps nor waits for. Make it before there is a loop or a thread; ``fileno`` is readable at the end.
    """

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self._child = os.fork()
        if self._child == 0:
            status = 1
            try:
                os.write(writing, b"".join(len(frame).to_bytes(2, "big") + frame for frame in _with_scapy()))
                status = 0
            finally:
                os._exit(status)
        os.close(writing)
        self._reading = reading

    def fileno(self) -> int:
        return self._reading

    def finish(self) -> Templates:
        """Waits for the child. Raises RuntimeError when scapy failed; its own words are on standard error."""
        with os.fdopen(self._reading, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(self._child, 0)
        if status:
            raise RuntimeError("scapy could not build the template frames: is it installed?")
        length = int.from_bytes(data[:2], "big")
        return Templates(ArpTemplate(data[2 : 2 + length]), NeighbourTemplate(data[4 + length :]))


def _with_scapy() -> tuple[bytes, bytes]:
    from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6  # noqa: PLC0415
    from scapy.layers.l2 import ARP, Ether  # noqa: PLC0415

    mac = "02:00:00:00:00:01"
    arp = Ether(src=mac, dst="ff:ff:ff:ff:ff:ff") / ARP(op="who-has", hwsrc=mac, psrc="192.0.2.1", pdst="192.0.2.1")
    advertisement = (
        Ether(src=mac, dst="33:33:00:00:00:01")
        / IPv6(src="2001:db8::1", dst="ff02::1", hlim=255)
        / ICMPv6ND_NA(tgt="2001:db8::1", R=0, S=0, O=1)
        / ICMPv6NDOptDstLLAddr(lladdr=mac)
    )
    return bytes(arp), bytes(advertisement)
