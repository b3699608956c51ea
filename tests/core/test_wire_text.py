"""The messages between the manager and its wire process: what is written is what is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from porterlb.core.wire_text import (
    RECORDED,
    WireConfig,
    applied_line,
    config_line,
    read_config,
    recorded_lines,
    streamed_lines,
)


def message(line: bytes) -> dict[str, Any]:
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    found: dict[str, Any] = json.loads(line)
    return found


def test_the_settings_come_back_with_the_key_and_the_nodes_that_were_heard() -> None:
    config = WireConfig("node-a", bytes(range(16)), hello_port=7000, record_ring=4096, heard=("node-b", "node-c"))
    sent = message(config_line(config))
    assert (sent["t"], sent["node"], sent["key"]) == ("config", "node-a", bytes(range(16)).hex())
    assert read_config(sent) == config


def test_settings_without_nodes_that_were_heard() -> None:
    sent = message(config_line(WireConfig("node-a", bytes(16))))
    del sent["heard"]
    assert read_config(sent) == WireConfig("node-a", bytes(16))


def test_the_digest_of_the_plan_that_is_complete() -> None:
    assert message(applied_line(77)) == {"t": "applied", "digest": 77}


@pytest.mark.parametrize(
    "texts", [[], ["one"], ["one", "two"], ["x" * (RECORDED - 1), "y"], ["x" * (3 * RECORDED), "y"]]
)
def test_a_recording_is_sent_in_pieces_and_its_end_is_marked(texts) -> None:
    sent = [message(line) for line in recorded_lines(texts)]
    assert {one["t"] for one in sent} == {"recorded"}
    assert "".join(one["text"] for one in sent) == "".join(f"{text}\n" for text in texts)
    assert all(0 < len(one["text"]) <= RECORDED for one in sent[:-1])
    assert [one["last"] for one in sent] == [False] * (len(sent) - 1) + [True]


def test_small_lines_share_a_message() -> None:
    (one,) = map(message, streamed_lines(["one", "two"]))
    assert one == {"t": "streamed", "text": "one\ntwo\n"}
    # A piece ends as soon as it is full: with this line, exactly RECORDED characters.
    full = ["x" * (RECORDED // 2 - 1), "y" * (RECORDED // 2 - 1), "z"]
    assert [len(message(line)["text"]) for line in streamed_lines(full)] == [RECORDED, 2]
