"""The delay before a failed operation is retried."""

from __future__ import annotations


def delay(failures: int, chance: float, *, first: float = 0.2, ceiling: float = 5.0) -> float:
    """Seconds to wait after ``failures`` failures in a row. Doubles from ``first`` to ``ceiling``; half of it is
    random.

    Args:
        failures: failures in a row; 0: no wait.
        chance: a random number from [0, 1). Each waiter on the same resource draws its own, so that they do not retry
            at the same time. The fixed half prevents a busy loop after a series of small random numbers.
        first, ceiling: seconds.
    """
    if failures <= 0:
        return 0.0
    # The exponent is bounded before the power is taken: a week of failures would give an exponent of about 100,000.
    whole = min(ceiling, first * 2 ** min(failures - 1, 32))
    return float(whole * (0.5 + 0.5 * chance))
