"""The place of a process: held while it lives, even stopped, and free as soon as it is dead."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from porterlb.edge.place import Place

HOLDER = """
import sys
from porterlb.edge.place import Place

place = Place("dir:/somewhere", sys.argv[1])
print(place.name, flush=True)
sys.stdin.read()
"""


def test_a_place_is_free_only_after_the_death_of_its_holder() -> None:
    namespace = f"test-{os.getpid()}"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, namespace], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            name = holder.stdout.readline().strip()
            assert name
            holder.send_signal(signal.SIGSTOP)
            assert Place("dir:/somewhere", namespace).name == ""
            other = Place("dir:/elsewhere", namespace)
            assert other.name not in ("", name)
            other.close()
        finally:
            holder.kill()
    again = Place("dir:/somewhere", namespace)
    assert again.name == name
    again.close()
