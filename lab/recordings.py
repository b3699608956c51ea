"""The recordings of a lab's managers, saved after a failed test."""

from __future__ import annotations

from pathlib import Path

from lab.cluster import LIVE, MANAGER_HTTP
from lab.netns import LabError

WITHIN = 10.0
"""Timeout, in seconds, for a manager to return its recording."""


def save(folder: Path) -> list[Path]:
    """Requests the recording of every manager of every running lab, and writes it into the folder."""
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
