"""The status page in a real browser: visually, by keyboard and for a screen reader, with 10 and with 2,000 VIPs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from porterlb.core.history import Entry, What, Why
from porterlb.core.status.state import State
from porterlb.edge.http import HttpServer
from tests.core.stage import AUTO_VIP, LATER
from tests.core.test_page import many, state
from tests.edge.browser import Page, browser, page

pytestmark = pytest.mark.timeout(1200)  # including the installation of the browser

MOVED = Entry(LATER, What.VIP_MOVED, "", ("node-c",), ("node-a",), Why.NODE_DEAD, "node-c", "layer2", (AUTO_VIP,))
LOST = Entry(LATER, What.SESSION_DOWN, "tor", cause="node-a", detail="reset")
SHOWN_WITHIN = 3.0
"""Seconds between the replica's knowledge of a change and its display on the page. Measured on two cores at a load of
15: 0.06 s with 10 VIPs, 0.4 s to 0.9 s with 2,000."""

EVIL = "<img src=x onerror=alert(1)>"

CONTRAST = """(() => {
  const rgb = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => {
    const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = c.slice(0, 3).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const back = (e) => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push([e.tagName, e.className, e.textContent.slice(0, 30), ratio]);
  }
  return poor;
})()"""
"""Texts with a contrast below 4.5 (WCAG 2.2, 1.4.3)."""


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with browser(tmp_path_factory.mktemp("browser")) as address:
        yield address


class Shown:
    """A replica's web server with a state that the test changes, and a page of that server."""

    def __init__(self, known: Mapping[str, Any], page_: Page) -> None:
        self.known, self.page = known, page_
        self.port = 0

    def server(self) -> HttpServer:
        return HttpServer(
            "127.0.0.1", self.port, ready=lambda: "", state=lambda: lambda: self.known, registry=CollectorRegistry()
        )


def look(devtools: str, known: Mapping[str, Any], use: Callable[[Shown, HttpServer], Awaitable[None]]) -> None:
    async def main() -> None:
        async with page(devtools) as page_:
            shown = Shown(known, page_)
            http = shown.server()
            await http.start()
            shown.port = http.port
            try:
                await page_.open(f"http://127.0.0.1:{http.port}/")
                await page_.until(
                    "document.readyState === 'complete' && document.querySelector('#vips tbody tr') !== null"
                )
                await use(shown, http)
                assert page_.complaints == []
            finally:
                await http.stop()

    asyncio.run(main())


def dead(known: Mapping[str, Any], name: str) -> State:
    node = {**known["nodes"][name], "dead": True, "deadBy": ["node-a", "node-c"]}
    return {**known, "nodes": {**known["nodes"], name: node}}


@pytest.mark.parametrize("number", [10, 2000])
def test_a_nodes_death_is_shown_within_a_second(devtools: str, number: int) -> None:
    async def use(shown: Shown, http: HttpServer) -> None:
        text = shown.page.js
        assert await text("document.querySelector('#problems-none').textContent") == "No problems."
        shown_rows = min(number, 200)
        rows = "document.querySelectorAll('#vips tbody tr').length"
        assert await text(rows) == shown_rows
        assert await text("document.querySelector('#vips-shown').textContent") == (
            f"{shown_rows} of {number} matching addresses are shown."
        )
        assert await text("[...document.querySelectorAll('#counts dd')].map((e) => e.textContent)") == [
            "3", f"{number} of {number}", "3 of 3", "3 of 3", "3 of 3",
        ]  # fmt: skip
        cells = "[...document.querySelectorAll('#vips tbody tr')[0].children].map((e) => e.textContent)"
        assert (await text(cells))[:5] == ["10.0.0.0", "default/shop", "auto", "bgp", "serves announced answers hop 1 "]
        shown.known = dead(shown.known, "node-b")
        await asyncio.sleep(max(0.0, http._stream._not_before - time.monotonic()))
        began = time.monotonic()
        http.changed()
        await shown.page.until("document.querySelector('#problems li')?.textContent.includes('node-b')", 5)
        took = time.monotonic() - began
        print(f"{number} VIPs: shown {took:.2f} s after the replica knew it")
        assert took < SHOWN_WITHIN
        assert await text("document.querySelector('#problems li').textContent") == (
            "Error: node-b. The node does not answer probes, as node-a, node-c found."
        )
        assert await text("document.title") == "(1) PorterLB"
        assert "dead found by node-a, node-c" in await text("document.querySelector('#nodes tbody').textContent")
        assert "dead" in await text("document.querySelector('#vips thead').textContent")
        assert await text(rows) == shown_rows

    look(devtools, many(number), use)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_light_and_dark(devtools: str, scheme: str) -> None:
    known = dead(state((LOST, MOVED), broken={"a.yaml": "is no YAML."}), "node-b")
    known["vips"][str(AUTO_VIP)] |= {"served": "none", "problems": ["No usable node."]}
    known["peers"]["tor"]["sessions"]["node-c"] = {"established": False, "why": "reset"}
    known["replicas"]["node-b"] = {"fresh": False, "boot": 1}

    async def use(shown: Shown, http: HttpServer) -> None:
        await shown.page.scheme(scheme)
        back = await shown.page.js("getComputedStyle(document.body).backgroundColor")
        assert back == {"light": "rgb(255, 255, 255)", "dark": "rgb(18, 22, 28)"}[scheme]
        assert await shown.page.js(CONTRAST) == []
        await http.stop()
        await shown.page.until("document.querySelector('#connection.lost') !== null", 8)
        shown.page.complaints.clear()  # the browser reports the lost connection
        assert await shown.page.js(CONTRAST) == []

    look(devtools, known, use)


def test_the_keyboard_is_enough(devtools: str) -> None:
    known = many(2000)
    known["vips"]["10.0.6.17"] = {**known["vips"]["10.0.6.17"], "problems": ["No usable node."]}

    async def use(shown: Shown, http: HttpServer) -> None:
        page_ = shown.page
        focus = "(({id, className, tagName}) => id || className || tagName)(document.activeElement)"
        await page_.press("Tab")
        assert await page_.js(focus) == "skip"
        await page_.press("Enter")
        assert await page_.js(focus) == "problems-title"
        reached = []
        for _ in range(7):
            await page_.press("Tab")
            found = await page_.js(focus)
            reached.append(found)
            outline = await page_.js("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{reached}: no focus is shown"
            if found == "text":
                await page_.write("10.0.6.1 SHOP")
                await page_.until("document.querySelectorAll('#vips tbody tr').length === 111", 5)
            if found == "wrong":
                await page_.press(" ")
                await page_.until("document.querySelectorAll('#vips tbody tr').length === 1", 5)
                assert await page_.js("document.querySelector('#vips tbody th').textContent") == "10.0.6.17"
                await page_.press(" ")
                await page_.until("document.querySelectorAll('#vips tbody tr').length > 1", 5)
                await page_.js(
                    "const t = document.querySelector('#text'); t.value = ''; t.dispatchEvent(new Event('input'))"
                )
                await page_.until("document.querySelectorAll('#vips tbody tr').length === 200", 5)
            if found == "more":
                await page_.press("Enter")
                await page_.until("document.querySelectorAll('#vips tbody tr').length === 400", 5)
                assert await page_.js(focus) == "more", "the focus stays"
                http.changed()
        assert reached == ["text", "wrong", "scroll", "more", "scroll", "scroll", "moves"]

    look(devtools, known, use)


def test_a_screen_reader_has_names_for_everything(devtools: str) -> None:
    async def use(shown: Shown, http: HttpServer) -> None:
        tree = (await shown.page.call("Accessibility.getFullAXTree"))["nodes"]
        nodes = [node for node in tree if not node["ignored"]]

        def of(*roles: str) -> list[str]:
            return [str(n.get("name", {}).get("value", "")) for n in nodes if n["role"]["value"] in roles]

        assert of("searchbox") == ["Filter by address, Service, pool or node"]
        assert sorted(of("checkbox")) == ["Only moves of addresses", "Only with problems"]
        assert of("table") and all(of("table")), "captions"
        assert len(of("table")) == 3 and all(of("link", "region", "RootWebArea", "heading"))
        assert set(of("heading")) == {
            "PorterLB", "Problems", "Overview", "Addresses and nodes", "BGP sessions", "Nodes and replicas", "History",
        }  # fmt: skip
        assert {"Address", "Service", "Mode", "node-b dead", "Since"} <= set(of("columnheader"))
        assert {"10.77.0.201", "tor", "node-a"} <= set(of("rowheader"))
        live = {
            str(n["role"]["value"]): p["value"]["value"]
            for n in nodes
            for p in n.get("properties", ())
            if p["name"] == "live"
        }
        assert live == {"status": "polite", "list": "polite"}, "changes and problems are read"
        assert any("node-b" in name for name in of("StaticText"))

    look(devtools, dead(state((LOST, MOVED)), "node-b"), use)


def test_old_data_is_shown_as_old_until_the_replica_is_back(devtools: str) -> None:
    async def use(shown: Shown, http: HttpServer) -> None:
        page_ = shown.page
        assert await page_.js("document.querySelector('#connection').textContent") == "Live."
        await http.stop()
        await page_.until("document.querySelector('#connection').textContent === 'Connection lost.'", 8)
        await page_.until("/^Data is [1-9] s old.$/.test(document.querySelector('#age').textContent)", 5)
        assert await page_.js("document.body.className") == "stale"
        page_.complaints.clear()
        shown.known = {"waitingFor": "The API has not answered yet."}
        again = shown.server()
        await again.start()
        try:
            await page_.until("document.querySelector('#connection').textContent === 'Live.'", 8)
            await page_.until("!document.querySelector('#vips').checkVisibility()", 5)
            assert await page_.js("document.querySelector('#problems-none').textContent") == shown.known["waitingFor"]
            page_.complaints.clear()
        finally:
            await again.stop()

    look(devtools, state(), use)


def test_names_are_text_whatever_they_say(devtools: str) -> None:
    known = state((Entry(LATER, What.NODE_DEAD, EVIL), LOST, MOVED, MOVED), broken={EVIL: EVIL})
    known["vips"][str(AUTO_VIP)] |= {"services": [EVIL], "problems": [EVIL], "eip": EVIL}
    known["nodes"][EVIL] = {**known["nodes"]["node-a"], "why": EVIL, "dead": True, "deadBy": [EVIL]}
    known["peers"][EVIL] = {**known["peers"]["tor"], "sessions": {"node-a": {"established": False, "why": EVIL}}}
    known["leader"] = EVIL

    async def use(shown: Shown, http: HttpServer) -> None:
        text = await shown.page.js("document.body.textContent")
        assert text.count(EVIL) >= 12
        assert await shown.page.js("document.querySelectorAll('img, script:not([src])').length") == 0
        rows = "[...document.querySelectorAll('#history li')].filter((e) => e.checkVisibility()).length"
        assert await shown.page.js(rows) == 4, "entries that are alike are two"
        await shown.page.js("document.querySelector('#moves').click()")
        await shown.page.until(f"{rows} === 2", 5)

    look(devtools, known, use)
