"""Random kills and stops of everything, in random order: it always converges. See lab/chaos.py for the long one."""

from __future__ import annotations

import random

import pytest

from lab.chaos import Chaos
from lab.cluster import Lab
from lab.routers import KINDS

pytestmark = pytest.mark.lab


def test_it_always_converges() -> None:
    """About a minute, with another seed and router each time; the seed is in the output of a failure."""
    seed = random.SystemRandom().randrange(10**6)
    router = sorted(KINDS)[seed % len(KINDS)]
    print(f"python -m lab.chaos --seed {seed} --router {router}")
    with Lab(nodes=3, routers=[router], pod_servers=False, second=True) as lab:
        chaos = Chaos(lab, seed)
        try:
            chaos.prepare()
            assert chaos.run(steps=300, seconds=45) > 0
        except BaseException:
            for name, process in chaos.managers.items():
                print(f"--- {name}\n{process.output()[-3000:]}")
            raise
        finally:
            print(chaos.summary())
