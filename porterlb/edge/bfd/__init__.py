"""BFD: supervises its process."""

from porterlb.edge.bfd.speaker import BfdSpeaker

__all__ = ["BfdSpeaker"]
