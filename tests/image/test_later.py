"""The rolling upgrade tests make another release by an edit of this source: the edited text must still exist."""

from __future__ import annotations

from pathlib import Path

from porterlb.core.hello import codec
from tests.cluster.nodes import later


def test_the_place_of_the_change_is_in_the_source_once() -> None:
    assert Path(codec.__file__).read_text().count(later.RETURN) == 1
