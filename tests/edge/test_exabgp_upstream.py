"""docs/exabgp.md: each defect of ExaBGP is reproducible, and is repaired by the launcher and by the upstream patch;
also the launcher's messages about other versions."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
LAUNCHER = CHECKOUT / "exabgp" / "launcher.py"
INSTALLED = importlib.metadata.distribution("exabgp")
DEFECTS = [str(number) for number in range(1, 18)]

RUN = """
import importlib.util, json, logging, sys
from exabgp.logger import log, option
option.logger, log.logger = logging.getLogger("exabgp"), lambda *said: None
blocks, launcher = json.load(sys.stdin), sys.argv[1]
if launcher:
    spec = importlib.util.spec_from_file_location("launcher", launcher)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.repair()
found = {}
for name, block in blocks.items():
    space = {}
    exec(block, space)
    found[name] = bool(space["defect"]())
print(json.dumps(found))
"""


def blocks(language: str) -> dict[str, str]:
    """The code blocks of the page, by section number."""
    sections = re.split(r"(?m)^## ", (CHECKOUT / "docs" / "exabgp.md").read_text())
    found = {}
    for section in sections:
        number = re.match(r"(\d+)\. ", section)
        code = re.search(rf"```{language}\n(.*?)```", section, re.DOTALL)
        if number and code:
            found[number[1]] = code[1]
    return found


def defects(*, repaired: bool = False, site: Path | None = None) -> dict[str, bool]:
    """Which defects show in a separate process. ``site``: the folder of ExaBGP, if it is not the installed one."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", RUN, str(LAUNCHER) if repaired else ""],
        input=json.dumps(blocks("python")),
        env={**os.environ, "PYTHONPATH": str(site or "")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return found


def launched(site: Path, configuration: Path) -> subprocess.CompletedProcess[str]:
    """The launcher with the ExaBGP in a folder; it checks whether it accepts a configuration."""
    return subprocess.run(
        [sys.executable, "-P", str(LAUNCHER), "0", "validate", str(configuration)],
        env={**os.environ, "PYTHONPATH": str(site), "exabgp_daemon_user": "root", "exabgp_log_enable": "false"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configuration") / "exabgp.conf"
    path.write_text(
        "neighbor 192.0.2.1 {\n router-id 192.0.2.2;\n local-address 192.0.2.2;\n local-as 64512;\n peer-as 64500;\n"
        " keepalive 1;\n connect-retry 5;\n}\n"
    )
    return path


def copied(folder: Path, version: str) -> Path:
    """A copy of the installed ExaBGP that reports another version."""
    package = Path(str(INSTALLED.locate_file("exabgp")))
    shutil.copytree(package, folder / "exabgp", ignore=shutil.ignore_patterns("__pycache__"))
    number = folder / "exabgp" / "version.py"
    number.write_text(number.read_text().replace(f"release = '{INSTALLED.version}'", f"release = '{version}'"))
    assert version in number.read_text()
    about = folder / f"exabgp-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: exabgp\nVersion: {version}\n")
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return copied(tmp_path, "5.0.16")


def test_each_defect_shows_and_the_launcher_repairs_it() -> None:
    assert list(blocks("python")) == DEFECTS, "a reproduction of each"
    assert defects() == dict.fromkeys(DEFECTS, True)
    assert defects(repaired=True) == dict.fromkeys(DEFECTS, False)


def test_the_patches_for_upstream_apply_and_repair(other: Path) -> None:
    patches = blocks("diff")
    assert set(DEFECTS) - set(patches) == {"9"}, "it is repaired with the eighth"
    for number in sorted(patches, key=int):
        subprocess.run(["git", "apply", "-"], cwd=other, input=patches[number], text=True, check=True)
    assert defects(site=other) == dict.fromkeys(DEFECTS, False)


def test_another_version_with_the_same_functions_is_accepted(other: Path, configuration: Path) -> None:
    done = launched(other, configuration)
    assert done.returncode == 0, done.stderr


def test_another_version_with_other_functions_is_refused_with_a_sentence(other: Path, configuration: Path) -> None:
    peer = other / "exabgp" / "reactor" / "peer.py"
    peer.write_text(peer.read_text().replace("def _close(self, message='', error=''):", "def _close(self, *said):"))
    loop = other / "exabgp" / "reactor" / "loop.py"
    loop.write_text(loop.read_text().replace("_pending_adjribout", "_pending_routes"))
    done = launched(other, configuration)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "exabgp 5.0.16 is installed, and differs from 5.0.15 in Reactor._pending_adjribout, Peer._close, which "
        "PorterLB repairs. Install 5.0.15: pip install exabgp==5.0.15"
    )


def test_a_version_that_lacks_a_part_is_refused_with_a_sentence(other: Path, configuration: Path) -> None:
    (other / "exabgp" / "reactor" / "keepalive.py").rename(other / "exabgp" / "reactor" / "keepalives.py")
    done = launched(other, configuration)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(
        "exabgp 5.0.16 is installed (No module named 'exabgp.reactor.keepalive'). Install"
    )


def test_the_newest_release(tmp_path: Path, configuration: Path) -> None:
    """It is the pinned release, or the launcher accepts it, or the launcher reports why it does not."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--timeout", "5", "--retries", "0"]
    asked = subprocess.run(
        [*pip, "index", "versions", "exabgp"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    newest = re.match(r"exabgp \(([0-9.]+)\)", asked.stdout)
    assert newest is not None, f"No package index can be reached: {asked.stderr.strip()[-200:]}"
    if newest[1] == INSTALLED.version:
        done = launched(tmp_path, configuration)
        assert done.returncode == 0, done.stderr
        return
    site = tmp_path / "site"
    wanted = ["install", "-q", "--no-deps", "--target", str(site), f"exabgp=={newest[1]}"]
    subprocess.run([*pip, *wanted], check=True, timeout=120, cwd=tmp_path)
    done = launched(site, configuration)
    if done.returncode:
        assert done.stderr.startswith(f"exabgp {newest[1]} is installed"), done.stderr
    else:
        assert not any(defects(repaired=True, site=site).values())
