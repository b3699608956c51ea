"""Decisions of the watch, with a server that misbehaves on purpose. tests/cluster tests the normal operation."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from porterlb.cluster import Changed, Deleted, Denied, Event, Kind, Outage, Replaced, Restored, Unavailable
from porterlb.core.depth import TOO_DEEP
from porterlb.edge.kube import KubeCluster, api, watch
from porterlb.edge.kube.access import Kubeconfig
from porterlb.errors import PorterError
from tests.edge.kube_served import kube_cluster

Watching = Callable[[int, web.Request, web.StreamResponse], Awaitable[None]]
Answer = Callable[[int, web.Request], Awaitable[web.StreamResponse]]


def obj(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


def line(type_: str, name: str, version: int) -> bytes:
    return json.dumps({"type": type_, "object": obj(name, version)}).encode() + b"\n"


def gone() -> bytes:
    return (
        json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}).encode() + b"\n"
    )


async def stay(*_: object) -> None:
    await asyncio.sleep(60)


async def two_nodes(number: int, request: web.Request) -> web.StreamResponse:
    return web.json_response({"metadata": {"resourceVersion": "10"}, "items": [obj("a", 1), obj("b", 2)]})


def refusal(code: int, message: str = "no", **headers: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code, headers=headers)


class Server:
    """An API server with only lists and watches; the handlers get the number of the request among those of its type."""

    def __init__(self, lists: Answer = two_nodes, watching: Watching = stay, refuses: Answer | None = None) -> None:
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.numbers = {"list": 0, "watch": 0}
        self._lists, self._watching, self._refuses = lists, watching, refuses

    async def handle(self, request: web.Request) -> web.StreamResponse:
        verb = "watch" if "watch" in request.query else "list"
        self.asked.append((verb, request.path.rsplit("/", 1)[1], dict(request.query)))
        self.numbers[verb] += 1
        number = self.numbers[verb]
        if verb == "list":
            return await self._lists(number, request)
        if self._refuses and (answer := await self._refuses(number, request)).status != 200:
            return answer
        response = web.StreamResponse()
        await response.prepare(request)
        with suppress(ConnectionError):
            await self._watching(number, request, response)
        return response

    def of(self, verb: str, plural: str = "nodes") -> list[dict[str, str]]:
        return [query for asked, what, query in self.asked if (asked, what) == (verb, plural)]


@asynccontextmanager
async def served(server: Server, folder: Path) -> AsyncIterator[KubeCluster]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with kube_cluster(app, folder) as cluster:
        yield cluster


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(bounded())


async def first(cluster: KubeCluster, count: int, *kinds: Kind, seconds: float = 10.0) -> list[Event]:
    """The first ``count`` events, or those that arrive within the given seconds."""
    seen: list[Event] = []
    stream = cluster.watch(kinds or [Kind.NODE])
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            async for event in stream:
                seen.append(event)
                if len(seen) == count:
                    break
    await stream.aclose()  # type: ignore[attr-defined]
    return seen


def names(event: Event) -> tuple[str, ...]:
    match event:
        case Replaced(_, objects):
            return tuple(each["metadata"]["name"] for each in objects)
        case Changed(_, one):
            return (one["metadata"]["name"],)
        case Deleted(_, _, name):
            return ("-" + name,)
        case _:
            return (type(event).__name__,)


def test_a_stream_that_is_cut_is_followed_from_where_it_broke(tmp_path: Path) -> None:
    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        if number == 1:
            await response.write(line("ADDED", "c", 11) + line("BOOKMARK", "", 15) + line("MODIFIED", "a", 16)[:20])
            request.transport.abort()  # type: ignore[union-attr]
        else:
            await response.write(line("DELETED", "b", 17))
            await stay()

    async def scenario() -> None:
        server = Server(watching=watching)
        async with served(server, tmp_path) as cluster:
            seen = [names(event) for event in await first(cluster, 3)]
        assert seen == [("a", "b"), ("c",), ("-b",)]
        assert [query["resourceVersion"] for query in server.of("watch")] == ["10", "15"]
        assert all(query["allowWatchBookmarks"] == "true" for query in server.of("watch"))
        assert len(server.of("list")) == 1

    run(scenario())


def test_lines_may_come_in_any_pieces(tmp_path: Path) -> None:
    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        for byte in line("ADDED", "c", 11) + b"\n" + line("ADDED", "d", 12):
            await response.write(bytes([byte]))
            await asyncio.sleep(0)
        big = obj("big", 13)
        big["data"] = "x" * 5_000_000
        await response.write(json.dumps({"type": "ADDED", "object": big}).encode() + b"\n")
        await stay()

    async def scenario() -> None:
        async with served(Server(watching=watching), tmp_path) as cluster:
            assert [names(event) for event in await first(cluster, 4)] == [("a", "b"), ("c",), ("d",), ("big",)]

    run(scenario())


@pytest.mark.parametrize("way", ["in the stream", "as the answer"])
def test_410_is_listed_again_and_no_outage(tmp_path: Path, way: str) -> None:
    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        items = [obj("a", 1), obj("b", 2)] if number == 1 else [obj("b", 21)]
        return web.json_response({"metadata": {"resourceVersion": str(10 * number)}, "items": items})

    async def refuses(number: int, request: web.Request) -> web.StreamResponse:
        return refusal(410, "too old") if number == 1 and way == "as the answer" else web.Response()

    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        if number == 1:
            await response.write(gone())
        await stay()

    async def scenario() -> None:
        server = Server(lists, watching, refuses)
        async with served(server, tmp_path) as cluster:
            assert [names(event) for event in await first(cluster, 2)] == [("a", "b"), ("b",)]
            assert [event for event in server.asked if event[0] == "list"] == server.asked[::2][:2]

    run(scenario())


def test_a_history_that_is_always_gone_is_not_asked_for_without_a_pause(tmp_path: Path) -> None:
    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        await response.write(gone())

    async def scenario() -> None:
        server = Server(watching=watching)
        async with served(server, tmp_path) as cluster:
            await first(cluster, 1000, seconds=2)
        # 0, 0.1-0.2, 0.2-0.4, 0.4-0.8, 0.8-1.6 s apart
        assert 3 <= len(server.of("list")) <= 7

    run(scenario())


def test_a_server_that_accepts_and_closes_is_not_asked_without_a_pause(tmp_path: Path) -> None:
    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        return

    async def scenario() -> None:
        server = Server(watching=watching)
        async with served(server, tmp_path) as cluster:
            seen = await first(cluster, 1000, seconds=2)
        assert 3 <= len(server.of("watch")) <= 8
        assert [names(event) for event in seen] == [("a", "b")]

    run(scenario())


def test_what_cannot_be_read_is_listed_again(tmp_path: Path) -> None:
    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        if number == 1:
            await response.write(b"<html>a proxy's greeting</html>\n")
        await stay()

    async def scenario() -> None:
        async with served(Server(watching=watching), tmp_path) as cluster:
            assert [names(event) for event in await first(cluster, 2)] == [("a", "b"), ("a", "b")]

    run(scenario())


def test_a_silent_stream_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open: nothing shows that the connection is dead. A byte in time keeps it."""
    monkeypatch.setattr(watch, "QUIET", 0.5)

    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        if number == 1:
            for version in range(11, 16):
                await asyncio.sleep(0.3)
                await response.write(line("BOOKMARK", "", version))
        else:
            await response.write(line("ADDED", "c", 20))
        await stay()

    async def scenario() -> None:
        server = Server(watching=watching)
        async with served(server, tmp_path) as cluster:
            begun = time.monotonic()
            assert [names(event) for event in await first(cluster, 2)] == [("a", "b"), ("c",)]
            assert time.monotonic() - begun >= 5 * 0.3 + 0.5
        assert [query["resourceVersion"] for query in server.of("watch")[:2]] == ["10", "15"]

    run(scenario())


def test_an_outage_begins_once_and_ends_when_every_kind_is_there_again(tmp_path: Path) -> None:
    """The kind whose stream survived is listed again, too: the changes that it missed are unknown."""
    broken = asyncio.Event()

    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("namespaces") and broken.is_set() and number < 6:
            return refusal(500, "etcd is away")
        return await two_nodes(number, request)

    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        if request.path.endswith("namespaces") and not broken.is_set():
            await asyncio.sleep(0.2)
            broken.set()
            return
        await stay()

    async def refuses(number: int, request: web.Request) -> web.StreamResponse:
        down = request.path.endswith("namespaces") and broken.is_set() and number == 3
        return refusal(503, "shutting down") if down else web.Response()

    async def scenario() -> None:
        server = Server(lists, watching, refuses)
        async with served(server, tmp_path) as cluster:
            seen = await first(cluster, 6, Kind.NODE, Kind.NAMESPACE)
        assert {event.kind for event in seen[:2] if isinstance(event, Replaced)} == {Kind.NODE, Kind.NAMESPACE}
        assert seen[2] == Outage("The Kubernetes API failed (503): shutting down")
        assert {event.kind for event in seen[3:5] if isinstance(event, Replaced)} == {Kind.NODE, Kind.NAMESPACE}
        assert seen[5] == Restored()

    run(scenario())


def nested(depth: int) -> str:
    return '{"a":' * depth + "{}" + "}" * depth


def test_an_object_nested_without_a_bottom_is_cut_and_the_others_are_followed(tmp_path: Path) -> None:
    """In a list and in a watch: 1,500 levels are more than Python's decoder accepts, 400 more than a copy accepts."""

    def deep(name: str, version: int, depth: int) -> str:
        head = f'"metadata":{{"name":"{name}","resourceVersion":"{version}"}}'
        return f'{{{head},"spec":{{"namespaceSelector":{nested(depth)}}}}}'

    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        items = ",".join([deep("a", 1, 1500), json.dumps(obj("b", 2)), deep("c", 3, 400)])
        text = f'{{"metadata":{{"resourceVersion":"10"}},"items":[{items}]}}'
        return web.Response(text=text, content_type="application/json")

    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        await response.write(f'{{"type":"ADDED","object":{deep("d", 11, 100_000)}}}\n'.encode())
        await response.write(line("ADDED", "e", 12))
        await stay()

    async def scenario() -> None:
        async with served(Server(lists, watching), tmp_path) as cluster:
            seen = await first(cluster, 3, Kind.EIP)
        assert [names(event) for event in seen] == [("a", "b", "c"), ("d",), ("e",)]
        replaced, changed = seen[0], seen[1]
        assert isinstance(replaced, Replaced) and isinstance(changed, Changed)
        for eip in (replaced.objects[0], replaced.objects[2], changed.object):
            assert TOO_DEEP in json.dumps(copy.deepcopy(eip))

    run(scenario())


def test_a_fault_of_ours_in_one_kind_lets_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = api.shaped

    def shaped(kind: Kind, obj: Any) -> Any:
        if kind is Kind.EIP:
            raise ZeroDivisionError
        return real(kind, obj)

    monkeypatch.setattr(watch, "shaped", shaped)

    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        await response.write(line("ADDED", "c", 11))
        await stay()

    async def scenario() -> None:
        async with served(Server(watching=watching), tmp_path) as cluster:
            seen = await first(cluster, 3, Kind.NODE, Kind.EIP, seconds=3.0)
        assert ("a", "b") in [names(event) for event in seen if isinstance(event, Replaced)]
        (outage,) = (event for event in seen if isinstance(event, Outage))
        assert outage.reason == "The answer of the API about eips cannot be used (ZeroDivisionError)."

    run(scenario())


def test_a_busy_api_is_asked_when_it_says_and_that_is_no_outage(tmp_path: Path) -> None:
    moments: list[float] = []

    async def refuses(number: int, request: web.Request) -> web.StreamResponse:
        moments.append(time.monotonic())
        return refusal(429, "too many", **{"Retry-After": "1"}) if number == 1 else web.Response()

    async def watching(number: int, request: web.Request, response: web.StreamResponse) -> None:
        await response.write(line("ADDED", "c", 11))
        await stay()

    async def scenario() -> None:
        async with served(Server(watching=watching, refuses=refuses), tmp_path) as cluster:
            assert [names(event) for event in await first(cluster, 2)] == [("a", "b"), ("c",)]

    run(scenario())
    assert moments[1] - moments[0] >= 1


def test_a_kind_that_may_be_listed_but_not_watched_does_not_make_the_others_list_for_ever(tmp_path: Path) -> None:
    async def refuses(number: int, request: web.Request) -> web.StreamResponse:
        return refusal(403, "may not watch") if request.path.endswith("namespaces") else web.Response()

    async def scenario() -> None:
        server = Server(refuses=refuses)
        async with served(server, tmp_path) as cluster:
            seen = await first(cluster, 1000, Kind.NODE, Kind.NAMESPACE, seconds=2.5)
        assert len(server.of("list", "nodes")) <= 2
        assert [event for event in seen if isinstance(event, Outage | Restored)] == [
            Outage("may not watch", refused=True)
        ]

    run(scenario())


def test_pages_are_put_together_and_begun_again_when_their_history_is_gone(tmp_path: Path) -> None:
    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        assert request.query["limit"] == "500"
        if number == 2:
            return refusal(410, "the token has expired")
        more = {"continue": "next"} if "continue" not in request.query else {}
        name = f"{number}"
        return web.json_response({"metadata": {"resourceVersion": "10", **more}, "items": [obj(name, 1)]})

    async def scenario() -> None:
        async with served(Server(lists), tmp_path) as cluster:
            assert [each["metadata"]["name"] for each in await cluster.objects(Kind.NODE)] == ["3", "4"]

    run(scenario())


def test_a_slow_answer_ends_at_the_deadline(tmp_path: Path) -> None:
    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(10)
        raise AssertionError

    async def scenario() -> None:
        async with served(Server(lists), tmp_path) as cluster:
            begun = time.monotonic()
            with pytest.raises(Unavailable, match=r"has not answered within 0\.3 s"):
                await cluster.apply_status(Kind.NODE, "a", "", {}, owner="porterlb", deadline=0.3)
            assert time.monotonic() - begun < 2

    run(scenario())


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        (403, Denied, "^you may not$"),
        (422, Denied, "^you may not$"),
        (500, Unavailable, r"failed \(500\): you may not"),
        (504, Unavailable, "504"),
        (429, Unavailable, "has not answered within"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)
def test_what_answers_mean(tmp_path: Path, code: int, error: type[Exception], sentence: str) -> None:
    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        return refusal(code, "you may not", **{"Retry-After": "30"})

    async def scenario() -> None:
        async with served(Server(lists), tmp_path) as cluster:
            with pytest.raises(error, match=sentence):
                await cluster.apply_status(Kind.NODE, "a", "", {}, owner="porterlb", deadline=5)

    run(scenario())


def test_a_busy_api_is_asked_again_within_the_deadline(tmp_path: Path) -> None:
    async def lists(number: int, request: web.Request) -> web.StreamResponse:
        if number == 1:
            return refusal(429, "too many", **{"Retry-After": "0.2"})
        return web.json_response(obj("a", 3))

    async def scenario() -> None:
        async with served(Server(lists), tmp_path) as cluster:
            done = await cluster.apply_status(Kind.NODE, "a", "", {}, owner="porterlb", deadline=5)
            assert done["metadata"]["resourceVersion"] == "3"

    run(scenario())


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("root:x:0:0:root\n", "that is not a kubeconfig"),
        ("[: no YAML", "while parsing"),
        (None, "there is no such file"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_says_so_in_one_line(tmp_path: Path, text: str | None, why: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)

    async def scenario() -> None:
        with pytest.raises(PorterError, match=why) as raised:
            await KubeCluster("ns", Kubeconfig(str(path))).objects(Kind.NODE)
        assert "\n" not in str(raised.value) and "--kubeconfig" in raised.value.remedy

    run(scenario())


def test_nobody_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(Server(), tmp_path) as cluster:
            await cluster.objects(Kind.NODE)
        gone = KubeCluster("ns", Kubeconfig(str(tmp_path / "kubeconfig")))
        with pytest.raises(Unavailable, match="cannot be reached: Connection refused"):
            await gone.objects(Kind.NODE)
        await gone.close()

    run(scenario())
