"""How long to wait before something that failed is tried again."""

from __future__ import annotations


def delay(failures: int, chance: float, *, first: float = 0.2, ceiling: float = 5.0) -> float:
    """Seconds to wait after so many failures in a row: doubling from ``first`` up to ``ceiling``, half of it by chance.

    Args:
        failures: in a row; 0 waits nothing.
        chance: from [0, 1). Everything that waits on the same thing draws its own, so that not all come at once;
            the half that is not left to chance keeps a lucky row from becoming a busy loop.
        first, ceiling: seconds.
    """
    if failures <= 0:
        return 0.0
    # The exponent is bounded before the power is taken: a week of failures must not become a number of 2^100000.
    whole = min(ceiling, first * 2 ** min(failures - 1, 32))
    return float(whole * (0.5 + 0.5 * chance))
