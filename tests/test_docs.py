"""The documents: links have a target, sentences are short, and words with a private meaning are absent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "CODE_OF_CONDUCT.md",
    ROOT / "changes" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
EVERY = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

LONGEST = 45
"""Words of a sentence."""

PRIVATE = {
    r"\bgoes on\b": "continues",
    r"\bgo on\b": "continue",
    r"\bmend(s|ed|ing)?\b": "correct, repair",
    r"\bnobody\b": "no replica, no host",
    r"\bwhoever\b": "name the subject",
    r"\bso many\b": "the number of",
    r"\bfor so long\b(?! that)": "for this time",
    r"\ball the same\b": "nevertheless",
    r"\bgive(s|n)? out\b": "assign",
    r"\bbrought in\b": "announced",
    r"\bnot there\b": "missing, unavailable",
    r"\bof ours\b": "of PorterLB",
    r"\bneighbour": "neighbor, as in the RFCs",
}
"""Words and phrases -> their replacement."""


def prose(text: str) -> Iterator[str]:
    """The paragraphs, list items and table cells, without code, links and headings."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "X", text)
    for block in re.split(r"\n\s*\n|\n(?=\s*[-*\d|])", text):
        for cell in block.split("|") if block.lstrip().startswith("|") else [block]:
            if cell.strip() and not cell.lstrip().startswith(("#", "    ")):
                yield " ".join(cell.split())


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as common forges create them."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "").lower()).replace(" ", "-") for head in heads}


@EVERY
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+://|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name}: {target}"


@EVERY
def test_sentences_are_short(page: Path) -> None:
    long = [
        sentence
        for part in prose(page.read_text())
        for sentence in re.split(r"(?<=[.:;?!]) ", part)
        if len(sentence.split()) > LONGEST
    ]
    assert long == []


@EVERY
def test_words_that_only_we_use_stay_out(page: Path) -> None:
    found = [
        f"{match[0]!r} (write: {instead}): {part[:100]}"
        for part in prose(page.read_text())
        for pattern, instead in PRIVATE.items()
        for match in [re.search(pattern, part, re.IGNORECASE)]
        if match
    ]
    assert found == []


def test_the_site_builds_without_a_warning_and_loads_nothing_from_other_hosts(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 20
    loads = r'<(?:script|img|iframe)\b[^>]*\bsrc="(https?:)?//|<link\b[^>]*rel="(?:stylesheet|icon)"[^>]*href="https?:'
    assert [page.name for page in pages if re.search(loads, page.read_text())] == []
