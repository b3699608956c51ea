"""``python -m sim``: runs seeds, and reports the first promise that is broken."""

from __future__ import annotations

import os
import sys


def main() -> int:
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of strings is part of the seed
        os.execve(sys.executable, [sys.executable, "-m", "sim", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    from sim.command import command  # noqa: PLC0415 - only once the order of sets is fixed

    return command(sys.argv[1:])


if __name__ == "__main__":
    raise SystemExit(main())
