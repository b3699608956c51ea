"""The settings for placing VIPs on nodes and moving them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """Times in seconds; see :mod:`porterlb.settings`. ``automatic``: whether VIPs are moved without a request."""

    settle_after: float = 10.0
    automatic: bool = True
    rebalance_after: float = 600.0
    pace: float = 10.0


DEFAULT = PlacementPolicy()

AT_ONCE = PlacementPolicy(settle_after=0.0, automatic=False)
"""For a plan that is not carried out: placement is decided at once, and no VIP is moved automatically."""
