"""The web server of the manager, over a real socket on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from porterlb.core.layer2.inquiry import Answer, Outcome
from porterlb.core.model import Address, Mode, ServiceKey
from porterlb.core.node_failure import NotMarked
from porterlb.core.observed import AddressConflict, BgpReport, SessionState
from porterlb.core.status.notices import Notice
from porterlb.edge import http
from porterlb.edge.http import CONNECTIONS, HEAD_AT_MOST, HttpServer
from porterlb.edge.metrics import Metrics
from porterlb.errors import PorterError
from tests.core.stage import AUTO_VIP, EXPIRED, situation, snapshot


def server(port: int = 0, host: str = "127.0.0.1", **more: Any) -> HttpServer:
    given: dict[str, Any] = {
        "ready": lambda: "",
        "state": lambda: dict,
        "registry": Metrics(lambda: None, lambda: 0.0).registry,
    }
    return HttpServer(host, port, **(given | more))


def with_server(http: HttpServer, use: Callable[[aiohttp.ClientSession, str], Awaitable[None]]) -> None:
    async def main() -> None:
        await http.start()
        try:
            async with aiohttp.ClientSession() as client:
                await use(client, f"http://127.0.0.1:{http.port}")
        finally:
            await http.stop()

    asyncio.run(main())


def test_alive_and_ready_are_two_questions() -> None:
    waiting_for = "The objects have not been read yet."

    async def use(client: aiohttp.ClientSession, url: str) -> None:
        nonlocal waiting_for
        async with client.get(f"{url}/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        async with client.get(f"{url}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "The objects have not been read yet.\n")
        waiting_for = ""
        async with client.get(f"{url}/readyz") as answer:
            assert answer.status == 200
        async with client.get(f"{url}/nowhere") as answer:
            assert answer.status == 404

    with_server(server(ready=lambda: waiting_for), use)


def test_state_is_json() -> None:
    async def use(client: aiohttp.ClientSession, url: str) -> None:
        async with client.get(f"{url}/state") as answer:
            assert answer.content_type == "application/json"
            assert await answer.json() == {"version": 1, "vips": {}}

    with_server(server(state=lambda: lambda: {"version": 1, "vips": {}}), use)


def test_metrics_of_a_living_manager() -> None:
    wire = {
        "conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes(6), 0.0)},
        "counters": {"answers": 7},
        "in_kernel": {"eth0": "", "eth1": "old_kernel"},
    }
    made = situation(snapshot(), wire=wire)
    now = 10.0
    metrics = Metrics(lambda: replace(made, leading=True), lambda: now)
    metrics.planned(0.003)
    metrics.saw(made)
    lost = situation(snapshot(up=()), made.plan, at=now)
    now = 10.2
    metrics.saw(lost)
    metrics.heard(BgpReport({"tor": SessionState("tor", "idle", 0.0, EXPIRED, losses=2)}))
    metrics.heard(BgpReport({"tor": SessionState("tor", "idle", 0.0, EXPIRED, losses=2)}))
    metrics.told("Service", Notice(True, "EipExhausted", "x"))
    metrics.node_failures({"pods_marked": 3}, [])
    metrics.node_failures({"pods_marked": 5, "nodes_marked": 1}, [NotMarked.OFF, NotMarked.OFF, NotMarked.TOO_MANY])
    for up in (True, False, False, False):
        metrics.api(up=up)

    async def use(client: aiohttp.ClientSession, url: str) -> None:
        async with client.get(f"{url}/metrics") as answer:
            assert answer.content_type == "text/plain"
            lines = (await answer.text()).splitlines()
        for line in (
            'porterlb_vips{mode="bgp"} 2.0',
            'porterlb_vips{mode="layer2"} 1.0',
            'porterlb_eip_addresses{eip="auto"} 16.0',
            'porterlb_bgp_session_up{peer="tor"} 1.0',
            "porterlb_leader 1.0",
            'porterlb_layer2_vips{node="node-a"} 1.0',
            "porterlb_layer2_imbalance 1.5",
            "porterlb_layer2_excess 0.3333333333333333",
            "porterlb_layer2_rebalances 1.0",
            "porterlb_address_conflicts 1.0",
            'porterlb_layer2_in_kernel{interface="eth0"} 1.0',
            'porterlb_layer2_in_kernel{interface="eth1"} 0.0',
            'porterlb_wire_total{what="answers"} 7.0',
            "porterlb_plan_seconds_count 1.0",
            'porterlb_node_failures_total{what="pods_marked"} 5.0',
            'porterlb_node_failures_total{what="nodes_marked"} 1.0',
            'porterlb_dead_nodes_not_marked{reason="off"} 2.0',
            'porterlb_dead_nodes_not_marked{reason="recent"} 0.0',
            'porterlb_mode_changes_total{after="layer2",before="bgp"} 1.0',
            'porterlb_mode_change_seconds_count{after="layer2"} 1.0',
            'porterlb_bgp_session_losses_total{peer="tor",reason="hold_timer"} 2.0',
            'porterlb_allocation_refusals_total{reason="EipExhausted"} 1.0',
            "porterlb_api_outages_total 1.0",
            "porterlb_api_up 0.0",
        ):
            assert line in lines, f"{line} is not there"
        ours = [line for line in lines if line and not line.startswith("#")]
        assert all(line.startswith("porterlb_") for line in ours)

    with_server(server(registry=metrics.registry), use)
    assert lost.on_wire[AUTO_VIP].mode is Mode.LAYER2


def test_counts_and_reasons_of_node_failures_follow_each_change_alone() -> None:
    metrics = Metrics(lambda: None, lambda: 0.0)

    def seen() -> tuple[float | None, float | None]:
        value = metrics.registry.get_sample_value
        return (
            value("porterlb_node_failures_total", {"what": "pods_marked"}),
            value("porterlb_dead_nodes_not_marked", {"reason": "off"}),
        )

    metrics.node_failures({}, [])
    assert seen() == (None, 0.0)
    metrics.node_failures({"pods_marked": 2}, [])
    assert seen() == (2.0, 0.0)
    metrics.node_failures({"pods_marked": 2}, [NotMarked.OFF])
    assert seen() == (2.0, 1.0)
    metrics.node_failures({"pods_marked": 3}, [NotMarked.OFF])
    assert seen() == (3.0, 1.0)
    metrics.node_failures({"pods_marked": 3}, [])
    assert seen() == (3.0, 0.0)


def test_a_follower_does_not_count_what_the_leader_alone_judges() -> None:
    of = snapshot("node-a", leader="node-a")
    key = next(iter(of.services))
    stuck = replace(of.services[key], key=ServiceKey("default", "stuck"), held=(), wanted_eip="nowhere")
    made = situation(replace(of, services={**of.services, stuck.key: stuck}))
    leading = False
    metrics = Metrics(lambda: replace(made, leading=leading), lambda: 0.0)
    labels = {"reason": "EipUnknown"}
    assert metrics.registry.get_sample_value("porterlb_services_refused", labels) is None
    leading = True
    assert metrics.registry.get_sample_value("porterlb_services_refused", labels) == 1.0


def test_a_mode_change_is_timed_until_it_is_on_the_wire() -> None:
    made = situation(snapshot())
    now = 5.0
    metrics = Metrics(lambda: None, lambda: now)
    metrics.saw(made)
    lost = situation(snapshot(up=()), made.plan, at=5.0, answerer="")
    metrics.saw(lost)
    name = "porterlb_mode_change_seconds_count"
    assert metrics.registry.get_sample_value(name, {"after": "layer2"}) is None
    done = situation(snapshot(up=()), made.plan, at=5.0)
    now = 5.25
    metrics.saw(replace(lost, on_wire=done.on_wire))
    metrics.saw(replace(lost, on_wire=done.on_wire))
    assert metrics.registry.get_sample_value(name, {"after": "layer2"}) == 1.0
    assert metrics.registry.get_sample_value("porterlb_mode_change_seconds_sum", {"after": "layer2"}) == 0.25


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PorterError) as failed:
            asyncio.run(server(port).start())
    assert str(failed.value) == (
        f"Cannot serve HTTP on 127.0.0.1:{port}: another program listens there. "
        "Choose another address with --http HOST:PORT (or PORTERLB_HTTP)."
    )


@pytest.mark.parametrize(("host", "port"), [("192.0.2.7", 0), ("127.0.0.1", 70000)])
def test_an_impossible_place_is_one_clear_line(host: str, port: int) -> None:
    with pytest.raises(PorterError, match="Cannot serve HTTP on") as failed:
        asyncio.run(server(port, host).start())
    assert "\n" not in str(failed.value)


def test_it_runs_as_a_task() -> None:
    async def main() -> None:
        http = server()
        task = asyncio.create_task(http.run())
        while not http.port:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        port = http.port
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(main())


async def ask(port: int, request: bytes = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", within: float = 5.0) -> bytes:
    """The whole answer to these bytes; empty if the connection is closed without an answer."""
    async with asyncio.timeout(within):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(request)
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()


def bounded(use: Callable[[HttpServer], Awaitable[None]], **more: Any) -> None:
    async def main() -> None:
        http = server(**more)
        await http.start()
        try:
            async with asyncio.timeout(60):
                await use(http)
        finally:
            await http.stop()
        assert not http._open and not http._waiting

    asyncio.run(main())


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"\x00\xff", b"GET /healthz HTTP/1.1\r\nHost: "])
def test_alive_is_answered_while_a_thousand_connections_wait(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def use(http: HttpServer) -> None:
        idle = []
        for number in range(1000):
            reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
            writer.write(sent)
            idle.append((reader, writer))
            if number % 100 == 99:
                assert (await ask(http.port)).startswith(b"HTTP/1.1 200 OK\r\n")
        assert len(http._open) <= CONNECTIONS
        for _, writer in idle:
            writer.transport.abort()

    bounded(use)
    assert not caplog.records


def test_a_request_must_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.http.HEAD_WITHIN", 0.2)

    async def use(http: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
        with contextlib.suppress(ConnectionError):
            for byte in b"GET /healthz HTTP/1.1\r\n":
                writer.write(bytes([byte]))
                await asyncio.sleep(0.05)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.transport.abort()

    bounded(use)


def test_an_answer_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("porterlb.edge.http.ANSWER_WITHIN", 0.2)

    async def use(http: HttpServer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", http.port, limit=1024)
        writer.write(b"GET /state HTTP/1.1\r\n\r\n")
        await asyncio.sleep(1.0)
        assert not http._open
        assert (await ask(http.port)).startswith(b"HTTP/1.1 200")
        writer.transport.abort()
        del reader

    bounded(use, state=lambda: lambda: {"much": "x" * 50_000_000})


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
        (b"GET /healthz?x=1 HTTP/1.1\r\n\r\n", 200),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 200),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /../etc HTTP/1.1\r\n\r\n", 404),
        (b"GET healthz HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000, 400),
        (b"x" * 100_000, 400),
    ],
)
def test_every_request_has_an_answer(request_: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    async def use(http: HttpServer) -> None:
        answer = await ask(http.port, request_)
        # A long request is refused while it is being sent: the answer may then be lost in transit.
        assert answer.startswith(f"HTTP/1.1 {status} ".encode()) or (len(request_) > HEAD_AT_MOST and not answer)
        if request_.startswith(b"HEAD"):
            assert answer.endswith(b"\r\n\r\n") and b"Content-Length: 3\r\n" in answer
        assert (await ask(http.port)).endswith(b"ok\n")

    bounded(use)
    assert not caplog.records


def test_what_cannot_be_answered_is_logged_once_and_the_rest_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> str:
        raise ZeroDivisionError

    async def use(http: HttpServer) -> None:
        for _ in range(20):
            for path in (b"/readyz", b"/state"):
                answer = await ask(http.port, b"GET " + path + b" HTTP/1.1\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 500 ") and answer.endswith(b"answered: ZeroDivisionError.\n")
        for path in (b"/healthz", b"/metrics"):
            assert (await ask(http.port, b"GET " + path + b" HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    bounded(use, ready=fails, state=fails)
    assert [record.getMessage() for record in caplog.records] == [
        "/readyz cannot be answered",
        "/state cannot be answered",
    ]


def test_a_recording_is_for_clients_of_this_machine() -> None:
    async def text() -> str:
        return '{"porterlb":"recording"}\n'

    async def use(client: aiohttp.ClientSession, url: str) -> None:
        async with client.get(f"{url}/record") as answer:
            assert (answer.status, await answer.text()) == (200, await text())

    with_server(server(record=text), use)

    async def missing(client: aiohttp.ClientSession, url: str) -> None:
        async with client.get(f"{url}/record") as answer:
            assert answer.status == 404

    with_server(server(), missing)


def test_the_segment_is_asked_for_a_bounded_number_of_addresses() -> None:
    inquiries: list[list[str]] = []

    async def ask(vips: Sequence[Address]) -> list[Outcome]:
        inquiries.append([str(vip) for vip in vips])
        if len(vips) == 3:
            raise TimeoutError("the wire process does not run")
        return [Outcome(str(vip), "eth0", None, (Answer(b"\2" * 6, "n1", 0.0012),)) for vip in vips]

    async def use(client: aiohttp.ClientSession, url: str) -> None:
        async with client.get(f"{url}/ask?10.0.0.1,fd00::1,10.0.0.1") as answer:
            assert answer.status == 200
            one, two = (await answer.json())["outcomes"]
        assert (one["address"], two["address"]) == ("10.0.0.1", "fd00::1")
        assert one["answers"] == [{"mac": "02:02:02:02:02:02", "node": "n1", "after": 1.2}]
        async with client.get(f"{url}/ask?10.0.0.1,10.0.0.2,10.0.0.3") as answer:
            assert (answer.status, await answer.text()) == (
                503,
                "The segment cannot be asked: the wire process does not run.\n",
            )
        many = ",".join(f"10.0.1.{number}" for number in range(65))
        for query, part in (("", "1 to 64"), (many, "not 65"), ("10.0.0.300", "'10.0.0.300' does not appear")):
            async with client.get(f"{url}/ask?{query}") as answer:
                assert answer.status == 400 and part in await answer.text()
        async with client.get(f"{url}/ask?10.0.0.1", headers={"Host": "site.example"}) as answer:
            assert answer.status == 421

    with_server(server(ask=ask), use)
    assert inquiries == [["10.0.0.1", "fd00::1"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]]
    refused = asyncio.run(server(ask=ask)._answer(http._read(b"GET /ask?10.0.0.1 HTTP/1.1\r\n\r\n"), False))
    assert refused.startswith(b"HTTP/1.1 403") and len(inquiries) == 2
    missing = asyncio.run(server()._answer(http._read(b"GET /ask?10.0.0.1 HTTP/1.1\r\n\r\n"), True))
    assert missing.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 5), True),
        (("::1", 5, 0, 0), True),
        (("::ffff:127.0.0.1", 5, 0, 0), True),
        (("10.77.0.11", 5), False),
        (("::ffff:10.77.0.11", 5, 0, 0), False),
        (("fe80::1%eth0", 5, 0, 2), False),
        (None, False),
        ("", False),
    ],
)
def test_others_are_refused(peer: object, local: bool) -> None:
    class Writer:
        def get_extra_info(self, name: str) -> object:
            assert name == "peername"
            return peer

    assert http.is_local(Writer()) is local  # type: ignore[arg-type]

    async def ask() -> bytes:
        async def text() -> str:
            return "secret-free"

        return await server(record=text)._answer(http._read(b"GET /record HTTP/1.1\r\n\r\n"), local)

    answer = asyncio.run(ask())
    assert answer.startswith(b"HTTP/1.1 200" if local else b"HTTP/1.1 403")
