"""Computes every status that the cluster does not have yet, and writes it."""

from porterlb.edge.status.writer import StatusWriter

__all__ = ["StatusWriter"]
