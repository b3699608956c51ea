"""Depth: values that are nested too deeply are replaced by a text, the rest stays, and no recursion is unlimited."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.depth import MOST, TOO_DEEP, limited, shallow
from porterlb.core.parse import parse_eip

JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=6), st.sampled_from(['"', "[", "]}", '\\"'])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=20,
)


def levels(value: Any) -> int:
    """Computed without recursion."""
    deepest, left = 0, [(value, 1)]
    while left:
        item, depth = left.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            left += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_what_is_not_too_deep_is_the_same_value() -> None:
    value = nested(MOST)
    assert limited(value) is value


def test_one_level_too_many_is_replaced() -> None:
    found = limited(nested(MOST + 1))
    assert levels(found) == MOST
    assert TOO_DEEP in json.dumps(found)


@given(JSON, st.integers(0, 4))
def test_limits(value: Any, most: int) -> None:
    before = json.dumps(value)
    found = limited(value, most)
    assert levels(found) <= most
    assert (found is value) == (levels(value) <= most)
    assert json.dumps(value) == before


@given(JSON, st.integers(0, 4))
def test_text_is_cut_as_values_are(value: Any, most: int) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert json.loads(shallow(text, most)) == limited(value, most)


@given(st.text(alphabet=st.sampled_from('[]{}",:a1\\'), max_size=30), st.integers(0, 3))
def test_no_text_is_made_json_that_was_not(text: str, most: int) -> None:
    cut = shallow(text, most)
    try:
        json.loads(cut)
    except ValueError:
        return
    depth = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
    assert depth == 0 or '"' in text


def test_a_selector_that_is_nested_too_deep_is_refused_at_its_object() -> None:
    eip = {"metadata": {"name": "a"}, "spec": {"address": "10.0.0.1", "namespaceSelector": {"x": nested(1500)}}}
    parsed = parse_eip(limited(eip))
    assert parsed.value is None
    assert all(problem.field.startswith("spec.namespaceSelector") for problem in parsed.problems if problem.fatal)


def test_text_is_cut_where_it_is_too_deep_and_stays_the_same_around_it() -> None:
    assert shallow('[[1], {"a": [2]}, 3]', 1) == f'["{TOO_DEEP}", "{TOO_DEEP}", 3]'
    assert shallow('[[1], {"a": [2]}, 3]', 2) == f'[[1], {{"a": "{TOO_DEEP}"}}, 3]'
