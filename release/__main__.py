"""`make release`: wheel, sdist, chart, image archive, SBOM, licenses, checksums and signatures, in dist/.

Everything is built from the files that git knows, with the time of the last commit. Two builds of one commit are equal
byte by byte.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

from release import bom

ROOT = Path(__file__).resolve().parents[1]


class Refused(Exception):
    """The release cannot be made. The message is one sentence."""


def main() -> int:
    arguments = _arguments()
    try:
        made = build(arguments.root, arguments.out, image=arguments.image, key=arguments.key)
    except Refused as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("dist"), help="folder for the files (dist)")
    parser.add_argument("--image", action="store_true", help="also build the image archive (root, image/build)")
    parser.add_argument("--key", type=Path, help="secret key of minisign that signs the checksums")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)
    return parser.parse_args()


def build(root: Path, out: Path, *, image: bool, key: Path | None) -> list[Path]:
    """Makes all files of a release in ``out``, and returns them. Raises Refused."""
    version = versions(root)
    out.mkdir(parents=True, exist_ok=True)
    epoch = _git(root, "log", "-1", "--format=%ct").strip() or "0"
    with tempfile.TemporaryDirectory(prefix="porterlb-release-") as folder:
        source = Path(folder) / f"porterlb-{version}"
        _copy(root, source)
        made = [_wheel(source, out, epoch), _sdist(source, out, version, int(epoch))]
        made.append(_chart(source, out, version, int(epoch)))
    packages = bom.packages((root / "image" / "requirements.txt").read_text())
    made.append(_text(out / f"porterlb-{version}.cdx.json", bom.sbom(version, packages, int(epoch))))
    made.append(_text(out / f"porterlb-{version}-licenses.md", bom.licenses(version, packages)))
    if image:
        made.append(_image(root, out, version))
    made.append(_checksums(out, made))
    if key:
        made.append(_signature(out / "SHA256SUMS", key))
    return made


def versions(root: Path) -> str:
    """The version, which the package, the chart and the changelog have in common."""
    found = {
        "setup.cfg": _field(root / "setup.cfg", "version = "),
        "charts/porterlb/Chart.yaml (version)": _field(root / "charts" / "porterlb" / "Chart.yaml", "version: "),
        "charts/porterlb/Chart.yaml (appVersion)": _field(root / "charts" / "porterlb" / "Chart.yaml", "appVersion: "),
    }
    if len(set(found.values())) != 1:
        raise Refused("the versions differ: " + ", ".join(f"{where} has {text}" for where, text in found.items()) + ".")
    (version,) = set(found.values())
    if f"\n## {version}" not in (root / "CHANGELOG.md").read_text():
        raise Refused(f"CHANGELOG.md has no section for {version}: run towncrier build --version {version}.")
    if left := sorted(path.name for path in (root / "changes").glob("*.*.md")):
        raise Refused(f"changes/ has fragments that are not in CHANGELOG.md: {', '.join(left)}.")
    return version


def _field(path: Path, prefix: str) -> str:
    for line in path.read_text().splitlines():
        if line.startswith(prefix):
            return line.removeprefix(prefix).strip().strip('"')
    raise Refused(f"{path} has no line {prefix.strip()!r}.")


def _copy(root: Path, source: Path) -> None:
    """The files that git knows, with one mode each: what else lies in the folder is not released."""
    for name in filter(None, _git(root, "ls-files", "-z").split("\0")):
        if (root / name).is_file():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
            target.chmod(0o755 if os.access(root / name, os.X_OK) else 0o644)


def _wheel(source: Path, out: Path, epoch: str) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(source)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "SOURCE_DATE_EPOCH": epoch}
        )
        if done.returncode:
            raise Refused(f"the wheel cannot be built: {done.stderr.strip()[-500:]}")
        (wheel,) = Path(folder).glob("*.whl")
        shutil.rmtree(source / "build", ignore_errors=True)
        shutil.rmtree(source / "porterlb.egg-info", ignore_errors=True)
        return Path(shutil.copy(wheel, out / wheel.name))


def _sdist(source: Path, out: Path, version: str, epoch: int) -> Path:
    """The whole tree that git knows: it holds the tests, the chart and the lab too."""
    return _archive(out / f"porterlb-{version}.tar.gz", source, f"porterlb-{version}", epoch)


def _chart(source: Path, out: Path, version: str, epoch: int) -> Path:
    """The archive that `helm package` makes, with fixed times and owners."""
    return _archive(out / f"porterlb-chart-{version}.tgz", source / "charts" / "porterlb", "porterlb", epoch)


def _archive(path: Path, folder: Path, name: str, epoch: int) -> Path:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in sorted(one for one in folder.rglob("*") if one.is_file()):
            entry = tar.gettarinfo(file, f"{name}/{file.relative_to(folder)}")
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = epoch, 0, 0, "root", "root"
            with file.open("rb") as data:
                tar.addfile(entry, data)
    path.write_bytes(gzip.compress(plain.getvalue(), compresslevel=9, mtime=epoch))
    return path


def _image(root: Path, out: Path, version: str) -> Path:
    folder = root / "build" / "image"
    done = subprocess.run([root / "image" / "build", folder], check=False)
    if done.returncode:
        raise Refused("the image cannot be built; see above.")
    path = out / f"porterlb-image-{version}.tar.gz"
    with (folder / "porterlb.tar").open("rb") as plain, gzip.GzipFile(path, "wb", mtime=0) as packed:
        shutil.copyfileobj(plain, packed)
    return path


def _checksums(out: Path, made: Iterable[Path]) -> Path:
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made]
    return _text(out / "SHA256SUMS", "".join(lines))


def _signature(checksums: Path, key: Path) -> Path:
    program = shutil.which("minisign")
    if not program:
        raise Refused("minisign is missing. Run: lab/install-packages minisign")
    signature = checksums.with_name(f"{checksums.name}.minisig")
    command = [program, "-S", "-s", str(key), "-m", str(checksums), "-x", str(signature), "-t", "PorterLB release"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"minisign: {(done.stderr or done.stdout).strip()}")
    return signature


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"git {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
