"""What a newcomer runs first: the demo's story goes to its end, and what it measures keeps generous bounds."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from lab.cluster import Lab
from lab.demo import Demo

pytestmark = pytest.mark.lab


def test_the_story_is_told_to_its_end() -> None:
    with Lab(nodes=3, routers=["bird"]) as lab:
        demo = Demo(lab, Console(file=io.StringIO()))
        demo.run()
    assert len(demo.rows) == 9
    for what, figure in demo.rows:
        found = re.fullmatch(r"(\d+) ms|(\d+\.\d\d) s|(\d+) of \d+", figure)
        assert found, f"{what}: {figure}"
        gap, seconds, lost = found.groups()
        if gap is not None:
            assert int(gap) < 1000, what
        elif seconds is not None:
            assert float(seconds) < 20, what
        else:
            assert int(lost) == 0, what
    # The lease of a leader that loses its power has to run out first: 4 s, renewed each second
    waited = dict(demo.rows)["until the new leader gave a new Service its address"]
    assert float(waited.split()[0]) > 1.0
