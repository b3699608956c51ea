"""Sends the probes that `core.layer2.liveness` asks for."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from porterlb.core.layer2.liveness import Liveness, Probe
from porterlb.core.layer2.targets import Gateway, source_for
from porterlb.core.neighbour import BROADCAST
from porterlb.core.observed import Nic
from porterlb.wire import netlink
from porterlb.wire.observer import Observer
from porterlb.wire.templates import Templates


def default_gateways() -> list[Gateway]:
    """The next hops towards the documentation addresses: whatever has no better route."""
    routes = [netlink.route(ip_address(goal)) for goal in ("192.0.2.1", "2001:db8::1")]
    return [Gateway(nic, address) for nic, address in routes if address is not None]


class Prober:
    """Makes and sends the frames; keeps them, for they are the same each time."""

    def __init__(self, liveness: Liveness, templates: Templates) -> None:
        self._liveness = liveness
        self._templates = templates
        self._frames: dict[Probe, bytes] = {}

    def forget_frames(self) -> None:
        """After any change of interfaces or targets."""
        self._frames.clear()

    def send(self, observers: Mapping[int, tuple[Nic, Observer]]) -> int:
        """Probes every target whose interface is up; returns how many."""
        sent = 0
        for probe in self._liveness.probes(observers):
            nic, observer = observers[probe.key.nic]
            frame = self._frame(nic, probe)
            if frame and observer.send(frame):
                sent += 1
                self._liveness.sent(probe.key)
        return sent

    def _frame(self, nic: Nic, probe: Probe) -> bytes:
        frame = self._frames.get(probe)
        if frame is None:
            address = ip_address(probe.key.address)
            source = source_for(nic, address)
            if source is None:
                return b""
            if address.version == 4:
                frame = self._templates.arp.request(nic.mac, probe.mac, nic.mac, source.packed, probe.key.address)
            else:
                to = b"" if probe.mac == BROADCAST else probe.mac
                frame = self._templates.neighbour.solicitation(nic.mac, source.packed, probe.key.address, to)
            self._frames[probe] = frame
        return frame
