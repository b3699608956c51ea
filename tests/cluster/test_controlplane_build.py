"""The sources of the control plane's programs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.controlplane.build import PROGRAMS, cache_folder, ensure_binaries, kubernetes_version

pytestmark = pytest.mark.cluster

CHECKOUT = Path(__file__).parents[2]


def test_a_folder_that_holds_every_program_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROGRAMS:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert ensure_binaries() == {name: tmp_path / name for name in PROGRAMS}


def test_a_folder_that_lacks_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(PROGRAMS)[1:]:
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert not [path for path in ensure_binaries().values() if path.parent == tmp_path]


def test_the_cache_is_outside_the_checkout_and_named_by_version() -> None:
    assert not cache_folder().is_relative_to(CHECKOUT)
    assert cache_folder().name.startswith(f"{kubernetes_version()}-")


def test_the_programs_say_the_version_that_go_mod_pins() -> None:
    paths = ensure_binaries()
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"):
        answer = subprocess.run([paths[name], "--version"], capture_output=True, text=True, check=True).stdout
        assert answer.strip() == f"Kubernetes {kubernetes_version()}"


def test_a_build_that_cannot_be_done_says_so_in_words(tmp_path: Path) -> None:
    environment = {
        "PATH": "/usr/local/go/bin:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GOMODCACHE": str(tmp_path / "modules"),
        "GOPROXY": "off",
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.controlplane.build"],
        cwd=CHECKOUT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "building etcd failed" in done.stderr or "no Go to build with" in done.stderr
