"""Bug reports carry no secret: neither in objects nor in logs."""

from __future__ import annotations

import pytest

from porterlb.core.doctor.redact import REDACTED, SHORTEST, redacted, secrets_in, without


@pytest.mark.parametrize(
    "name", ["password", "authPassword", "passwd", "clientSecret", "TOKEN", "private-key", "apiKey"]
)
def test_fields_with_the_name_of_a_secret_are_removed_at_any_depth(name) -> None:
    value = {"spec": [{"conf": {name: "hunter2", "peerAs": 64500}}]}
    assert redacted(value) == {"spec": [{"conf": {name: REDACTED, "peerAs": 64500}}]}


def test_references_numbers_and_flags_say_no_secret_and_stay() -> None:
    value = {
        "passwordSecret": {"name": "rack-1", "key": "password"},
        "password": None,
        "token": True,
        "secretVersion": 3,
    }
    assert redacted(value) == {**value, "passwordSecret": {"name": "rack-1", "key": "password"}}
    assert redacted({"passwordSecret": {"password": "hunter2"}}) == {"passwordSecret": {"password": REDACTED}}
    assert redacted({"tokens": ["one", "two"]}) == {"tokens": REDACTED}


def test_text_copies_of_an_object_are_removed() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{password: hunter2}", "note": "kept"}
    assert redacted({"annotations": annotations, "managedFields": []}) == {"annotations": {"note": "kept"}}


def test_the_secrets_of_the_objects_are_those_that_logs_must_not_show() -> None:
    long, short = "s" * SHORTEST, "s" * (SHORTEST - 1)
    value = {"password": long, "spec": [{"token": ["one", "hunter2"], "secret": short, "address": "10.0.0.1"}]}
    assert secrets_in([value, {"password": {"apiKey": "inner"}}]) == {long, "one", "hunter2", "inner"}
    assert secrets_in([{"name": "visible"}]) == frozenset()


def test_a_secret_that_contains_another_is_removed_as_a_whole() -> None:
    assert without("login hunter2 with hunter", ["hunter", "hunter2"]) == f"login {REDACTED} with {REDACTED}"
