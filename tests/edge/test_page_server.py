"""The status page's files and its live events, over real sockets: safe headers, limits on a client's resource use."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from porterlb.edge import page
from porterlb.edge.http import HttpServer
from porterlb.edge.state_stream import STREAMS
from tests.core.test_page import many, state
from tests.edge.test_http import ask, bounded

CSP = (
    b"Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
)


def get(path: str, host: str = "127.0.0.1:7472", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


class Reader:
    """One open page."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""

    @classmethod
    async def open(cls, http: HttpServer) -> Reader:
        made = cls(*await asyncio.open_connection("127.0.0.1", http.port, limit=2**26))
        made.writer.write(get("/events"))
        made.head = await made.reader.readuntil(b"\r\n\r\n")
        return made

    async def event(self, within: float = 5.0) -> tuple[str, Any]:
        """The name and the data of the next event with data."""
        async with asyncio.timeout(within):
            while True:
                lines = (await self.reader.readuntil(b"\n\n")).decode().strip().split("\n")
                found = dict(line.split(": ", 1) for line in lines)
                if "data" in found:
                    return found["event"], json.loads(found["data"])

    def close(self) -> None:
        self.writer.transport.abort()


class Stage:
    """A server with a state that the test changes."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self.known, self.asked = known, 0

    def state(self) -> Callable[[], Mapping[str, Any]]:
        self.asked += 1
        known = self.known
        return lambda: known

    def run(self, use: Callable[[HttpServer], Awaitable[None]]) -> None:
        bounded(use, state=self.state)


@pytest.mark.parametrize("path", list(page.PATHS))
def test_the_files_are_sent_with_headers_that_keep_strangers_out(path: str) -> None:
    async def use(http: HttpServer) -> None:
        head, _, body = (await ask(http.port, get(path))).partition(b"\r\n\r\n")
        head += b"\r\n"
        assert head.startswith(b"HTTP/1.1 200 OK\r\n") and body == page.read(path)[1]
        assert f"Content-Type: {page.PATHS[path][1]}\r\n".encode() in head
        for line in (CSP, b"X-Content-Type-Options: nosniff\r\n", b"Referrer-Policy: no-referrer\r\n"):
            assert line in head
        assert b"Cache-Control: no-store\r\n" in head and b"Cross-Origin-Resource-Policy: same-origin\r\n" in head

    bounded(use)


def test_nothing_comes_from_elsewhere_and_text_stays_text() -> None:
    folder = Path(page.__file__).parent
    html, script, style = ((folder / name).read_text() for name in ("index.html", "page.js", "page.css"))
    assert not re.search(r"""(src|href)=["'](https?:)?//""", html) and "@import" not in style and "url(" not in style
    assert not re.search(r"\son\w+=|style=|<script>|<style>", html), "the policy forbids inline script and style"
    forbidden = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|\.srcdoc|\.style\b|import\("
    assert not re.search(forbidden, script)


@pytest.mark.parametrize("path", ["/", "/page.js", "/state", "/events"])
@pytest.mark.parametrize(
    ("host", "answered"),
    [
        ("127.0.0.1:7472", True),
        ("[::1]:7472", True),
        ("[fd00::1]", True),
        ("localhost", True),
        ("node-a:7472", True),
        ("attacker.example", False),
        ("127.0.0.1.attacker.example:7472", False),
        ("localhost.", False),
        ("[attacker.example]", False),
        ("1.2.3", False),
    ],
)
def test_a_web_site_cannot_make_its_name_stand_for_the_replica(path: str, host: str, answered: bool) -> None:
    async def use(http: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        writer.write(get(path, host))
        line = await reader.readline()
        assert line.startswith(b"HTTP/1.1 200" if answered else b"HTTP/1.1 421"), line
        writer.transport.abort()
        for other in ("/healthz", "/metrics"):
            assert (await ask(http.port, get(other, host))).startswith(b"HTTP/1.1 200")

    bounded(use)


def test_an_event_comes_at_once_and_then_only_when_there_is_something_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.state_stream.BEAT", 0.8)  # above the pause between two texts
    stage = Stage(state())

    async def use(http: HttpServer) -> None:
        one = await Reader.open(http)
        assert b"Content-Type: text/event-stream; charset=utf-8\r\n" in one.head and CSP in one.head
        assert b"Content-Length" not in one.head
        name, shown = await one.event()
        assert (name, shown["counts"]["dead"]) == ("page", 0)
        stage.known = {**state(at=5.0), "clock": 17.0}
        http.changed()
        name, data = await one.event()
        assert (name, data) == ("beat", {}), "only clocks have changed"
        of = state()
        of["nodes"]["node-b"]["dead"] = True
        stage.known = of
        began = time.monotonic()
        http.changed()
        name, shown = await one.event()
        assert (name, shown["nodes"]["node-b"]["dead"]) == ("page", True)
        assert time.monotonic() - began < 1.0
        one.close()

    stage.run(use)


def test_it_says_that_it_lives_while_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.state_stream.BEAT", 0.05)
    stage = Stage(state())

    async def use(http: HttpServer) -> None:
        one = await Reader.open(http)
        assert [(await one.event())[0] for _ in range(4)] == ["page", "beat", "beat", "beat"]
        asked = stage.asked
        assert asked == 1, "and computes nothing for it"
        one.close()

    stage.run(use)


def test_why_nothing_is_known_yet_is_kept_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.state_stream.BEAT", 0.05)
    monkeypatch.setattr("porterlb.edge.state_stream.PAUSE", 0.01)
    stage = Stage({"waitingFor": "The API."})

    async def use(http: HttpServer) -> None:
        one = await Reader.open(http)
        assert (await one.event())[1]["waitingFor"] == "The API."
        stage.known = {"waitingFor": "The wire process."}
        found = [await one.event() for _ in range(20)]
        assert ("page", {"version": 1, "waitingFor": "The wire process."}) in found
        one.close()

    stage.run(use)


def test_many_changes_are_few_events() -> None:
    stage = Stage(state())

    async def use(http: HttpServer) -> None:
        one, two = [await Reader.open(http) for _ in range(2)]
        times: list[float] = []

        async def churn() -> None:
            for number in range(500):
                stage.known = {**quiet, "broken": {"a": str(number)}}
                http.changed()
                await asyncio.sleep(0.002)

        quiet = state()
        task = asyncio.create_task(churn())
        while not task.done():
            assert (await one.event())[0] == "page"
            times.append(time.monotonic())
        await task
        assert 2 <= len(times) <= 2 + (times[-1] - times[0]) / 0.45
        assert stage.asked <= len(times) + 2, "one text for all pages"
        stage.known = {**quiet, "broken": {"a": "the last"}}
        http.changed()
        for reader in (one, two):
            while "the last" not in [problem["text"] for problem in (await reader.event())[1].get("problems", ())]:
                pass
            reader.close()

    stage.run(use)


def test_a_page_that_reads_nothing_holds_up_no_other_and_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.http.ANSWER_WITHIN", 1.5)
    stage = Stage(many(2000, services=["x" * 4000]))  # more than the kernel's buffers can hold

    async def use(http: HttpServer) -> None:
        slow = await asyncio.open_connection("127.0.0.1", http.port, limit=1024)
        slow[1].write(get("/events"))
        await asyncio.sleep(0.5)
        quick = await Reader.open(http)
        assert (await quick.event(20))[1]["counts"]["vips"] == 2000
        stage.known = {**stage.known, "broken": {"a": "b"}}
        http.changed()
        while (await quick.event(20))[0] != "page":
            pass
        assert (await ask(http.port)).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(20):
            while len(http._open) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        slow[1].transport.abort()
        quick.close()

    stage.run(use)


def test_the_loop_is_free_while_a_large_page_is_made() -> None:
    """The values of /state and their text are computed in a thread, in pieces."""
    large = many(5000)

    def make() -> Mapping[str, Any]:
        ends = time.monotonic() + 0.3
        while time.monotonic() < ends:
            pass
        return large

    async def use(http: HttpServer) -> None:
        one = await Reader.open(http)
        turns, event = 0, asyncio.create_task(one.event(30))
        while not event.done():
            await asyncio.sleep(0.001)
            turns += 1
        assert turns >= 20, "the loop would have had two or three turns"
        one.close()

    bounded(use, state=lambda: make)


def test_there_is_room_for_some_pages_and_a_closed_one_makes_room() -> None:
    stage = Stage(state())

    async def use(http: HttpServer) -> None:
        open_ = [await Reader.open(http) for _ in range(STREAMS)]
        for reader in open_:
            assert (await reader.event())[0] == "page"
        refused = await ask(http.port, get("/events"))
        assert refused.startswith(b"HTTP/1.1 503 ") and refused.endswith(b"follow this replica already: close one.\n")
        assert (await ask(http.port, get("/"))).startswith(b"HTTP/1.1 200")
        open_.pop().writer.close()
        async with asyncio.timeout(5):
            while (await ask_head(http)).startswith(b"HTTP/1.1 503"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for reader in open_:
            reader.close()

    async def ask_head(http: HttpServer) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        writer.write(get("/events"))
        line = await reader.readline()
        writer.transport.abort()
        return line

    stage.run(use)


def test_events_are_only_for_get() -> None:
    async def use(http: HttpServer) -> None:
        for method, status in (("HEAD", 405), ("POST", 405)):
            assert (await ask(http.port, get("/events", method=method))).startswith(f"HTTP/1.1 {status} ".encode())

    bounded(use)


def test_a_state_that_cannot_be_made_ends_the_stream_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> Mapping[str, Any]:
        raise ZeroDivisionError

    async def use(http: HttpServer) -> None:
        for _ in range(3):
            one = await Reader.open(http)
            with pytest.raises(asyncio.IncompleteReadError):
                await one.event()
            one.close()
        assert (await ask(http.port)).startswith(b"HTTP/1.1 200")

    bounded(use, state=lambda: fails)
    assert [record.getMessage() for record in caplog.records] == ["/events cannot be answered"]
