"""The recordings of a lab's managers, which a failed test leaves behind."""

from __future__ import annotations

from pathlib import Path

from lab.cluster import LIVE, MANAGER_HTTP
from lab.netns import LabError

WITHIN = 10.0
"""Seconds in which a manager must return its recording."""


def save(folder: Path) -> list[Path]:
    """Asks every manager of every running lab for its recording, and writes it into the folder."""
    saved: list[Path] = []
    for number, lab in enumerate(LIVE):
        for node in lab.nodes:
            if not node.on:
                continue
            try:
                status, text = node.http("127.0.0.1", MANAGER_HTTP, "/record", WITHIN)
            except (LabError, OSError):
                continue  # no manager runs there, or it hangs
            if status == 200:
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f"{number}-{node.name}.jsonl"
                path.write_text(text)
                saved.append(path)
    return saved
