"""Makes the frames that ask for a MAC: the probes of `core.layer2.probes`, and duplicate address probes."""

from __future__ import annotations

from ipaddress import ip_address

from porterlb.core.layer2.arp import BROADCAST, NO_IPV4
from porterlb.core.layer2.ndp import UNSPECIFIED
from porterlb.core.layer2.probes import Probe
from porterlb.core.layer2.targets import Gateway, source_for
from porterlb.core.model import Address
from porterlb.core.observed import Nic
from porterlb.wire import netlink
from porterlb.wire.templates import Templates


def default_gateways() -> list[Gateway]:
    """The next hops towards the documentation addresses, for which there is no more specific route."""
    routes = [netlink.route(ip_address(goal)) for goal in ("192.0.2.1", "2001:db8::1")]
    return [Gateway(nic, address) for nic, address in routes if address is not None]


class ProbeFrames:
    """Keeps the frames of the probes, because they are the same each time."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates
        self._frames: dict[Probe, bytes] = {}

    def forget(self) -> None:
        """Call this after any change of interfaces or targets."""
        self._frames.clear()

    def probe(self, nic: Nic, probe: Probe) -> bytes:
        """The frame, from our own address on the interface; empty if we have none in that subnet."""
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
                frame = self._templates.ndp.solicitation(nic.mac, source.packed, probe.key.address, to)
            self._frames[probe] = frame
        return frame

    def duplicate(self, nic: Nic, address: Address) -> bytes:
        """The frame that asks whether any host has ``address``, without a sender address (RFC 5227 1.1, RFC 4862
        5.4.2)."""
        if address.version == 4:
            return self._templates.arp.request(nic.mac, BROADCAST, nic.mac, NO_IPV4, address.packed)
        return self._templates.ndp.solicitation(nic.mac, UNSPECIFIED, address.packed)
