"""Random kills and stops of all components, in random order: the system always converges. See lab/chaos.py for the long
test."""

from __future__ import annotations

import random

import pytest

from lab.chaos import Chaos
from lab.cluster import Lab
from lab.routers import KINDS

pytestmark = pytest.mark.lab


def test_it_always_converges() -> None:
    """Takes about a minute, each time with another seed and router. The output of a failure contains the seed."""
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
