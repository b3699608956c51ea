"""Passwords: a faulty Secret affects only its own peer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest

from porterlb.cluster import Denied, Kind, Unavailable
from porterlb.core.model import Peer
from porterlb.edge.passwords import Passwords


class Secrets:
    """A cluster with Secrets only; an exception in place of a Secret is raised."""

    namespace = "porterlb-system"

    def __init__(self, **secrets: Any) -> None:
        self.secrets = secrets

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Any:
        assert (kind, namespace) == (Kind.SECRET, self.namespace)
        found = self.secrets.get(name)
        if isinstance(found, Exception):
            raise found
        return found


def secret(password: str) -> dict[str, Any]:
    return {"data": {"password": base64.b64encode(password.encode()).decode()}}


def peers(*secrets: str) -> dict[str, Peer]:
    return {name: Peer(name, ip_address("10.0.0.1"), 1, password_secret=(name, "password")) for name in secrets}


def read(cluster: Secrets, *names: str, told: list[Mapping[str, str]] | None = None) -> Passwords:
    passwords = Passwords(cluster, (told if told is not None else []).append)  # type: ignore[arg-type]
    passwords.want(peers(*names))
    asyncio.run(passwords._read())
    return passwords


@pytest.mark.parametrize(
    "bad",
    [
        ValueError("'..' is not a name"),
        RecursionError(),
        ZeroDivisionError(),
        Denied("no"),
        Unavailable("away"),
        "text",
        {"data": {"password": "\u00e4"}},
        {"data": {"password": "/w=="}},
        {"data": [1]},
    ],
)
def test_what_one_secret_does_ends_at_its_peer(bad: Any) -> None:
    told: list[Mapping[str, str]] = []
    read(Secrets(a=secret("one"), b=bad, c=secret("three")), "a", "b", "c", told=told)
    assert told == [{"a": "one", "c": "three"}]


@pytest.mark.parametrize(("error", "kept"), [(Unavailable("x"), True), (KeyError("x"), True), (Denied("gone"), False)])
def test_a_known_password_is_kept_unless_the_api_says_that_it_is_gone(error: Exception, kept: bool) -> None:
    told: list[Mapping[str, str]] = []
    cluster = Secrets(a=secret("one"))
    passwords = read(cluster, "a", told=told)
    cluster.secrets["a"] = error
    asyncio.run(passwords._read())
    assert told == ([{"a": "one"}] if kept else [{"a": "one"}, {}])
