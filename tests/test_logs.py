"""Log lines: one per event, for people or for machines, and not forgeable from outside."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from porterlb.logs import LINE_AT_MOST, dropped, fields, set_up


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.unraisablehook, threading.excepthook
    yield
    sys.unraisablehook, threading.excepthook = hooks
    logging.captureWarnings(False)
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
    logging.getLogger().handlers[0].flush()
    return stream.getvalue().splitlines()


def test_text() -> None:
    found = lines("text")
    assert found[0].endswith('INFO    edge.bgp  Session is up. peer="r 1" node=n1')
    assert found[1].endswith("WARNING edge.bgp  The peer says bye\\n2026-01-01T00:00:00.000Z ERROR forged message=x")
    assert found[-1] == "ValueError: boom"


def test_less_important_lines_are_not_written() -> None:
    stream = io.StringIO()
    set_up("text", stream, level="warning")
    logging.getLogger("porterlb.x").info("small")
    logging.getLogger("porterlb.x").warning("big")
    logging.getLogger().handlers[0].flush()
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == ["big"]


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


PROGRAM = """
import logging, sys, time
from porterlb import logs
logs.set_up("text")
log = logging.getLogger("porterlb.x")
began = time.monotonic()
for number in range(20_000):
    log.info("line %d %s", number, "x" * 100)
print(f"{time.monotonic() - began:.3f} {logs.dropped()}", flush=True)
sys.stdin.readline()
log.info("the last one")
"""


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    """20,000 lines of 150 bytes: 64 KiB fit into the pipe, 1 MiB is buffered, the rest is dropped and counted."""
    reading, writing = os.pipe()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=writing, text=True
    )
    os.close(writing)
    with program:
        assert program.stdin is not None and program.stdout is not None
        seconds, dropped = program.stdout.readline().split()
        assert float(seconds) < 20
        assert 10_000 < int(dropped) < 15_000
        with open(reading, encoding="utf-8") as reader:  # noqa: PTH123 — a descriptor
            first = [reader.readline() for _ in range(1000)]
            program.stdin.write("\n")
            program.stdin.flush()
            rest = reader.readlines()
    kept = [int(line.split()[4]) for line in first + rest if " line " in line]
    # Nothing is dropped before the buffer is full. The thread that writes to the pipe may free buffer space later.
    assert kept[:5000] == list(range(5000))
    assert kept == sorted(set(kept))
    assert len(kept) + int(dropped) == 20_000
    said = [int(found[1]) for line in first + rest if (found := re.search(r"(\d+) log lines were dropped", line))]
    assert sum(said) == int(dropped)
    assert rest[-1].rstrip().endswith("the last one")


def test_a_reader_that_does_not_read_does_not_stop_the_end_either() -> None:
    reading, writing = os.pipe()
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing
    )
    os.close(writing)
    try:
        assert program.wait(30) == 0
    finally:
        program.kill()
        program.wait()
        os.close(reading)


def test_a_reader_that_has_gone_is_counted() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as stream:  # noqa: PTH123 — a descriptor
        set_up("text", stream)
        logging.getLogger("porterlb").info("hello")
        logging.getLogger().handlers[0].flush()
    assert dropped() == 1


def test_long_lines_are_cut_and_what_cannot_be_shown_is_said() -> None:
    class Unshowable:
        def __str__(self) -> str:
            raise ZeroDivisionError

    stream = io.StringIO()
    set_up("text", stream)
    logging.getLogger("porterlb").info("x" * 100_000)
    logging.getLogger("porterlb").info("value %s", Unshowable())
    logging.getLogger("porterlb").info("surrogate \ud800")
    logging.getLogger().handlers[0].flush()
    long, failed, surrogate = stream.getvalue().splitlines()
    assert len(long) < LINE_AT_MOST + 20 and long.endswith("... (cut)")
    assert "ZeroDivisionError in the log line 'value %s'" in failed
    assert surrogate.endswith("surrogate \\ud800")


def test_what_nobody_could_catch_is_logged_too() -> None:
    class Bad:
        def __del__(self) -> None:
            raise ZeroDivisionError("in __del__")

    def fails() -> None:
        raise ZeroDivisionError("in a thread")

    stream = io.StringIO()
    set_up("json", stream)
    Bad()
    thread = threading.Thread(target=fails, name="t1")
    thread.start()
    thread.join()
    logging.getLogger().handlers[0].flush()
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert ["in __del__" in found[0]["exception"], "in a thread" in found[1]["exception"]] == [True, True]
