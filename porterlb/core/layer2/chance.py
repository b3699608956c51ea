"""Random numbers for jitter, from a seed: the replay of a recorded process draws the same numbers."""

from __future__ import annotations

_MASK = (1 << 64) - 1


class Chance:
    """SplitMix64. Each call returns a number in [0, 1)."""

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def __call__(self) -> float:
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)
