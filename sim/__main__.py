"""``python -m sim``: runs seeds, and reports the first promise that is broken."""

from __future__ import annotations

import os
import sys
from ipaddress import IPv6Address


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of strings is part of the seed
        os.execve(sys.executable, [sys.executable, "-m", "sim", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    IPv6Address.__hash__ = _hash  # type: ignore[method-assign,assignment]
    from sim.command import command  # noqa: PLC0415 - only once the order of sets is fixed

    return command(sys.argv[1:])


def _hash(address: IPv6Address) -> int:
    """The order of sets of IPv6 addresses is part of the seed too. Python's own hash contains that of the scope, and
    before Python 3.12 the hash of None is its address in memory."""
    return hash((int(address), address.scope_id or ""))


if __name__ == "__main__":
    raise SystemExit(main())
