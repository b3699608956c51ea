"""OpenELB's objects: those that are not objects of its kinds."""

from __future__ import annotations

import pytest

from porterlb.core.migration.openelb import convert
from porterlb.core.migration.value import API_VERSION


@pytest.mark.parametrize("kind", [{"name": "Eip"}, ["Eip"], None, 7, "Pool"])
def test_a_kind_of_any_type_is_named_as_lost(kind: object) -> None:
    """`kind: {...}` ended the command with a TypeError, found by `make fuzz`."""
    made = convert([{"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "a"}}])
    assert made.manifests == []
    assert [remark.text for remark in made.remarks] == ["PorterLB has no such kind."]
