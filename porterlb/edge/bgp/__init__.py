"""BGP: ExaBGP supervised. It is told the whole wanted set, and what it does is reported."""

from porterlb.edge.bgp.speaker import BgpSpeaker

__all__ = ["BgpSpeaker"]
