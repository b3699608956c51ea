"""Mappings and sets with inexpensive new versions: they behave like dict and frozenset."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.persistent import Editor, PersistentMap, PersistentSet, differing, editing

keys, values = st.integers(0, 600), st.integers(0, 3)
changes = st.lists(st.tuples(st.sampled_from(["set", "pop", "del", "freeze"]), keys, values), max_size=60)


@given(st.dictionaries(keys, values), changes)
def test_an_editor_does_what_a_dict_does_and_leaves_its_values_alone(
    start: dict[int, int], story: list[tuple[str, int, int]]
) -> None:
    plain, first = dict(start), PersistentMap(start)
    edit = first.edit()
    versions: list[tuple[PersistentMap[int, int], dict[int, int]]] = []
    for what, key, value in story:
        if what == "set":
            plain[key], edit[key] = value, value
        elif what == "pop":
            assert edit.pop(key, None) == plain.pop(key, None)
        elif what == "del" and key in plain:
            del plain[key], edit[key]
        else:
            versions.append((edit.frozen(), dict(plain)))
        assert len(edit) == len(plain) and edit.get(key) == plain.get(key) and (key in edit) == (key in plain)
    assert dict(edit.items()) == plain and sorted(edit.values()) == sorted(plain.values())
    last = edit.frozen()
    assert last == plain and plain == last and edit.frozen() is last and (last == first) == (plain == start)
    assert dict(first) == start and all(dict(version) == then for version, then in versions)
    assert differing(first, last) == {k for k in {*start, *plain} if start.get(k) != plain.get(k)}
    assert differing(first, last) == differing(dict(first), dict(last)) == differing(first, dict(last))


def test_a_missing_key_is_missing() -> None:
    for empty in (PersistentMap[int, int](), Editor[int, int]()):
        assert not empty and empty.get(1) is None and 1 not in empty
        for work in (lambda e=empty: e[1], lambda e=empty: e.pop(1), lambda e=empty: e.__delitem__(1)):
            try:
                work()
            except (KeyError, AttributeError):
                continue
            raise AssertionError
    assert editing({1: 2}).frozen() == {1: 2}


sets = st.frozensets(keys)


@given(sets, sets, sets)
def test_a_set_does_what_a_frozenset_does(start: frozenset[int], remove: frozenset[int], add: frozenset[int]) -> None:
    found = PersistentSet(start)
    after = found.changed(remove, add)
    plain = (start - remove) | add
    assert found == start and after == plain and start == found and len(after) == len(plain)
    assert after - found == plain - start and found - after == start - plain and after ^ found == plain ^ start
    assert after - start == plain - start and start - after == start - plain and start ^ after == start ^ plain
    assert (after == found) == (plain == start) and set(after | found) == plain | start
    assert found.changed(remove, remove) == start | remove
