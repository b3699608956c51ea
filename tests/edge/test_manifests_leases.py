"""Leases in a folder shared by several processes: compare-and-swap that loses nothing and that no process can block."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from porterlb.cluster import Conflict, Denied, Kind, LeaseRecord, Unavailable
from porterlb.edge.manifests import ManifestsCluster

COUNTER = """
import asyncio, sys
from dataclasses import replace
from porterlb.cluster import Conflict, LeaseRecord
from porterlb.edge.manifests import ManifestsCluster

async def main(path, me, times):
    cluster = ManifestsCluster(path)
    done = 0
    print("ready", flush=True)
    while done < times:
        old = await cluster.read_lease("count")
        new = replace(old, holder=me, renewals=old.renewals + 1) if old else LeaseRecord("count", me, 4.0, renewals=1)
        try:
            await cluster.write_lease(new)
            done += 1
        except Conflict:
            pass
    await cluster.close()
    print("done", flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


NEW = LeaseRecord("count", "other", 4.0)


def start(path: Path, me: str, times: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COUNTER, str(path), me, str(times)], stdout=subprocess.PIPE, text=True
    )


def test_nothing_is_lost_between_processes(tmp_path: Path) -> None:
    """Each acknowledged increment is present in the end, and no increment is present twice."""
    processes = [start(tmp_path, f"p{i}", 60) for i in range(4)]
    try:
        for process in processes:
            assert process.wait(90) == 0
    finally:
        for process in processes:
            process.kill()
            process.communicate()

    async def main() -> None:
        cluster = ManifestsCluster(tmp_path)
        lease = await cluster.read_lease("count")
        await cluster.close()
        assert lease and lease.renewals >= 240
        # If the next write is faster than a writer's own check, the write is reported as a conflict and repeated. There
        # may be a few more increments than acknowledged ones, but never fewer.
        assert lease.renewals < 300

    asyncio.run(main())
    assert len(list((tmp_path / ".porterlb/leases/count").iterdir())) <= 10
    assert not list((tmp_path / ".porterlb/tmp").iterdir())


def test_a_stopped_process_blocks_nobody(tmp_path: Path) -> None:
    """It is stopped again and again at arbitrary points of its writes; the others continue each time."""
    process = start(tmp_path, "stopped", 1_000_000)

    async def main() -> None:
        cluster = ManifestsCluster(tmp_path)
        slowest = 0.0
        try:
            for _ in range(40):
                await asyncio.sleep(0.01)
                os.kill(process.pid, signal.SIGSTOP)
                for _ in range(3):
                    began = time.perf_counter()
                    old = await cluster.read_lease("count")
                    with contextlib.suppress(Conflict):  # the process's last write may still have come first
                        await cluster.write_lease(replace(old, holder="other") if old else NEW)
                    slowest = max(slowest, time.perf_counter() - began)
                os.kill(process.pid, signal.SIGCONT)
        finally:
            os.kill(process.pid, signal.SIGCONT)
            await cluster.close()
        assert slowest < 1.0, slowest  # a few ms on an idle machine

    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        asyncio.run(main())
    finally:
        process.kill()
        process.communicate()


def test_create_replace_conflict_delete(tmp_path: Path) -> None:
    async def main() -> None:
        one, two = ManifestsCluster(tmp_path), ManifestsCluster(tmp_path)
        assert await one.read_lease("porterlb") is None
        first = await one.write_lease(LeaseRecord("porterlb", "a", 4.0, annotations={"x": "y"}))
        assert first.version
        assert await two.read_lease("porterlb") == first
        with pytest.raises(Conflict):
            await two.write_lease(LeaseRecord("porterlb", "b", 4.0))
        second = await two.write_lease(replace(first, holder="b", transitions=1))
        with pytest.raises(Conflict):
            await one.write_lease(first)
        with pytest.raises(Unavailable):
            await one.write_lease(second, deadline=0.0)
        assert await one.leases() == [second]
        await one.delete_lease("porterlb")
        assert await two.leases() == [] and await two.read_lease("porterlb") is None
        with pytest.raises(Conflict):
            await two.write_lease(second)
        third = await two.write_lease(LeaseRecord("porterlb", "c", 4.0))
        assert third.version not in (first.version, second.version)
        with pytest.raises(Denied):
            await one.write_lease(LeaseRecord("../../etc/x", "c", 4.0))
        await one.close()
        await two.close()

    asyncio.run(main())


def test_a_writer_from_long_ago_is_refused(tmp_path: Path) -> None:
    """The file of its number has since been removed, and could be created again: that must not count as success."""

    async def main() -> None:
        cluster = ManifestsCluster(tmp_path)
        old = await cluster.write_lease(LeaseRecord("porterlb", "old", 4.0))
        current = old
        for number in range(30):
            current = await cluster.write_lease(replace(current, holder="new", renewals=number))
        leases = cluster._leases
        with pytest.raises(Conflict):  # as if it had been stopped between its read and its write
            leases._append("porterlb", 2, {"holder": "old", "duration": 4, "transitions": 0, "renewals": 0}, 1e18)
        assert await cluster.read_lease("porterlb") == current
        await cluster.close()

    asyncio.run(main())


def test_the_hello_key_is_made_once(tmp_path: Path) -> None:
    async def main() -> None:
        clusters = [ManifestsCluster(tmp_path) for _ in range(8)]
        keys = await asyncio.gather(*(cluster.hello_key() for cluster in clusters))
        assert len(set(keys)) == 1 and len(keys[0]) >= 32
        for cluster in clusters:
            await cluster.close()

    asyncio.run(main())
    assert (tmp_path / ".porterlb/hello.key").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_a_stopped_process_keeps(tmp_path: Path) -> None:
    """The objects' records are written under a short lock. A writer that finds it held forever reports that in time."""

    async def main() -> None:
        (tmp_path / "a.yaml").write_text(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {type: LoadBalancer}\n"
        )
        cluster = ManifestsCluster(tmp_path)
        await cluster.objects(Kind.SERVICE)
        holder = await asyncio.to_thread(
            subprocess.Popen,
            [
                sys.executable,
                "-c",
                "import sys, time; from pathlib import Path; from porterlb.edge.manifests.state_dir import StateDir\n"
                "with StateDir(Path(sys.argv[1])).locked('Service shop/web', float('inf')):\n"
                "    print('held', flush=True); time.sleep(60)",
                str(tmp_path),
            ],
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout
            assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
            os.kill(holder.pid, signal.SIGSTOP)
            with pytest.raises(Unavailable):
                await cluster.apply_status(Kind.SERVICE, "web", "shop", {"x": 1}, owner="a", deadline=0.3)
            await cluster.write_lease(LeaseRecord("porterlb", "a", 4.0))
        finally:
            holder.kill()
            holder.communicate()
        await cluster.apply_status(Kind.SERVICE, "web", "shop", {"x": 1}, owner="a")
        await cluster.close()

    asyncio.run(main())
