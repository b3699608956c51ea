"""The wheel is complete, and runs without a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

SHOW = """
import porterlb, porterlb.edge.bgp.process as process
print(porterlb.__file__)
print(sorted(path.name for path in process.folder().iterdir() if path.is_file()), process.folder())
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content, in a separate folder. It is built from the files that git tracks, like a release."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (CHECKOUT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((CHECKOUT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=unpacked.parent,
        env={"PYTHONPATH": str(unpacked), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_runs_from_the_wheel(unpacked: Path) -> None:
    assert run(unpacked, "-m", "porterlb", "crds").count("kind: CustomResourceDefinition") == 3


def test_exabgps_files_are_found_in_the_wheel(unpacked: Path) -> None:
    where, files = run(unpacked, "-c", SHOW).splitlines()
    assert where.startswith(str(unpacked))
    assert "launcher.py" in files and "api.py" in files and str(unpacked) in files


def test_every_package_of_the_checkout_is_in_the_wheel(unpacked: Path) -> None:
    have = {path.relative_to(unpacked) for path in (unpacked / "porterlb").rglob("*.py")}
    want = {path.relative_to(CHECKOUT) for path in (CHECKOUT / "porterlb").rglob("*.py")}
    assert want <= have, want - have


def test_the_files_of_the_status_page_are_in_the_wheel(unpacked: Path) -> None:
    code = "from porterlb.edge import page as p; print(p.__file__, sum(len(p.read(path)[1]) > 100 for path in p.PATHS))"
    where, count = run(unpacked, "-c", code).split()
    assert where.startswith(str(unpacked)) and int(count) == 4
