"""Log lines: one an event, for people or for machines, that nobody outside can forge."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from porterlb.logs import fields, set_up


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(format_: str) -> list[str]:
    stream = io.StringIO()
    set_up(format_, stream)
    log = logging.getLogger("porterlb.edge.bgp")
    log.info("Session is up.", extra=fields(peer="r 1", node="n1"))
    log.warning("The peer says %s", "bye\n2026-01-01T00:00:00.000Z ERROR forged", extra=fields(message="x"))
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("Something broke.")
    return stream.getvalue().splitlines()


def test_text() -> None:
    found = lines("text")
    assert found[0].endswith('INFO    edge.bgp  Session is up. peer="r 1" node=n1')
    assert found[1].endswith("WARNING edge.bgp  The peer says bye\\n2026-01-01T00:00:00.000Z ERROR forged message=x")
    assert found[-1] == "ValueError: boom"


def test_json() -> None:
    found = [json.loads(line) for line in lines("json")]
    assert len(found) == 3
    assert {
        "level": "info",
        "source": "edge.bgp",
        "message": "Session is up.",
        "peer": "r 1",
        "node": "n1",
    }.items() <= (found[0].items())
    assert found[0]["time"].endswith("Z")
    assert found[1]["message_"] == "x"
    assert "ValueError: boom" in found[2]["exception"]
