"""``make lab`` as a user starts it: the samples are accepted, and BGP is up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.hold import SAMPLES
from porterlb.edge.manifests.documents import load

ROOT = Path(__file__).parents[2]


def test_every_sample_is_accepted() -> None:
    for path in SAMPLES.glob("*.yaml"):
        found = load(path.read_text(), path.name)
        assert not found.troubles, found.troubles
        assert len(found.documents) == len([document for document in yaml.safe_load_all(path.read_text()) if document])


@pytest.mark.lab
def test_make_lab_starts_with_bgp_up() -> None:
    held = subprocess.Popen(
        [sys.executable, "-m", "lab.hold"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = held.communicate("sessions\n\n", timeout=90)
    finally:
        held.kill()
        held.wait()
    assert held.returncode == 0, said
    assert "6 of 6 BGP sessions are established." in said
    assert said.count(" Established") == 6, said
    assert "Everything is removed." in said
