"""A folder of manifests as a cluster: which changes are seen, how fast, and which are never treated as a deletion."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from pathlib import Path

import pytest

from porterlb.cluster import Deleted, Denied, Kind, LeaseRecord, Obj, Outage, Replaced, Restored, Unavailable
from porterlb.edge.manifests import ManifestsCluster, directory, documents
from porterlb.edge.manifests.directory import GRACE
from porterlb.edge.manifests.documents import Loaded, load
from porterlb.edge.manifests.leases import Leases
from porterlb.edge.manifests.state import ManifestState
from porterlb.edge.manifests.state_dir import StateDir
from tests.edge.manifests_support import EIP, Watcher, opened, service


def test_first_a_full_list_then_changes(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(EIP + "---\n" + service("web"))
        async with opened(tmp_path) as (_, seen):
            assert [type(event) for event in seen.events[:2]] == [Replaced, Replaced]
            eip = seen.get(Kind.EIP, "pool")
            assert eip["spec"]["layer2Standby"] is True  # a default of the schema
            assert eip["metadata"]["uid"] and eip["metadata"]["creationTimestamp"].endswith("Z")
            assert eip["metadata"]["generation"] == 1
            (tmp_path / "b.yaml").write_text(service("api"))
            await seen.until(lambda: seen.get(Kind.SERVICE, "api", "shop"))
            (tmp_path / "b.yaml").unlink()
            await seen.until(lambda: not seen.get(Kind.SERVICE, "api", "shop"))
            assert isinstance(seen.events[-1], Deleted)
            assert seen.get(Kind.SERVICE, "web", "shop")

    asyncio.run(main())


def test_changes_are_seen_fast(tmp_path: Path) -> None:
    """About 15 ms on an idle machine. The bound here is generous, but below the interval of the fallback poll."""

    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path) as (_, seen):
            await asyncio.sleep(0.3)
            took = []
            for port in range(1000, 1009):
                began = time.perf_counter()
                (tmp_path / "a.yaml").write_text(service("web", port))

                def is_there(port: int = port) -> bool:
                    return bool(seen.get(Kind.SERVICE, "web", "shop")["spec"]["ports"][0]["port"] == port)

                await seen.until(is_there)
                took.append(time.perf_counter() - began)
                await asyncio.sleep(0.05)
            assert sorted(took)[4] < 0.25, took

    asyncio.run(main())


def test_a_thousand_objects(tmp_path: Path) -> None:
    for part in range(10):
        text = "---\n".join(service(f"s{part}-{i}") for i in range(100))
        (tmp_path / f"{part}.yaml").write_text(text)

    async def main() -> float:
        began = time.process_time()
        async with opened(tmp_path) as (_, seen):
            assert len(seen.objects) == 1000
            return time.process_time() - began

    asyncio.run(main())
    assert asyncio.run(main()) < 3.0  # 0.26 s on an idle machine


def test_identity_survives_a_restart_and_ends_with_the_object(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "a.yaml"
        file.write_text(service("web"))
        async with opened(tmp_path) as (_, seen):
            first = seen.get(Kind.SERVICE, "web", "shop")["metadata"]
        async with opened(tmp_path) as (_, seen):
            again = seen.get(Kind.SERVICE, "web", "shop")["metadata"]
            assert again == first
            file.write_text(service("web", 81))
            changed = await seen.until(
                lambda: (m := seen.get(Kind.SERVICE, "web", "shop")["metadata"])["generation"] == 2 and m
            )
            assert changed["uid"] == first["uid"]
            assert changed["resourceVersion"] != first["resourceVersion"]
            file.write_text(service("web", 81).replace("  name: web", "  labels: {a: b}\n  name: web"))
            await seen.until(lambda: seen.get(Kind.SERVICE, "web", "shop")["metadata"].get("labels"))
            assert seen.get(Kind.SERVICE, "web", "shop")["metadata"]["generation"] == 2, "a label is no new spec"
            file.unlink()
            await seen.until(lambda: not seen.get(Kind.SERVICE, "web", "shop"))
            file.write_text(service("web"))
            new = await seen.until(lambda: seen.get(Kind.SERVICE, "web", "shop"))
            assert new["metadata"]["uid"] != first["uid"]

    asyncio.run(main())


def test_deleted_while_nobody_looked(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path) as (cluster, _):
            await cluster.apply_status(Kind.SERVICE, "web", "shop", {"x": 1}, owner="porterlb")
        (tmp_path / "a.yaml").unlink()
        async with opened(tmp_path) as (_, seen):
            assert not seen.objects
            (tmp_path / "a.yaml").write_text(service("web"))
            web = await seen.until(lambda: seen.get(Kind.SERVICE, "web", "shop"))
            assert "status" not in web, "a new object must not inherit the state of one that was deleted"

    asyncio.run(main())


@pytest.mark.parametrize("how", ["truncate first", "rename over", "remove first"])
def test_an_editor_that_saves_deletes_nothing(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        file = tmp_path / "a.yaml"
        file.write_text(service("web") + "---\n" + service("api"))
        async with opened(tmp_path) as (_, seen):
            for port in range(2000, 2005):
                text = service("web", port) + "---\n" + service("api", port)
                if how == "truncate first":
                    file.write_text("")
                    await asyncio.sleep(0.04)
                    file.write_text(text)
                elif how == "remove first":
                    file.rename(tmp_path / "a.yaml~")
                    await asyncio.sleep(0.04)
                    file.write_text(text)
                else:
                    (tmp_path / ".a.swp").write_text(text)
                    (tmp_path / ".a.swp").replace(file)

                def is_there(port: int = port) -> bool:
                    return bool(seen.get(Kind.SERVICE, "api", "shop")["spec"]["ports"][0]["port"] == port)

                await seen.until(is_there)
            assert not [event for event in seen.events if isinstance(event, Deleted)]

    asyncio.run(main())


def test_moved_to_another_file_is_the_same_object(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path) as (_, seen):
            uid = seen.get(Kind.SERVICE, "web", "shop")["metadata"]["uid"]
            (tmp_path / "deep").mkdir()
            (tmp_path / "a.yaml").rename(tmp_path / "deep" / "b.yaml")
            await asyncio.sleep(0.5)
            assert seen.get(Kind.SERVICE, "web", "shop")["metadata"]["uid"] == uid
            assert not [event for event in seen.events if isinstance(event, Deleted)]

    asyncio.run(main())


# --- outages


def lose(folder: Path, how: str) -> None:
    aside = folder.with_name("aside")
    folder.rename(aside)
    if how == "empty":
        folder.mkdir()
    elif how == "a file":
        folder.write_text("")
    elif how == "another cluster":
        folder.mkdir()
        asyncio.run(_once(folder))


async def _once(folder: Path) -> None:
    cluster = ManifestsCluster(folder)
    await cluster.hello_key()
    await cluster.close()


def bring_back(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)
    folder.with_name("aside").rename(folder)


@pytest.mark.parametrize("how", ["gone", "empty", "a file", "another cluster"])
def test_a_directory_that_goes_away_is_an_outage(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    (folder / "a.yaml").write_text(EIP + "---\n" + service("web"))

    async def main() -> None:
        async with opened(folder) as (cluster, seen):
            lease = await cluster.write_lease(LeaseRecord("porterlb", "a", 4.0))
            await asyncio.to_thread(lose, folder, how)
            await seen.until(lambda: seen.outage)
            assert str(folder) in seen.outage and seen.outage.endswith(".")
            assert len(seen.objects) == 2
            for call in (
                cluster.objects(Kind.SERVICE),
                cluster.read_lease("porterlb"),
                cluster.leases(),
                cluster.write_lease(lease),
                cluster.hello_key(),
                cluster.apply_status(Kind.SERVICE, "web", "shop", {"x": 1}, owner="a"),
            ):
                with pytest.raises(Unavailable):
                    await call
            if how == "empty":
                assert not list(folder.iterdir()), "nothing is written where the mount was"
            count = len(seen.events)
            bring_back(folder)
            await seen.until(lambda: seen.restored)
            after = [event for event in seen.events[count:] if isinstance(event, (Replaced, Restored))]
            assert [type(event) for event in after] == [Replaced, Replaced, Restored]
            assert not [event for event in seen.events if isinstance(event, Deleted)]
            assert (await cluster.write_lease(lease)).version
            (folder / "b.yaml").write_text(service("api"))
            await seen.until(lambda: seen.get(Kind.SERVICE, "api", "shop"))

    asyncio.run(main())


def test_a_real_mount_that_vanishes(tmp_path: Path) -> None:
    """A bind mount, as on each node of the lab; needs root."""
    source, mount = tmp_path / "source", tmp_path / "mount"
    source.mkdir()
    mount.mkdir()
    (source / "a.yaml").write_text(service("web"))

    async def call(*argv: str) -> None:
        process = await asyncio.create_subprocess_exec(*argv)
        assert await process.wait() == 0, argv

    async def main() -> None:
        await call("mount", "--bind", str(source), str(mount))
        try:
            async with opened(source) as (_, there), opened(mount) as (here, seen):
                (source / "b.yaml").write_text(service("api"))
                for watched in (there, seen):  # each has its own watch
                    await watched.until(lambda watched=watched: watched.get(Kind.SERVICE, "api", "shop"))
                uids = {w.get(Kind.SERVICE, "api", "shop")["metadata"]["uid"] for w in (there, seen)}
                assert len(uids) == 1
                await call("umount", "-l", str(mount))
                await seen.until(lambda: seen.outage)
                assert len(seen.objects) == 2 and not list(mount.iterdir())
                await call("mount", "--bind", str(source), str(mount))
                await seen.until(lambda: seen.restored)
                await here.apply_status(Kind.SERVICE, "api", "shop", {"x": 1}, owner="a")
                await there.until(lambda: there.get(Kind.SERVICE, "api", "shop").get("status"))
        finally:
            await call("umount", "-l", str(mount))

    asyncio.run(main())


def test_a_directory_that_is_not_there_yet(tmp_path: Path) -> None:
    folder = tmp_path / "later"

    async def main() -> None:
        async with opened(folder) as (_, seen):
            assert isinstance(seen.events[0], Outage)
            folder.mkdir()
            (folder / "a.yaml").write_text(service("web"))
            await seen.until(lambda: seen.restored)
            await seen.until(lambda: seen.get(Kind.SERVICE, "web", "shop"))

    asyncio.run(main())


def test_read_only_leaves_no_trace(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path, read_only=True) as (cluster, seen):
            assert seen.get(Kind.SERVICE, "web", "shop")["metadata"]["uid"]
            assert await cluster.leases() == []
            with pytest.raises(Denied):
                await cluster.hello_key()

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


def test_a_slow_reader_is_told_the_latest_only(tmp_path: Path) -> None:
    async def main() -> None:
        file = tmp_path / "a.yaml"
        file.write_text(service("web"))
        async with opened(tmp_path) as (cluster, seen):
            stream = cluster.watch([Kind.SERVICE])
            assert isinstance(await anext(stream), Replaced)
            for port in range(3000, 3010):
                file.write_text(service("web", port))
                await seen.until(
                    lambda port=port: seen.get(Kind.SERVICE, "web", "shop")["spec"]["ports"][0]["port"] == port
                )
            event = await asyncio.wait_for(anext(stream), 1)
            assert event.object["spec"]["ports"][0]["port"] == 3009  # type: ignore[union-attr]
            await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_two_watches_of_one_cluster(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path) as (cluster, first):
            second = Watcher(cluster, Kind.SERVICE)
            await second.started()
            (tmp_path / "b.yaml").write_text(service("api"))
            for watcher in (first, second):
                await watcher.until(lambda watcher=watcher: watcher.get(Kind.SERVICE, "api", "shop"))
            second.task.cancel()
            await asyncio.gather(second.task, return_exceptions=True)

    asyncio.run(main())


def test_a_scan_of_everything_delays_no_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many files, a scan takes long."""
    begun, go_on = threading.Event(), threading.Event()
    survey = ManifestState.survey

    def slow(self: ManifestState) -> list[Path]:
        begun.set()
        go_on.wait(10)
        return survey(self)

    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        monkeypatch.setattr(ManifestState, "survey", slow)
        async with opened(tmp_path) as (_, seen):
            try:
                assert await asyncio.to_thread(begun.wait, 10)
                async with asyncio.timeout(8):
                    while not seen.get(Kind.SERVICE, "api", "shop"):  # the first write may be too early for a notice
                        (tmp_path / "b.yaml").write_text(service("api"))
                        await asyncio.sleep(0.1)
            finally:
                go_on.set()

    asyncio.run(main())


def test_changes_without_a_notice_are_found(tmp_path: Path) -> None:
    """As on a network file system, where the kernel knows nothing of the writes of other machines."""
    for name in ("changed", "removed", "kept"):
        (tmp_path / f"{name}.yaml").write_text(service(name))
    state_dir = StateDir(tmp_path)
    state = ManifestState(state_dir, Leases(state_dir), "porterlb-system")
    leases = state_dir.inside / "leases"
    assert state.look() == "" and state.survey() == [leases]
    (tmp_path / "changed.yaml").write_text(service("changed", 81))
    (tmp_path / "removed.yaml").unlink()
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "new.yaml").write_text(service("new"))
    record = state_dir.inside / "status" / "Service" / "shop_kept.json"
    record.write_text(record.read_text().replace('"revision":1', '"revision":2'))
    (state_dir.inside / "status" / "Service" / "shop_changed.json").unlink()
    assert sorted(state.survey()) == sorted(
        [
            leases,
            record,
            record.with_name("shop_changed.json"),
            tmp_path / "changed.yaml",
            tmp_path / "deep" / "new.yaml",
            tmp_path / "removed.yaml",
        ]
    )
    state.look(state.survey())
    time.sleep(GRACE)
    state.look(())
    assert {key.name for key in state.fresh()} == {"changed", "kept", "new"}
    assert state.survey() == [leases]


def test_a_file_that_is_as_before_the_start_is_not_parsed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading YAML took most of a start with many Services."""
    files = {
        "same.yaml": service("same") + "---\n" + service("other"),
        "edited.yaml": service("edited"),
        "half.yaml": service("half") + "---\n" + "kind: [",
        "fewer.yaml": service("first") + "---\n" + service("gone"),
        "moved.yaml": service("moved"),
    }
    parsed: list[str] = []

    def noted(text: str, file: str, source: str) -> Loaded:
        parsed.append(file)
        return load(text, file, source)

    monkeypatch.setattr(directory, "load", noted)

    def start() -> dict[str, Obj]:
        state_dir = StateDir(tmp_path)
        found = ManifestState(state_dir, Leases(state_dir), "porterlb-system").fresh()
        return {key.name: obj for key, obj in found.items()}

    for name, text in files.items():
        (tmp_path / name).write_text(text)
    before = start()
    assert sorted(parsed) == sorted(files)
    (tmp_path / "edited.yaml").write_text(service("edited", 81))
    (tmp_path / "fewer.yaml").write_text(service("first"))
    (tmp_path / "moved.yaml").rename(tmp_path / "renamed.yaml")
    parsed.clear()
    after = start()
    assert sorted(parsed) == ["edited.yaml", "fewer.yaml", "half.yaml", "renamed.yaml"]
    assert all(after[name] == before[name] for name in ("same", "other", "first"))
    assert after["edited"]["spec"]["ports"][0]["port"] == 81
    assert set(after) == {"same", "other", "edited", "first", "moved"}
    monkeypatch.setattr(documents, "_release", lambda: "another release, which may read files differently")
    parsed.clear()
    assert start() == after
    assert "same.yaml" in parsed


def test_a_lease_does_not_wait_for_other_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a burst of statuses, the leader would otherwise lose its lease."""
    go_on = threading.Event()

    def slow(self: ManifestState, *arguments: object) -> None:
        go_on.wait(10)

    async def main() -> None:
        (tmp_path / "a.yaml").write_text(service("web"))
        async with opened(tmp_path) as (cluster, _):
            monkeypatch.setattr(ManifestState, "apply_status", slow)
            writes = [
                asyncio.create_task(cluster.apply_status(Kind.SERVICE, "web", "shop", {"x": 1}, owner="a", deadline=20))
                for _ in range(32)
            ]
            await asyncio.sleep(0)
            try:
                lease = await cluster.write_lease(LeaseRecord("porterlb", "a", 4.0), deadline=5.0)
                assert await cluster.read_lease("porterlb") == lease
                assert not any(write.done() for write in writes)
            finally:
                go_on.set()
                await asyncio.gather(*writes)

    asyncio.run(main())
