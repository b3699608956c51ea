"""The whole manager without its speakers: an exception in any collaborator ends neither the process nor other parts."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import urllib.request
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from porterlb import app, messages, reconcile, supervise
from porterlb.core.model import Member
from porterlb.core.observed import BgpReport, Nic, SessionState, WireReport
from porterlb.edge import membership
from porterlb.edge.manifests import ManifestsCluster
from porterlb.edge.manifests import directory as manifests_directory
from porterlb.settings import Settings
from tests.edge.test_page_server import Reader

POOL = """
apiVersion: network.kubesphere.io/v1alpha2
kind: Eip
metadata: {name: pool}
spec: {address: 10.0.0.100-10.0.0.199}
---
apiVersion: v1
kind: Node
metadata: {name: node-a}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}]}
---
apiVersion: v1
kind: Secret
metadata: {name: s, namespace: porterlb-system}
stringData: {password: x}
---
apiVersion: network.kubesphere.io/v1alpha2
kind: BgpPeer
metadata: {name: r1}
spec: {conf: {neighborAddress: 10.0.0.9, peerAs: 64500, authPasswordSecret: {name: s}}}
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: web-{number}}}
spec:
  type: LoadBalancer
  ports: [{{port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{number}, labels: {{kubernetes.io/service-name: web-{number}}}}}
addressType: IPv4
endpoints: [{{addresses: [10.244.0.1], nodeName: node-a}}]
"""


class Speaker:
    """A speaker that applies every wanted set at once, and sends reports from time to time."""

    def __init__(self, report: Callable[[Any], None], **_: Any) -> None:
        self._report = report
        self.stopping = asyncio.Event()
        self.reports = 0

    def beat(self) -> None:
        pass

    def said(self) -> Any:
        raise NotImplementedError

    async def run(self) -> None:
        while not self.stopping.is_set():
            self.reports += 1
            self._report(self.said())
            await asyncio.sleep(0.05)


class Bgp(Speaker):
    token = 0
    running = True

    def hear_bfd(self, sessions: Any) -> None:
        pass

    def want(self, wanted: Any, token: int) -> None:
        self.token = token

    def said(self) -> BgpReport:
        return BgpReport(applied=self.token)

    async def stop(self, *, withdraw: bool) -> None:
        self.stopping.set()


class LateSession(Bgp):
    """The session with r1 comes up when it has been wanted for a while."""

    wanted_at = 0.0
    ended: Any = None

    def want(self, wanted: Any, token: int) -> None:
        super().want(wanted, token)
        if wanted.sessions and not self.wanted_at:
            self.wanted_at = time.monotonic()

    def said(self) -> BgpReport:
        up = self.wanted_at and time.monotonic() > self.wanted_at + 0.5
        return BgpReport(
            applied=self.token, sessions={"r1": SessionState("r1", "established" if up else "connect", 0.0)}
        )

    async def stop(self, *, withdraw: bool) -> None:
        self.ended = self.said().sessions["r1"].up
        await super().stop(withdraw=withdraw)


class Wire(Speaker):
    wanted: Any = None
    dead: frozenset[str] = frozenset()

    def want(self, wanted: Any) -> None:
        self.wanted = wanted

    def said(self) -> WireReport:
        nic = Nic("eth0", 2, b"\x02\0\0\0\0\1", True, (ip_interface("10.0.0.1/24"),))
        check = self.wanted.check if self.wanted else frozenset()
        digest = self.wanted.digest if self.wanted else 0
        return WireReport(nics=(nic,), dead=self.dead, clear=frozenset(check), applied=digest)

    async def ask(self, addresses: Any, within: float) -> Any:
        raise TimeoutError("there is no segment")

    async def stop(self) -> None:
        self.stopping.set()


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "BgpSpeaker", Bgp)
    monkeypatch.setattr(app, "Layer2Speaker", Wire)
    monkeypatch.setattr(app, "TAKE_OVER", 0.0)


class World:
    """One running manager on a directory of manifests."""

    def __init__(self, folder: Path, manager: Any) -> None:
        self.folder = folder
        self.manager = manager
        self.number = 0

    async def serves_a_new_service(self, within: float) -> None:
        """A new Service gets its address: watch, plan, lease and status all work."""
        self.number += 1
        name = f"web-{self.number}"
        (self.folder / f"{name}.yaml").write_text(SERVICE.format(number=self.number))
        record = self.folder / ".porterlb" / "status" / "Service" / f"default_{name}.json"
        async with asyncio.timeout(within):
            while not record.exists() or "10.0.0." not in json.dumps(json.loads(record.read_text())["owners"]):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def stir(self) -> None:
        """Causes a change for every part."""
        self.number += 1
        (self.folder / f"web-{self.number}.yaml").write_text(SERVICE.format(number=self.number))
        self.manager.membership.describe(Member("n1", "10.0.0.1", 7473 + self.number, 0))
        self.manager.membership._on_change()
        self.manager.membership._on_lease("porterlb", None)
        self.manager.leader._on_change()
        self.manager.passwords._known = {}
        self.manager.passwords._wake.set()

    async def alive(self) -> None:
        url = f"http://127.0.0.1:{self.manager.http.port}/healthz"
        assert await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read()) == b"ok\n"


COLLABORATORS: list[tuple[str, Callable[[Any], Any], str]] = [
    ("the cluster's watch", lambda m: m.reconciler.cluster, "watch"),
    ("reading a Secret", lambda m: m.reconciler.cluster, "get"),
    ("reading a Lease", lambda m: m.reconciler.cluster, "read_lease"),
    ("writing a Lease", lambda m: m.reconciler.cluster, "write_lease"),
    ("deleting a Lease", lambda m: m.reconciler.cluster, "delete_lease"),
    ("writing a status", lambda m: m.reconciler.cluster, "apply_status"),
    ("writing an Event", lambda m: m.reconciler.cluster, "emit"),
    ("reading a manifest", lambda m: manifests_directory, "load"),
    ("planning", lambda m: reconcile, "plan_steps"),
    ("what comes before a plan", lambda m: m.passwords, "want"),
    ("telling ExaBGP", lambda m: m.bgp, "want"),
    ("telling the wire process", lambda m: m.wire, "want"),
    ("a report of ExaBGP", lambda m: m.reconciler, "on_bgp"),
    ("a report of the wire process", lambda m: m.reconciler, "on_wire"),
    ("what ExaBGP is", lambda m: m.bgp, "said"),
    ("what the wire process is", lambda m: m.wire, "said"),
    ("counting reports", lambda m: m.metrics, "heard"),
    ("counting plans", lambda m: m.metrics, "planned"),
    ("counting modes", lambda m: m.metrics, "saw"),
    ("counting writes", lambda m: m.metrics, "wrote"),
    ("counting Events", lambda m: m.metrics, "told"),
    ("the status writer", lambda m: m.status, "update"),
    ("news of the leader", lambda m: m.reconciler, "on_leader"),
    ("news of members", lambda m: m.reconciler, "on_members"),
    ("news of passwords", lambda m: m.passwords, "_changed"),
    ("news of a Lease", lambda m: m.leader, "heard"),
    ("taking over an object", lambda m: m.reconciler.objects, "change"),
]


def test_what_a_collaborator_raises_ends_neither_the_process_nor_the_other_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each one raises at every call for a short time. Meanwhile the process answers; then a new Service is served."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(supervise, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(reconcile, "PLAN_AGAIN", 0.1)
    monkeypatch.setattr(membership, "SWEEP", 0.1)
    monkeypatch.setattr(messages.Messages, "vanished", lambda _: frozenset({"gone"}))
    folder, work = tmp_path / "cluster", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (folder / "pool.yaml").write_text(POOL)

    async def main() -> None:
        settings = Settings("node-a", cluster=f"dir:{folder}", http_port=0, hello_address="10.0.0.1")
        cluster = ManifestsCluster(folder)
        manager = app.Manager(settings, cluster, b"k" * 32, work)
        stop = asyncio.Event()
        running = asyncio.create_task(manager.run(stop))
        world = World(folder, manager)
        try:
            await world.serves_a_new_service(within=30)
            for what, owner, method in COLLABORATORS:
                called = 0

                def fails(*_: Any, **__: Any) -> Any:
                    nonlocal called
                    called += 1
                    raise ZeroDivisionError(what)  # noqa: B023 — called in this turn only

                wire: Any = manager.wire
                reports = wire.reports
                with monkeypatch.context() as patched:
                    patched.setattr(owner(manager), method, fails)
                    if what == "the cluster's watch":  # it is started again once its reader has failed
                        patched.setattr(manager.reconciler.objects, "change", fails)
                    world.stir()
                    async with asyncio.timeout(20):
                        while not called or (wire.reports == reports and method not in ("said", "watch")):  # noqa: ASYNC110
                            await asyncio.sleep(0.02)
                    await asyncio.sleep(0.1)
                    await world.alive()
                    assert not running.done(), what
                try:
                    await world.serves_a_new_service(within=30)
                except TimeoutError:
                    pytest.fail(f"nothing works after failures of {what}: {manager.parts.failures}")
                assert not running.done(), what
        finally:
            stop.set()
            code = await running
            await cluster.close()
        assert code == 0

    asyncio.run(main())


def test_a_part_that_ends_ends_the_manager(tmp_path: Path) -> None:
    """A manager that lacks one of its parts must not look alive."""
    (tmp_path / "pool.yaml").write_text(POOL)

    async def main() -> int:
        cluster = ManifestsCluster(tmp_path)
        manager = app.Manager(Settings("node-a", http_port=0), cluster, b"k" * 32, tmp_path)
        manager.wire.stopping.set()  # type: ignore[attr-defined]
        async with asyncio.timeout(20):
            code = await manager.run(asyncio.Event())
        await cluster.close()
        return code

    assert asyncio.run(main()) == 1


def test_an_open_status_page_is_told_of_a_death(tmp_path: Path) -> None:
    folder, work = tmp_path / "cluster", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (folder / "pool.yaml").write_text(POOL + "---" + POOL.split("---")[1].replace("node-a", "node-b"))

    async def main() -> None:
        settings = Settings("node-a", cluster=f"dir:{folder}", http_port=0, hello_address="10.0.0.1")
        cluster = ManifestsCluster(folder)
        manager = app.Manager(settings, cluster, b"k" * 32, work)
        stop = asyncio.Event()
        running = asyncio.create_task(manager.run(stop))
        try:
            await World(folder, manager).serves_a_new_service(within=30)
            page = await Reader.open(manager.http)
            name, shown = await page.event()
            assert (name, shown["node"], shown["nodes"]["node-b"]["dead"]) == ("page", "node-a", False)
            manager.wire.dead = frozenset({"node-b"})  # type: ignore[attr-defined]
            while name != "page" or not shown["nodes"]["node-b"]["dead"]:
                name, shown = await page.event(within=10)
            assert shown["nodes"]["node-b"]["deadBy"] == ["node-a"]
            assert shown["problems"][0]["subject"] == "node-b"
            page.close()
        finally:
            stop.set()
            await running
            await cluster.close()

    asyncio.run(main())


@pytest.mark.parametrize("limit", [10.0, 0.0])
def test_a_manager_that_is_stopped_as_it_starts_first_waits_for_its_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    """Their end makes routers drop the routes of a predecessor that was killed. Later, nothing is waited for."""
    monkeypatch.setattr(app, "BgpSpeaker", LateSession)
    monkeypatch.setattr(app, "FIRST_SESSIONS", limit)
    folder, work = tmp_path / "cluster", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    (folder / "pool.yaml").write_text(POOL.replace("peerAs: 64500", "peerAs: 64500, localAs: 64501"))

    async def main() -> bool:
        cluster = ManifestsCluster(folder)
        settings = Settings("node-a", cluster=f"dir:{folder}", http_port=0, hello_address="10.0.0.1")
        manager = app.Manager(settings, cluster, b"k" * 32, work)
        stop = asyncio.Event()
        stop.set()
        async with asyncio.timeout(20):
            assert await manager.run(stop) == 0
        await cluster.close()
        ended: Any = manager.bgp
        return bool(ended.ended)

    assert asyncio.run(main()) is (limit > 0)
