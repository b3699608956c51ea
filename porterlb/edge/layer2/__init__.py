"""Layer 2: supervises the wire process and keeps it in the wanted state."""

from porterlb.edge.layer2.speaker import Layer2Speaker

__all__ = ["Layer2Speaker"]
