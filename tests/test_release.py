"""`make release`: two builds of one commit are equal, checksums match, the SBOM is complete, a signature verifies."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import helm_python as helm
import pytest

from release import bom
from release.__main__ import Refused, build, versions

CHECKOUT = Path(__file__).resolve().parents[1]
REQUIREMENTS = (CHECKOUT / "image" / "requirements.txt").read_text()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the last commit that can be released: without the changelog fragments of the next version."""
    made = tmp_path_factory.mktemp("release") / "source"
    subprocess.run(["git", "clone", "--quiet", str(CHECKOUT), str(made)], check=True)
    git = ["git", "-C", str(made), "-c", "user.name=test", "-c", "user.email=test@example.com"]
    if fragments := [str(path) for path in (made / "changes").glob("+*")]:
        subprocess.run([*git, "rm", "--quiet", *fragments], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message", "Without fragments"], check=True)
    return made


def test_two_builds_are_equal_and_whole(source: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build(source, tmp_path / name, image=False, key=None)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    version = versions(source)
    assert set(one) == {
        f"porterlb-{version}-py3-none-any.whl",
        f"porterlb-{version}.tar.gz",
        f"porterlb-chart-{version}.tgz",
        f"porterlb-{version}.cdx.json",
        f"porterlb-{version}-licenses.md",
        "SHA256SUMS",
    }
    for line in one["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(one[name]).hexdigest() == digest
    assert one["SHA256SUMS"].decode().count("\n") == len(one) - 1
    with helm.Chart.load_archive((tmp_path / "one" / f"porterlb-chart-{version}.tgz").read_bytes()) as chart:
        assert (chart.name, chart.version) == ("porterlb", version)
        assert chart.render({}, name="porterlb", namespace="porterlb-system")
    with tarfile.open(tmp_path / "one" / f"porterlb-{version}.tar.gz") as sources:
        names = {member.name for member in sources}
    assert {f"porterlb-{version}/{name}" for name in ("README.md", "LICENSE", "porterlb/app.py", "Makefile")} <= names
    assert not [name for name in names if "/.git/" in name or "/.venv/" in name]


def test_the_bill_of_materials_names_every_package_with_hash_and_license() -> None:
    found = bom.packages(REQUIREMENTS)
    assert len(found) == REQUIREMENTS.count("==") and {"exabgp", "aiohttp", "kubernetes"} <= {one.name for one in found}
    assert all(one.hashes for one in found)
    assert [one.name for one in found if one.license == "unknown" or "GPL-2" in one.license] == []
    told = json.loads(bom.sbom("1.2.3", found, 0))
    assert (told["bomFormat"], told["specVersion"]) == ("CycloneDX", "1.6")
    assert told["metadata"]["component"]["version"] == "1.2.3"
    assert {one["purl"] for one in told["components"]} == {f"pkg:pypi/{p.name.lower()}@{p.version}" for p in found}


def test_versions_that_differ_are_refused(tmp_path: Path) -> None:
    for name in ("setup.cfg", "charts/porterlb/Chart.yaml", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    chart = tmp_path / "charts" / "porterlb" / "Chart.yaml"
    version = versions(tmp_path)
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n")
    with pytest.raises(Refused, match=r"CHANGELOG\.md has no section for"):
        versions(tmp_path)
    chart.write_text(chart.read_text().replace(f"appVersion: {version}", "appVersion: 9.9.9"))
    with pytest.raises(Refused, match=r"the versions differ: .*appVersion\) has 9\.9\.9"):
        versions(tmp_path)


def test_fragments_become_the_section_of_a_version(source: Path, tmp_path: Path) -> None:
    for name in ("setup.cfg", "charts/porterlb/Chart.yaml", "CHANGELOG.md", "pyproject.toml", "changes/README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(CHECKOUT / name, tmp_path / name)
    for name in ("setup.cfg", "charts/porterlb/Chart.yaml"):
        path = tmp_path / name
        path.write_text(path.read_text().replace(versions(source), "9.8.7"))
    for kind in ("added", "changed", "fixed"):
        (tmp_path / "changes" / f"+a.{kind}.md").write_text(f"Something was {kind}.\n")
    with pytest.raises(Refused, match="run towncrier build --version 9"):
        versions(tmp_path)
    command = [sys.executable, "-m", "towncrier", "build", "--yes", "--version", "9.8.7", "--date", "2031-02-03"]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "add", "."], check=True)
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    text = (tmp_path / "CHANGELOG.md").read_text()
    section = text[text.index("## 9.8.7 (2031-02-03)") : text.index("## 0.2.0")]
    assert section.split() == [
        "##", "9.8.7", "(2031-02-03)",
        "###", "Added", "-", "Something", "was", "added.",
        "###", "Changed", "-", "Something", "was", "changed.",
        "###", "Fixed", "-", "Something", "was", "fixed.",
    ]  # fmt: skip
    assert versions(tmp_path) == "9.8.7"
    (tmp_path / "changes" / "+late.fixed.md").write_text("Something else.\n")
    with pytest.raises(Refused, match=r"not in CHANGELOG\.md: \+late\.fixed\.md"):
        versions(tmp_path)


def test_the_checksums_are_signed(source: Path, tmp_path: Path) -> None:
    program = shutil.which("minisign")
    assert program, "minisign is missing: install the system packages with `make setup`"
    public, secret = tmp_path / "key.pub", tmp_path / "key"
    subprocess.run([program, "-G", "-W", "-p", public, "-s", secret], check=True, capture_output=True)
    made = build(source, tmp_path / "dist", image=False, key=secret)
    assert made[-1].name == "SHA256SUMS.minisig"
    verify: list[str | Path] = [program, "-V", "-p", public, "-m", made[-2]]
    assert subprocess.run(verify, capture_output=True, check=False).returncode == 0
    made[-2].write_text("changed\n")
    assert subprocess.run(verify, capture_output=True, check=False).returncode != 0
