"""The files of the status page: HTML, script, style and icon. They are sent as they are; there is no build step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

PATHS: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""Path of the web server -> file here, and media type."""


@cache
def read(path: str) -> tuple[str, bytes]:
    """The media type and the content."""
    name, kind = PATHS[path]
    return kind, (files(__package__) / name).read_bytes()
