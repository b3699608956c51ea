"""BFD: its process supervised."""

from porterlb.edge.bfd.speaker import BfdSpeaker

__all__ = ["BfdSpeaker"]
