"""Writes the pictures of docs/images: what commands print, as SVG, and the status page, as PNG.

``python docs/screenshots.py``, as root: a lab of three nodes and a router runs, and a node loses power. The network is
the same each time; ages, ports and the order of elections differ. tests/lab/test_screenshots.py makes the texts again
and compares them, and checks with ``page.sha256`` that the status page has not changed since.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from lab.backend import DirBackend
from lab.cluster import Lab
from lab.hold import SAMPLES
from lab.measure import wait_until
from tests.edge.browser import browser, page

CHECKOUT = Path(__file__).resolve().parents[1]
IMAGES = CHECKOUT / "docs" / "images"
PAGE = CHECKOUT / "porterlb" / "edge" / "page"
BEFORE = {"status": "status", "explain": "explain default/web", "peers": "peer list"}
"""Name of the picture -> command, while all is well."""
MOVE = "history --vip 10.77.0.100"
AFTER = {"history": MOVE}
"""The same after the loss of a node."""
WIDTH = 112

_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px; \
line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-family: sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""
"""rich's own frame loads a font from the Internet."""


def digest() -> str:
    """Of all files of the status page."""
    found = hashlib.sha256()
    for path in sorted(PAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            found.update(path.read_bytes())
    return found.hexdigest()


def shape(text: str) -> list[str]:
    """Lines of a text without what differs from run to run: numbers, letters of nodes, widths of columns."""
    found = re.sub(r"node-[abc](, node-[abc])*", "NODE", text)
    found = re.sub(r"\d+(\.\d+)?", "N", found)
    return [" ".join(line.split()) for line in found.splitlines() if line.strip()]


def picture(name: str, command: str, text: str) -> str:
    console = Console(record=True, width=WIDTH, file=io.StringIO(), legacy_windows=False)
    console.print(Text(f"$ porterlb {command}\n{text.rstrip()}"))
    return console.export_svg(title=f"porterlb {command}", code_format=_FRAME, unique_id=name)


def photograph(file: Path) -> None:
    """The status page of the manager in the network namespace of this thread."""

    async def shoot(devtools: str) -> bytes:
        async with page(devtools) as shown:
            await shown.open("http://127.0.0.1:7472/")
            await shown.until("document.body?.innerText.includes('10.77.0.100')")
            await asyncio.sleep(1)
            answer = await shown.call("Page.captureScreenshot", format="png")
            return base64.b64decode(answer["data"])

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, browser(Path(folder)) as devtools:
        file.write_bytes(asyncio.run(shoot(devtools)))


def texts(lab: Lab, commands: Iterable[str]) -> dict[str, str]:
    """What the commands print on the first node."""
    assert isinstance(lab.backend, DirBackend)
    node = lab.nodes[0]
    where = ["--cluster", f"dir:{lab.backend.folder}"]
    run = ["env", f"COLUMNS={WIDTH}", sys.executable, "-m", "porterlb", *where]
    return {command: node.run([*run, *command.split()], check=False).stdout for command in commands}


def steady(lab: Lab, commands: Collection[str], parts: Iterable[str]) -> dict[str, str]:
    """What the commands print, once all parts are in it and two readings in a row have the same shape."""
    found: dict[str, str] = {}

    def same() -> bool:
        nonlocal found
        before, found = found, texts(lab, commands)
        alike = shape("\n".join(before.values())) == shape("\n".join(found.values()))
        return alike and all(part in "".join(found.values()) for part in parts)

    wait_until(same, 60, f"what {', '.join(commands)} print to stay the same", 1)
    return found


def scene(lab: Lab, picture_of_page: Path | None = None) -> dict[str, str]:
    """What each command of BEFORE and AFTER prints. ``picture_of_page``: file for the picture of the status page."""
    assert isinstance(lab.backend, DirBackend)
    for sample in sorted(SAMPLES.glob("*.yaml")):
        shutil.copy(sample, lab.backend.folder)
    for node in lab.nodes:
        lab.start_manager(node, "--settle-after", "1", "--return-after", "1", remember=True)
    wait_until(lambda: lab.vips("web") and lab.vips("shop"), 30, "addresses")

    before = steady(lab, BEFORE.values(), ["2 of 2 served: 2 by bgp", "6 of 6 established"])
    lab.nodes[-1].power_off()
    after = steady(lab, AFTER.values(), ["does not answer probes", "is not asked"])
    if picture_of_page is not None:
        lab.nodes[0].ns.call(lambda: photograph(picture_of_page))
    return before | after


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with Lab(nodes=3, routers=["bird"]) as lab:
        said = scene(lab, IMAGES / "page.png")
    for name, command in (BEFORE | AFTER).items():
        (IMAGES / f"{name}.svg").write_text(picture(name, command, said[command]))
        (IMAGES / f"{name}.txt").write_text(said[command])
    (IMAGES / "page.sha256").write_text(digest() + "\n")


if __name__ == "__main__":
    main()
