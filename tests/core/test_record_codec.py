"""Values of the core as JSON and back: for every type of value, and never with a secret."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.desired import SessionConfig
from porterlb.core.layer2.chance import Chance
from porterlb.core.model import AddressRange, Endpoint, Mode, Peer, ServiceKey
from porterlb.core.persistent import PersistentMap, PersistentSet
from porterlb.core.record.codec import MOST, SECRET_TEXT, NotRecordable, decode, encode
from porterlb.core.record.plain import canonical, plain
from porterlb.core.wire_text import WireConfig

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8)
    | st.ip_addresses()
    | st.sampled_from([ip_network("10.0.0.0/8"), ip_interface("fd00::1/64"), *Mode])
    | st.builds(ServiceKey, st.text(max_size=4), st.text(max_size=4))
    | st.builds(Endpoint, st.text(max_size=4), ready=st.booleans())
)
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=3), max_leaves=4)
VALUES: st.SearchStrategy[Any] = st.recursive(
    HASHABLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3)
        | st.dictionaries(HASHABLE, inner, max_size=3).map(PersistentMap)
        | st.lists(inner, max_size=3).map(tuple)
        | st.lists(inner, max_size=3).map(deque)
        | st.sets(HASHABLE, max_size=3)
        | st.lists(HASHABLE, max_size=3).map(PersistentSet)
    ),
    max_leaves=8,
)


def there_and_back(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


@given(VALUES)
def test_what_is_encoded_comes_back(value: Any) -> None:
    found = there_and_back(value)
    assert found == value
    assert type(found) is type(value)


@given(VALUES)
def test_equal_values_give_equal_text(value: Any) -> None:
    assert canonical(plain(value)) == canonical(plain(there_and_back(value)))


@given(st.recursive(st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=4)))
def test_any_json_is_decoded_or_refused(data: Any) -> None:
    with contextlib.suppress(NotRecordable):
        decode(data)


class Ring:
    """A class that is not part of the core."""


def test_objects_keep_who_refers_to_whom_and_where_chance_is() -> None:
    chance = Chance(7)
    first = [chance() for _ in range(3)]
    again = Chance(7)
    assert [again() for _ in range(3)] == first
    one, other = there_and_back((chance, chance))
    assert one is other
    assert [one() for _ in range(3)] == [chance() for _ in range(3)]
    assert all(0 <= number < 1 for number in first)
    assert len(set(first)) == 3


def test_an_object_may_refer_to_itself() -> None:
    chance = Chance(1)
    chance.me = chance  # type: ignore[attr-defined]
    found = there_and_back(chance)
    assert found.me is found


@pytest.mark.parametrize("value", [print, Ring(), lambda: 0, object(), {"a": Ring()}])
def test_what_is_no_value_of_the_core_is_refused(value: Any) -> None:
    with pytest.raises(NotRecordable):
        encode(value)


@pytest.mark.parametrize(
    "data",
    [
        ["o", 0, "layer2.chance:os"],
        ["o", 0, "layer2.engine:HOUSEKEEPING"],
        ["o", 0, "..settings:Settings"],
        ["o", 0, "nothing:Here"],
        ["n", "model:Address"],
        ["e", "model:Mode", "LOUD"],
        ["r", 7],
        ["b", "zz"],
        ["a", "IPv4Address", "300.1.1.1"],
        ["?"],
        {},
    ],
)
def test_only_classes_of_the_core_are_made(data: Any) -> None:
    with pytest.raises(NotRecordable):
        decode(data)


def test_depth_is_bounded() -> None:
    deep: Any = ()
    for _ in range(MOST + 1):
        deep = (deep,)
    with pytest.raises(NotRecordable):
        encode(deep)
    with pytest.raises(NotRecordable):
        plain(deep)
    data: Any = ["l"]
    for _ in range(MOST + 1):
        data = ["l", data]
    with pytest.raises(NotRecordable):
        decode(data)


def test_secrets_are_left_out_and_valid_again() -> None:
    peer = Peer("tor", ip_address("10.0.0.1"), 64500, password="hunter22")
    session = SessionConfig("tor", ip_address("10.0.0.1"), 1, 2, ip_address("10.0.0.2"), password="hunter22")  # type: ignore[arg-type]
    config = WireConfig("node-a", b"key of the hellos")
    for value in (peer, session, config):
        assert "hunter22" not in json.dumps([encode(value), plain(value)])
        assert b"key of the hellos".hex() not in json.dumps([encode(value), plain(value)])
    assert there_and_back(peer).password == SECRET_TEXT
    assert there_and_back(Peer("open", ip_address("10.0.0.1"), 1)).password == ""
    assert len(there_and_back(config).key) >= 16
    sentence = encode("neighbor refused: md5 hunter22 is wrong", {"hunter22"})
    assert "hunter22" not in sentence


def test_plain_values_are_for_people() -> None:
    shown = plain(
        {ServiceKey("shop", "web"): (Mode.BGP, frozenset("ba"), AddressRange(*map(ip_address, ("1.2.3.4",) * 2)))}
    )
    assert shown == {"shop/web": ["bgp", ["a", "b"], ["1.2.3.4", "1.2.3.4"]]}
