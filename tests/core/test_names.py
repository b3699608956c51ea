"""Names: valid names are safe as one segment of a path, and no other text is accepted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.core.names import is_key, is_name, is_namespace
from porterlb.core.parse import parse_eip, parse_peer

BAD = (
    "",
    ".",
    "..",
    "a/b",
    "-a",
    "a-",
    "a..b",
    ".a",
    "a.",
    "A",
    "a_b",
    "a b",
    "a\n",
    "\u00e4",
    "\u0661",
    "a%2e",
    "a" * 254,
)


@pytest.mark.parametrize("text", BAD)
def test_what_is_not_a_name(text: str) -> None:
    assert not is_name(text)
    assert not is_namespace(text)


def test_what_is_a_name() -> None:
    for text in ("a", "0", "web-1", "node-1.example.org", "a" * 253):
        assert is_name(text)
    assert is_namespace("a" * 63)
    assert not is_namespace("a" * 64) and not is_namespace("a.b")


def test_keys_of_secrets() -> None:
    for text in ("password", "a.b_C-9", ".hidden", "a" * 253):
        assert is_key(text)
    for text in ("", ".", "..", "..x", "a/b", "a b", "a\n", "a" * 254):
        assert not is_key(text)


@given(st.text(alphabet=st.sampled_from("abz019-./_A\n%"), max_size=12))
def test_a_name_is_one_segment(text: str) -> None:
    if is_name(text):
        assert "/" not in text and ".." not in text and text[0].isalnum() and text[-1].isalnum()


@pytest.mark.parametrize("name", ["..", "a/b", "A", "../../namespaces/kube-system/secrets/x"])
def test_a_peer_with_a_secret_of_no_possible_name_is_refused_with_a_sentence(name: str) -> None:
    peer = {
        "metadata": {"name": "r1"},
        "spec": {
            "conf": {"neighborAddress": "10.0.0.1", "peerAs": 1, "authPasswordSecret": {"name": name, "key": "x"}}
        },
    }
    parsed = parse_peer(peer)
    assert parsed.value is None
    (problem,) = (problem for problem in parsed.problems if problem.fatal)
    assert problem.field == "spec.conf.authPasswordSecret.name"
    assert "is not the name of a Secret: lower-case letters" in problem.message


def test_a_peer_with_a_key_that_no_secret_can_have_is_refused() -> None:
    conf = {"neighborAddress": "10.0.0.1", "peerAs": 1, "authPasswordSecret": {"name": "s", "key": "../x"}}
    parsed = parse_peer({"metadata": {"name": "r1"}, "spec": {"conf": conf}})
    assert parsed.value is None
    assert [p.field for p in parsed.problems if p.fatal] == ["spec.conf.authPasswordSecret.key"]


def test_an_object_of_no_possible_name_is_refused() -> None:
    parsed = parse_eip({"metadata": {"name": "../x"}, "spec": {"address": "10.0.0.1"}})
    assert parsed.value is None
    assert "is not a valid name" in parsed.problems[0].message
