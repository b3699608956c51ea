"""After each network fault, one MAC or the correct next hops remain for each VIP; or a condition names the cause.

The table is in lab/fault_matrix.py; `python -m bench faults` checks it with every router, and prints how long it took.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.chaos import Chaos
from lab.cluster import Lab
from lab.fault_matrix import CASES, Case, judge

pytestmark = [pytest.mark.lab, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def chaos() -> Iterator[Chaos]:
    with Lab(nodes=3, routers=["bird"], pod_servers=False, second=True) as lab:
        made = Chaos(lab, seed=13)
        made.prepare()
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_fault_leaves_one_answer_or_a_cause(chaos: Chaos, case: Case) -> None:
    assert judge(chaos, case) <= case.within
