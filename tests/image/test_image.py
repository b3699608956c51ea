"""The image: built from the Dockerfile like `make image`, and run: the command line, and a manager."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "image"
SECONDS = 900
"""Seconds for the whole build: 60 s on an idle machine, and 30 s more for the base the first time."""

EIP = """
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool}
spec: {address: 10.0.0.100-10.0.0.199}
"""

pytestmark = [pytest.mark.lab, pytest.mark.timeout(SECONDS + 120)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The image's files, as a container sees them."""
    if os.geteuid() != 0:
        pytest.fail("the image is built as root: run the tests as root")
    installed = subprocess.run(
        [ROOT / "lab" / "install-packages", "mmdebstrap", "buildah"], capture_output=True, text=True, check=False
    )
    assert installed.returncode == 0, installed.stderr
    folder = tmp_path_factory.mktemp("image") / "root"
    built = subprocess.run(
        [ROOT / "image" / "build"],
        env={**os.environ, "ROOTFS": str(folder)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    print(built.stdout)
    yield folder
    shutil.rmtree(folder)


def inside(root: Path, script: str) -> list[str]:
    """The command that runs ``script`` with /proc in separate namespaces; {root} is the image."""
    namespaces = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    return [*namespaces, "sh", "-ec", f"mount -t proc proc {root}/proc; {script}"]


def test_the_command_line_runs_as_another_user_than_root(root: Path) -> None:
    program = f"exec chroot --userspec=65532:65532 {root} /opt/porterlb/bin/porterlb"
    done = subprocess.run(inside(root, f"{program} --version"), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("porterlb, version "), done.stderr
    done = subprocess.run(inside(root, f"{program} crds"), capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.count("kind: CustomResourceDefinition") == 3, done.stderr


def test_a_manager_runs_and_writes_status(root: Path, tmp_path: Path) -> None:
    (tmp_path / "pool.yaml").write_text(EIP)
    (root / "data").mkdir()
    command = "manager --node node-a --cluster dir:/data --hello-address 127.0.0.1"
    script = f"mount --bind {tmp_path} {root}/data; exec chroot {root} /opt/porterlb/bin/porterlb {command}"
    status = tmp_path / ".porterlb" / "status" / "Eip" / "pool.json"
    with subprocess.Popen(inside(root, script), stderr=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 60
            while not (status.exists() and json.loads(status.read_text())["owners"]):
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < until, "no status was written within 60 s"
                time.sleep(0.1)
        finally:
            process.kill()
    assert "conditions" in json.dumps(json.loads(status.read_text())["owners"])


def test_it_is_small_and_has_no_tools(root: Path) -> None:
    ours = sum(path.lstat().st_size for path in (root / "opt/porterlb").rglob("*") if path.is_file())
    assert ours < 120 * 2**20, f"{ours / 2**20:.0f} MiB"
    names = {path.name for path in (root / "opt/porterlb/lib/python3.11/site-packages").iterdir()}
    assert not names & {"pip", "setuptools", "pytest", "scapy", "hypothesis", "mypy"}
