"""Notices of the kernel about a directory of manifests: which files are reported, when, and when to scan everything."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from porterlb.edge.manifests.inotify import Inotify


@contextmanager
def watched(root: Path) -> Iterator[Inotify]:
    notices = Inotify(root, root / ".porterlb")
    try:
        yield notices
    finally:
        notices.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("deep/deeper", ".git", ".porterlb/status/Service", ".porterlb/leases/porterlb", ".porterlb/tmp"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_a_manifest_is_reported_when_it_is_complete(root: Path) -> None:
    with watched(root) as notices, (root / "deep" / "deeper" / "a.yaml").open("w") as file:
        file.write("half")
        file.flush()
        assert notices.read() == set()
        file.close()
        assert notices.read() == {root / "deep" / "deeper" / "a.yaml"}
        (root / "b").write_text("")
        (root / "b").rename(root / "b.yaml")
        assert notices.read() == {root / "b", root / "b.yaml"}
        (root / "b.yaml").chmod(0o600)
        assert notices.read() == {root / "b.yaml"}
        (root / "b.yaml").unlink()
        assert notices.read() == {root / "b.yaml"}
        assert notices.read() == set()


def test_a_notice_wakes_the_reader(root: Path) -> None:
    with watched(root) as notices:
        assert not select.select([notices.descriptor], [], [], 0)[0]
        (root / "a.yaml").write_text("")
        assert select.select([notices.descriptor], [], [], 5)[0]


def test_only_statuses_and_leases_of_our_own_folder(root: Path) -> None:
    own = root / ".porterlb"
    with watched(root) as notices:
        (own / "tmp" / "1").write_text("")
        (own / "hello.key").write_text("")
        (own / "status" / "Service" / "not-a-record").write_text("")
        (root / ".git" / "index.yaml").write_text("")
        (root / ".a.yaml.swp").write_text("")
        assert notices.read() == set()
        os.link(own / "tmp" / "1", own / "leases" / "porterlb" / "2.json")
        (own / "tmp" / "1").rename(own / "status" / "Service" / "default_web.json")
        assert notices.read() == {
            own / "leases" / "porterlb" / "2.json",
            own / "status" / "Service" / "default_web.json",
        }


@pytest.mark.parametrize("folder", ["new", "deep/new", ".porterlb/leases/node-a", ".porterlb/status/Eip"])
def test_a_new_folder_is_covered_too(root: Path, folder: str) -> None:
    with watched(root) as notices:
        (root / folder).mkdir()
        assert notices.read() is None
        notices.cover()
        (root / folder / "a.json").write_text("")
        assert (notices.read() or set()) >= {root / folder / "a.json"}
        (root / folder / "a.json").unlink()
        (root / folder).rmdir()
        assert notices.read() is None


def test_the_folder_of_our_own_may_come_later(tmp_path: Path) -> None:
    with watched(tmp_path) as notices:
        (tmp_path / ".porterlb" / "status" / "Service").mkdir(parents=True)
        (tmp_path / ".porterlb" / "leases").mkdir()
        assert notices.read() is None
        notices.cover()
        (tmp_path / ".porterlb" / "status" / "Service" / "web.json").write_text("")
        assert notices.read() == {tmp_path / ".porterlb" / "status" / "Service" / "web.json"}


def test_a_renamed_folder_is_scanned_under_its_new_name(root: Path) -> None:
    with watched(root) as notices:
        (root / "deep").rename(root / "other")
        assert notices.read() is None
        notices.cover()
        (root / "other" / "deeper" / "a.yaml").write_text("")
        assert notices.read() == {root / "other" / "deeper" / "a.yaml"}


def test_lost_notices_lead_to_a_scan(root: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with watched(root) as notices:
        for number in range(most + 1):
            (root / f"{number % 2}.yaml").touch()
        assert notices.read() is None


def test_no_notices_without_the_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Inotify(tmp_path / "gone", tmp_path / "gone" / ".porterlb")
