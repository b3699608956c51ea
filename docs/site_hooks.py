"""Hooks of mkdocs: pages of the site that are files in the root of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "code-of-conduct.md": "CODE_OF_CONDUCT.md",
}
"""Page of the site -> file in the root."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links as the page in the site needs them."""
    if page.file.src_uri in PAGES:
        markdown = markdown.replace("](docs/", "](").replace("](README.md)", "](index.md)")
        for target, source in PAGES.items():
            markdown = markdown.replace(f"]({source}", f"]({target}")
        return markdown
    for target, source in PAGES.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    return markdown.replace("](../README.md)", "](index.md)")
