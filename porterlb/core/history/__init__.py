"""What happened: derived by comparing what was known with what is known, kept in a bounded value."""

from porterlb.core.history.entries import Entry, What, Why
from porterlb.core.history.history import History, Place, noted, step

__all__ = ["Entry", "History", "Place", "What", "Why", "noted", "step"]
