"""Leadership and membership on a real folder, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.cluster import LeaseRecord
from porterlb.core import membership
from porterlb.core.lease import Timing
from porterlb.core.model import Member
from porterlb.edge.leader import Leader, boottime
from porterlb.edge.manifests import ManifestsCluster
from porterlb.edge.membership import Membership

QUICK = Timing(duration=0.8, renew_deadline=0.5, retry=0.1)

CANDIDATE = """
import asyncio, sys, time
from porterlb.core.lease import Timing
from porterlb.edge.leader import Leader, boottime
from porterlb.edge.manifests import ManifestsCluster

def say(word):
    # Milliseconds of a clock that all processes share.
    print(word, boottime(), flush=True)

async def main(path, node):
    cluster = ManifestsCluster(path)
    leader = Leader(cluster, node, Timing(0.8, 0.5, 0.1), on_gain=lambda: say("gain"), on_loss=lambda: say("loss"))
    await leader.run()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def until(true: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 — what is waited for happens in other processes
            await asyncio.sleep(0.01)


def test_one_leads_and_hands_over(tmp_path: Path) -> None:
    async def main() -> None:
        clusters = [ManifestsCluster(tmp_path) for _ in range(3)]
        told: list[str] = []
        leaders = [
            Leader(
                cluster,
                f"n{i}",
                QUICK,
                on_gain=lambda i=i: told.append(f"+{i}"),
                on_loss=lambda i=i: told.append(f"-{i}"),
            )
            for i, cluster in enumerate(clusters)
        ]
        tasks = [asyncio.create_task(leader.run()) for leader in leaders]
        await until(lambda: any(leader.leading for leader in leaders))
        for _ in range(30):
            await asyncio.sleep(0.02)
            assert sum(leader.leading for leader in leaders) == 1
        first = next(leader for leader in leaders if leader.leading)
        await until(lambda: len({leader.leader for leader in leaders}) == 1)
        assert first.leader == first.identity.split("_")[0] and 0 < first.remaining() <= 0.5
        began = time.perf_counter()
        await first.release()
        assert not first.leading
        await asyncio.wait_for(tasks[leaders.index(first)], 5)
        await until(lambda: any(leader.leading for leader in leaders))
        assert time.perf_counter() - began < 0.7, "taken without waiting for the lease to run out"
        second = next(leader for leader in leaders if leader.leading)
        lease = await clusters[0].read_lease("porterlb")
        assert lease is not None and lease.transitions == 2
        await until(lambda: len(told) == 3)  # it is notified shortly after it starts to lead
        assert told == [f"+{leaders.index(first)}", f"-{leaders.index(first)}", f"+{leaders.index(second)}"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for cluster in clusters:
            await cluster.close()

    asyncio.run(main())


def test_the_directory_goes_away(tmp_path: Path) -> None:
    """A leader that cannot renew stops by itself, in time, and leads again when the directory is back."""
    folder = tmp_path / "cluster"
    folder.mkdir()

    async def main() -> None:
        cluster = ManifestsCluster(folder)
        lost: list[float] = []
        leader = Leader(cluster, "n1", QUICK, on_loss=lambda: lost.append(boottime()))
        task = asyncio.create_task(leader.run())
        await until(lambda: leader.leading)
        folder.rename(tmp_path / "aside")
        gone = boottime()
        await until(lambda: lost)
        assert lost[0] - gone < 0.5 + 0.3
        (tmp_path / "aside").rename(folder)
        await until(lambda: leader.leading)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.close()

    asyncio.run(main())


def test_a_leader_that_is_stopped_and_continued(tmp_path: Path) -> None:
    """It has lost the lease when it wakes up and knows it at once. The two never led at the same time."""
    processes = [
        subprocess.Popen([sys.executable, "-c", CANDIDATE, str(tmp_path), f"n{i}"], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    lines: list[list[tuple[str, float]]] = [[], []]

    def listen(i: int) -> None:
        out = processes[i].stdout
        assert out
        for line in out:
            word, at = line.split()
            lines[i].append((word, float(at)))

    async def main() -> None:
        readers = [asyncio.create_task(asyncio.to_thread(listen, i)) for i in range(2)]
        try:
            await until(lambda: lines[0] or lines[1], 20)
            for _ in range(3):
                # The current leader is stopped, for longer than its lease.
                leading = [i for i in range(2) if lines[i] and lines[i][-1][0] == "gain"]
                assert len(leading) == 1
                (one,), other = leading, 1 - leading[0]
                count = len(lines[other])
                os.kill(processes[one].pid, signal.SIGSTOP)
                await until(lambda other=other, count=count: len(lines[other]) > count)
                await asyncio.sleep(0.2)
                continued = boottime()
                os.kill(processes[one].pid, signal.SIGCONT)
                await until(lambda one=one: lines[one][-1][0] == "loss")
                assert lines[one][-1][1] - continued < 1.0
                await asyncio.sleep(0.5)
                assert lines[other][-1][0] == "gain", "the one that was stopped took nothing back"
        finally:
            for process in processes:
                os.kill(process.pid, signal.SIGCONT)
                process.kill()
            await asyncio.gather(*readers)
            for process in processes:
                process.communicate()

    asyncio.run(main())


# --- membership


def test_members_find_one_another(tmp_path: Path) -> None:
    async def main() -> None:
        clusters = [ManifestsCluster(tmp_path) for _ in range(2)]
        changes: list[int] = []
        subnets = (ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64"))
        one = Membership(clusters[0], "n1", "192.0.2.1", 7473, subnets, on_change=lambda: changes.append(1))
        two = Membership(clusters[1], "n2", "192.0.2.2", 7473)
        tasks = [asyncio.create_task(each.run()) for each in (one, two)]
        await until(lambda: set(one.members) == set(two.members) == {"n1", "n2"})
        assert two.members["n1"] == Member("n1", "192.0.2.1", 7473, one.members["n1"].boot, subnets)
        assert changes
        one.describe(Member("n1", "192.0.2.9", 7474, 0))
        await until(lambda: two.members["n1"].address == "192.0.2.9")
        assert two.members["n1"].boot == one.members["n1"].boot
        # Invalid Leases of others are ignored, and have no effect.
        await clusters[0].write_lease(LeaseRecord("porterlb-bad", "x", 4.0, annotations={membership.ANNOTATION: "{"}))
        await clusters[0].write_lease(LeaseRecord("porterlb", "x", 4.0))
        # A running replica writes its Lease again at once.
        tasks[1].cancel()
        await asyncio.wait(tasks[1:])
        await clusters[0].delete_lease("porterlb-n2")
        await until(lambda: set(one.members) == {"n1"})
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for cluster in clusters:
            await cluster.close()

    asyncio.run(main())


def test_a_sign_of_life_reaches_the_others_once_each(tmp_path: Path) -> None:
    async def main() -> None:
        clusters = [ManifestsCluster(tmp_path) for _ in range(3)]
        signs: list[str] = []
        changes: list[int] = []
        one = Membership(clusters[0], "n1", "192.0.2.1", 7473)
        two = Membership(
            clusters[1], "n2", "192.0.2.2", 7473, on_sign=signs.append, on_change=lambda: changes.append(len(signs))
        )
        tasks = [asyncio.create_task(each.run()) for each in (one, two)]
        await until(lambda: set(one.members) == set(two.members) == {"n1", "n2"})
        one.sign(False)
        changes.clear()
        one.sign(True)
        await until(lambda: signs == ["n1"])
        one.sign(True)
        await until(lambda: signs == ["n1", "n1"])
        one.describe(Member("n1", "192.0.2.9", 7474, 0))
        await until(lambda: two.members["n1"].port == 7474)
        assert signs == ["n1", "n1"], "a Lease with the sign that was there before says nothing new"
        changes.clear()
        one.sign(False)
        lease = membership.lease_name("n1")

        for _ in range(200):
            found = await clusters[2].read_lease(lease)
            if found and membership.SIGN not in found.annotations:
                break
            await asyncio.sleep(0.02)
        assert found and membership.SIGN not in found.annotations
        assert signs == ["n1", "n1"] and changes == [], "the members are the same"
        one.sign(True)
        await until(lambda: len(signs) == 3)
        late: list[str] = []
        three = Membership(clusters[2], "n3", "192.0.2.3", 7473, on_sign=late.append)
        tasks.append(asyncio.create_task(three.run()))
        await until(lambda: set(three.members) == {"n1", "n2", "n3"})
        assert late == [], "nobody knows when a sign was written that was there before"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for cluster in clusters:
            await cluster.close()

    asyncio.run(main())


def test_nothing_is_said_before_there_is_an_address(tmp_path: Path) -> None:
    async def main() -> None:
        cluster = ManifestsCluster(tmp_path)
        one = Membership(cluster, "n1", "", 7473)
        task = asyncio.create_task(one.run())
        await asyncio.sleep(0.3)
        assert await cluster.leases() == []
        one.describe(Member("n1", "192.0.2.1", 7473, 0))
        await until(lambda: set(one.members) == {"n1"})
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.close()

    asyncio.run(main())


def test_boot_numbers_rise_strictly(tmp_path: Path) -> None:
    async def main() -> None:
        boot = 0
        for _ in range(3):
            cluster = ManifestsCluster(tmp_path)
            member = Membership(cluster, "n1", "192.0.2.1", 7473)
            assert await member.claim()
            task = asyncio.create_task(member.run())
            await until(lambda: any(m.boot > boot for m in member.members.values()))  # noqa: B023
            boot = member.members["n1"].boot
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await cluster.close()

    asyncio.run(main())


def test_g7_of_two_managers_with_one_name_the_younger_one_ends(tmp_path: Path) -> None:
    async def main() -> None:
        clusters = [ManifestsCluster(tmp_path) for _ in range(2)]
        told: list[str] = []
        one = Membership(
            clusters[0],
            "n1",
            "192.0.2.1",
            7473,
            on_challenge=lambda: told.append("one challenged"),
            on_end=lambda: told.append("one ends"),
        )
        two = Membership(clusters[1], "n1", "192.0.2.2", 7473, on_end=lambda: told.append("two ends"))
        assert await one.claim()
        task = asyncio.create_task(one.run())
        await until(lambda: set(one.members) == {"n1"})
        begun = time.monotonic()
        assert not await two.claim()
        assert time.monotonic() - begun < 1.0
        assert sorted(told) == ["one challenged", "two ends"]
        assert one.members["n1"].address == "192.0.2.1"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # Now the first replica is dead: its Lease is taken over.
        three = Membership(clusters[1], "n1", "192.0.2.2", 7473, on_end=lambda: told.append("three ends"))
        assert await three.claim()
        task = asyncio.create_task(three.run())
        await until(lambda: "n1" in three.members and three.members["n1"].address == "192.0.2.2")
        assert three.members["n1"].boot > one.members["n1"].boot
        # The first replica was only stopped, and continues: it finds that it no longer owns the name.
        task_of_one = asyncio.create_task(one.run())
        await until(lambda: "one ends" in told)
        await asyncio.sleep(0.2)
        assert three.members["n1"].address == "192.0.2.2" and "three ends" not in told
        for each in (task, task_of_one):
            each.cancel()
        await asyncio.gather(task, task_of_one, return_exceptions=True)
        for cluster in clusters:
            await cluster.close()

    asyncio.run(main())


def test_members_are_remembered_through_an_outage(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()

    async def main() -> None:
        cluster = ManifestsCluster(folder)
        one = Membership(cluster, "n1", "192.0.2.1", 7473)
        await cluster.write_lease(
            LeaseRecord("porterlb-n2", "n2", 4.0, annotations=membership.described(Member("n2", "192.0.2.2", 1, 5)))
        )
        task = asyncio.create_task(one.run())
        await until(lambda: set(one.members) == {"n1", "n2"})
        folder.rename(tmp_path / "aside")
        folder.mkdir()
        await asyncio.sleep(0.8)
        assert set(one.members) == {"n1", "n2"}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cluster.close()

    asyncio.run(main())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=9), children, max_size=3),
    max_leaves=8,
)


@given(
    name=st.text(max_size=20) | st.just("porterlb-n1"),
    content=st.text(max_size=40)
    | st.fixed_dictionaries(
        {}, optional={"address": JSON | st.just("192.0.2.1"), "port": JSON, "boot": JSON, "subnets": JSON}
    ).map(json.dumps),
)
def test_parsing_never_raises(name: str, content: str) -> None:
    parsed = membership.parse(name, {membership.ANNOTATION: content})
    assert (parsed.value is None) == bool(parsed.problems)


@pytest.mark.parametrize("carried", [{}, {membership.ANNOTATION: None}, {membership.ANNOTATION: "[" * 100_000}])
def test_parsing_odd_annotations(carried: Mapping[str, Any]) -> None:
    assert membership.parse("porterlb-n1", carried).value is None


def test_what_is_described_is_parsed() -> None:
    member = Member("n1", "2001:db8::1", 7473, 12, (ip_interface("10.0.0.1/8"),))
    assert membership.parse(membership.lease_name("n1"), membership.described(member)).value == member
