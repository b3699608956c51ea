"""What happened: derived by comparing the previous with the current knowledge, kept in a bounded value."""

from porterlb.core.history.entries import Entry, What, Why
from porterlb.core.history.history import History, ServedBy, noted, step

__all__ = ["Entry", "History", "ServedBy", "What", "Why", "noted", "step"]
