"""The images in docs/images match the current output of the commands and the status page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from lab.cluster import Lab

pytestmark = pytest.mark.lab

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "screenshots.py"
_spec = importlib.util.spec_from_file_location("screenshots", SCRIPT)
assert _spec is not None and _spec.loader is not None
screenshots = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(screenshots)

AGAIN = "run `python docs/screenshots.py` and look at the pictures"


def test_the_status_page_is_the_one_of_the_picture() -> None:
    assert (screenshots.IMAGES / "page.sha256").read_text().strip() == screenshots.digest(), AGAIN


def test_the_commands_print_what_the_pictures_show() -> None:
    with Lab(nodes=3, routers=["bird"]) as lab:
        said = screenshots.scene(lab)
    for name, command in (screenshots.BEFORE | screenshots.AFTER).items():
        shown = (screenshots.IMAGES / f"{name}.txt").read_text()
        assert screenshots.shape(said[command]) == screenshots.shape(shown), f"{AGAIN}: {command}\n{said[command]}"
        drawn = screenshots.picture(name, command, shown)
        assert (screenshots.IMAGES / f"{name}.svg").read_text() == drawn, AGAIN
