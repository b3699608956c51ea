"""The images of the nodes' containers: PorterLB's image as `make image` builds it, a backend, and a pause image.

`prepare()` builds the images and imports them with a containerd into one folder, once for each state of the sources.
Nodes start with hard links to that folder: layers are never written to, and are stored once. ``python -m
tests.cluster.nodes.images`` runs it and prints the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.workload import ECHO_PORT, HTTP_PORT, SERVER
from tests.cluster.nodes import config, later

CHECKOUT = Path(__file__).resolve().parents[3]
BUILT = CHECKOUT / "build" / "image"
ROOM = CHECKOUT / "build" / "nodes"
"""The image stores and the folders of nodes. They are on a disk, and on one file system, which hard links require."""

MANAGER = "localhost/porterlb"
"""The name that image/build assigns. Its tag is the version, equal to the chart's appVersion."""
BACKEND = "localhost/lab/backend:1"
"""Responds with its pod's name: HTTP on 8080, echo on 7007 (lab/podserver.py)."""
LATER = "later"
"""The tag of another release of PorterLB (``later``)."""
BASE = "localhost/porterlb-base:bookworm"
SCRIPT = Path(later.__file__)

SOURCES = ("Dockerfile", "setup.cfg", "pyproject.toml", "README.md", "LICENSE", "image", "porterlb", "exabgp")
TOOLS = ("mmdebstrap", "buildah", "containerd", "runc", "containernetworking-plugins")


class ImageError(Exception):
    """The images cannot be built. The message has the end of the output."""


def prepare() -> Path:
    """The folder that a node's /var/lib/containerd starts with; built if it is missing (two minutes)."""
    ROOM.mkdir(parents=True, exist_ok=True)
    store = ROOM / f"store-{fingerprint()}"
    with (ROOM / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel releases the lock when its holder ends
        if not store.exists():
            for old in ROOM.glob("store-*"):
                shutil.rmtree(old)
            _make(store)
    return store


def fingerprint() -> str:
    """A hash that changes with every file that the images are made of."""
    digest = hashlib.sha256()
    for source in (*(CHECKOUT / name for name in SOURCES), Path(__file__), SCRIPT, SERVER):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(CHECKOUT)} {path.stat().st_size}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def populate(store: Path, target: Path) -> None:
    """Gives a node its own store: links to files that are never written to, copies of the databases."""
    _run(["cp", "--archive", "--link", str(store), str(target)])
    for path in target.glob("io.containerd.*/*.db"):
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(data)


def _make(store: Path) -> None:
    begun = time.monotonic()
    _say("building the images of PorterLB and the lab's backend (two minutes)")
    _run([str(CHECKOUT / "lab" / "install-packages"), *TOOLS])
    _run([str(CHECKOUT / "image" / "build")])
    with tempfile.TemporaryDirectory(dir=ROOM, prefix=".making-") as made:
        folder = Path(made)
        serve = f'exec python3 -I -S /podserver.py "$HOSTNAME" {HTTP_PORT} {ECHO_PORT}'
        backend = _image(folder / "backend.tar", BACKEND, ["sh", "-c", serve], SERVER)
        pause = _image(folder / "pause.tar", config.PAUSE, ["sleep", "infinity"])
        _import(folder, [BUILT / "porterlb.tar", _later(folder / "later.tar"), backend, pause])
        (folder / "lib" / "containerd").rename(store)
    _say(f"built and imported in {time.monotonic() - begun:.0f} s: {store}")


def _image(archive: Path, name: str, command: list[str], *files: Path) -> Path:
    """An archive with an image: the base image of PorterLB, these files at its root, and a command."""
    with _changed(BASE, name, archive) as container:
        if files:
            _buildah("copy", "--quiet", container, *map(str, files), "/")
        _buildah("config", "--cmd", "", "--entrypoint", json.dumps(command), container)
    return archive


def _later(archive: Path) -> Path:
    """An archive with another release of PorterLB."""
    version = (CHECKOUT / "setup.cfg").read_text().split("\nversion = ")[1].split()[0]
    with _changed(f"{MANAGER}:{version}", f"{MANAGER}:{LATER}", archive) as container:
        python = ["/opt/porterlb/bin/python", "-c", SCRIPT.read_text()]
        _buildah("run", "--user", "0:0", container, "--", *python)
    return archive


@contextmanager
def _changed(image: str, name: str, archive: Path) -> Iterator[str]:
    """A container of an image. Its state at the end of the block becomes an archive with another image."""
    container = _buildah("from", "--pull-never", image)
    try:
        yield container
        _buildah("commit", "--quiet", container, name)
    finally:
        _buildah("rm", container)
    _buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}")


def _buildah(verb: str, *arguments: str) -> str:
    """Runs buildah on the store of image/build."""
    conf = BUILT / "conf"
    environment = {
        "CONTAINERS_STORAGE_CONF": str(conf / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(conf / "registries.conf"),
        "CONTAINERS_CONF": "/dev/null",
        "TMPDIR": str(BUILT / "tmp"),
        "BUILDAH_ISOLATION": "chroot",
    }
    policy = ["--signature-policy", str(conf / "policy.json")] if verb in ("from", "commit", "push") else []
    return _run(["buildah", verb, *policy, *arguments], environment)


def _import(folder: Path, archives: list[Path]) -> None:
    """Runs a containerd below ``folder`` in its own namespaces, and imports the archives with it."""
    (folder / "containerd.toml").write_text(config.containerd(folder / "cni"))
    (folder / "lib").mkdir()
    script = [
        "set -e",
        "mount -t tmpfs -o mode=755 tmpfs /run",
        f"mount --bind {folder}/lib /var/lib",
        "mkdir /run/containerd",
        f"containerd --config {folder}/containerd.toml >{folder}/containerd.log 2>&1 &",
        f"for i in $(seq 200); do [ -S {config.SOCKET} ] && break; sleep 0.1; done",
        *(f"ctr --namespace k8s.io images import {archive} >/dev/null" for archive in archives),
        "kill %1",
        "wait",
    ]
    apart = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    _run([*apart, "--propagation", "private", "bash", "-c", "\n".join(script)])


def _run(command: list[str], environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, env={**os.environ, **(environment or {})}, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise ImageError(f"{' '.join(command)[:200]} failed with {done.returncode}:\n{tail}")
    return done.stdout.strip()


def _say(text: str) -> None:
    print(f"nodes: {text}", file=sys.stderr, flush=True)


def main() -> int:
    try:
        print(prepare())
    except ImageError as error:
        print(f"nodes: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
