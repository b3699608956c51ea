"""A hello carries texts of at most 255 bytes: the length field has one byte."""

from __future__ import annotations

from porterlb.core.hello import Hello, decode, encode

KEY = b"a key of the cluster's replicas"


def test_a_text_that_is_too_long_for_its_length_byte_is_cut() -> None:
    sent = Hello("n1", 1, 1, sessions=frozenset({"p" * 255, "q" * 300}))
    found = decode(encode(sent, KEY), KEY)
    assert isinstance(found, Hello) and found.sessions == {"p" * 255, "q" * 255}
