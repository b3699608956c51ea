"""BGP: supervises ExaBGP, gives it the whole wanted set, and reports its state."""

from porterlb.edge.bgp.speaker import BgpSpeaker

__all__ = ["BgpSpeaker"]
