"""A recording of the reconcile loop replays to the same decisions, and contains no secrets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from porterlb.cli import bundle
from porterlb.cli.main import run
from porterlb.cli.replicas import Asked
from porterlb.cluster import Kind
from porterlb.core.bgp.reasons import Loss, LossKind, Trouble, TroubleKind
from porterlb.core.desired import DesiredBgp, DesiredWire
from porterlb.core.model import Member, ServiceKey
from porterlb.core.observed import BgpReport, FreshReplica, Nic, SessionState, WireReport
from porterlb.core.plan import Plan
from porterlb.core.proxy_wait import NewHop
from porterlb.core.record import file
from porterlb.core.record.codec import NotRecordable
from porterlb.core.record.manager import ManagerLog
from porterlb.core.record.objects import recorded
from porterlb.edge.recording import Recording
from porterlb.reconcile import KINDS, Reconciler
from porterlb.replay import ReplayedLine, replayed
from porterlb.settings import Settings

NODES = ("node-a", "node-b", "node-c")
PASSWORD, SPARE, TOKEN = "hunter22-hunter22", "correct horse", "eyJhbGciOi.secret"
SECRETS = (PASSWORD, SPARE, TOKEN)
PLANS = 16
"""The number of plans in the sequence."""
COPY = "kubectl.kubernetes.io/last-applied-configuration"


class Stage:
    """A loop whose clock and inputs the test controls. Its speakers have no listener."""

    def __init__(self, limit: int = 1 << 22) -> None:
        self.now = 1000.0
        self.settings = Settings(node="node-a", record_ring=limit)
        self.recording = Recording(self.settings, "0.2.0", self.wire_part)
        self.loop = Reconciler(
            self.settings,
            None,  # type: ignore[arg-type]
            self,
            self,
            lambda known, seconds: None,
            lambda known, news: None,
            lambda: None,
            lambda hops: None,
            lambda nodes: None,
            log=self.recording.log,
            clock=lambda: self.now,
        )
        self.report = WireReport()
        self.version = 0

    async def wire_part(self, within: float) -> list[str]:
        return []

    def want(self, wanted: DesiredBgp | DesiredWire, token: int = 0) -> None:
        pass

    def put(self, kind: Kind, name: str, namespace: str = "", **parts: Any) -> None:
        self.version += 1
        metadata = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(self.version), "generation": 1}
        if namespace:
            metadata["namespace"] = namespace
        obj = {**parts, "metadata": {**metadata, **parts.get("metadata", {})}}
        self.loop.objects.change(kind.kind, obj)

    def wire(self, **fields: Any) -> None:
        self.report = replace(self.report, answering={}, **fields)
        self.loop.on_wire(self.report)

    def plan(self, after: float = 0.1, *, meanwhile: bool = False) -> Plan:
        """``meanwhile``: an input arrives while the plan is made; it belongs to the next plan."""
        self.now += after
        planning = self.loop.begin_plan(self.now)
        while (made := self.loop.step_plan(planning)) is None:
            if meanwhile:
                self.loop.on_leader("node-c")
                meanwhile = False
        self.loop.end_plan(planning, made)
        return made

    def text(self) -> list[str]:
        return asyncio.run(self.recording.text()).splitlines(keepends=True)

    # ---- a sequence of inputs

    def begin(self) -> None:
        for kind in KINDS:
            self.loop.on_synced(kind)
        for number, name in enumerate(NODES, 11):
            status = {
                "addresses": [{"type": "InternalIP", "address": f"10.77.0.{number}"}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "images": [{"names": [TOKEN]}],
            }
            self.put(Kind.NODE, name, spec={}, status=status, metadata={"annotations": {"vault/token": TOKEN}})
        self.put(Kind.EIP, "pool", spec={"address": "10.77.0.200-10.77.0.209"})
        self.put(Kind.EIP, "routed", spec={"address": "172.16.0.0/28", "protocol": "bgp"})
        self.put(Kind.BGP_CONF, "default", spec={"as": 64512})
        conf = {"neighborAddress": "10.77.0.1", "peerAs": 64500, "authPassword": PASSWORD}
        annotations = {COPY: json.dumps({"spec": {"conf": conf}})}
        self.put(Kind.BGP_PEER, "tor", spec={"conf": conf}, metadata={"annotations": annotations})
        wrong = {"neighborAddress": "10.77.0.2", "peerAs": 64500, "authPassword": 123456789}
        self.put(Kind.BGP_PEER, "wrong", spec={"conf": wrong, "apiToken": TOKEN})
        named = {"neighborAddress": "10.77.0.3", "peerAs": 64500, "authPasswordSecret": {"name": "bgp", "key": "tor3"}}
        self.put(Kind.BGP_PEER, "named", spec={"conf": named})
        self.put(Kind.SECRET, "bgp", "porterlb-system", data={"tor3": SPARE})
        for name, eip in (("web", "pool"), ("mail", "routed")):
            self.service(name, eip)
        nic = Nic("eth0", 2, b"\2\0\0\0\0\1", True, (ip_interface("10.77.0.11/24"),))
        self.loop.on_members(self.members(*NODES))
        self.wire(nics=(nic,), probed=frozenset(NODES[1:]), fresh=self.fresh("node-b", "node-c"))
        self.loop.on_leader("node-a")
        self.loop.on_named()

    def members(self, *nodes: str) -> dict[str, Member]:
        subnets = {node: (ip_interface(f"10.77.0.{number}/24"),) for number, node in enumerate(NODES, 11)}
        return {node: Member(node, str(subnets[node][0].ip), 7473, 1, subnets[node]) for node in nodes}

    def fresh(self, *nodes: str) -> dict[str, FreshReplica]:
        return {node: FreshReplica(node, 1, frozenset({"tor"}), "node-a") for node in nodes}

    def service(self, name: str, eip: str, held: str = "", nodes: Iterable[str] = NODES, version: str = "") -> None:
        self.put(
            Kind.SERVICE,
            name,
            "shop",
            spec={"type": "LoadBalancer", "ports": [{"port": 80}], "externalTrafficPolicy": "Local"},
            status={"loadBalancer": {"ingress": [{"ip": held}] if held else []}},
            metadata={"annotations": {"eip.porter.kubesphere.io/v1alpha2": eip, "example.org/api-key": TOKEN}},
        )
        endpoints = [{"addresses": ["10.244.0.1"], "nodeName": node, "conditions": {"ready": True}} for node in nodes]
        self.put(
            Kind.ENDPOINT_SLICE,
            f"{name}-1",
            "shop",
            addressType="IPv4",
            endpoints=endpoints,
            metadata={"labels": {"kubernetes.io/service-name": name}},
        )

    def session(self, state: str, **more: Any) -> None:
        self.loop.on_bgp(BgpReport({"tor": SessionState("tor", state, self.now, **more)}, applied=self.loop.token))

    def write_addresses(self) -> None:
        """Writes the decided addresses, as the status writer does."""
        assert self.loop.known is not None
        for key, allocation in self.loop.known.plan.services.items():
            self.service(key.name, allocation.eips[0], str(allocation.addresses[0]))

    def tell(self) -> None:
        self.begin()
        self.plan()
        self.loop.on_passwords({"named": SPARE})
        self.wire(clear=frozenset({ip_address("10.77.0.200")}))
        self.plan(meanwhile=True)
        self.plan()
        self.loop.on_leader("node-a")
        self.plan()
        self.write_addresses()
        self.session("established")
        self.plan()
        self.plan(12.0)
        self.wire(dead=frozenset({"node-c"}), fresh=self.fresh("node-b"))
        self.plan()
        self.loop.on_outage(f"the server has asked for the client to provide credentials: {PASSWORD} is wrong")
        self.wire(dead=frozenset(), fresh=self.fresh("node-b", "node-c"))
        self.plan()
        self.loop.on_outage("")
        self.loop.on_proxies(frozenset({"node-c"}))
        self.service("web", "pool", "10.77.0.200", ("node-b",))
        self.loop.on_delivering(frozenset({NewHop(ServiceKey("shop", "web"), "node-b")}))
        self.plan()
        loss = Loss(LossKind.OTHER, text=f"md5-password={PASSWORD}")
        self.session("idle", loss=loss)
        self.loop.on_bgp(
            replace(self.loop.inputs.bgp_report, trouble=Trouble(TroubleKind.RELOAD_REFUSED, text=PASSWORD))
        )
        self.put(Kind.EIP, "pool", spec={"address": "10.77.0.999"})  # wrong: the last good version stays
        self.plan()
        self.wire(doubt=True, dead=frozenset({"node-b", "node-c"}))
        self.plan()
        self.plan()
        self.wire(doubt=False, dead=frozenset(), claimed={ip_address("10.77.0.201"): b"\2\1\1\1\1\1"})
        self.loop.on_challenge()
        self.service("late", "pool")
        self.plan()
        self.loop.on_members(self.members("node-a"))
        self.plan()
        self.loop.objects.delete("Service", "shop", "mail")
        self.plan(5.0)
        self.loop.on_bounded(False)
        self.plan(31.0)


def steps(text: Iterable[str]) -> list[ReplayedLine]:
    return list(replayed(text)[1])


def differing(text: Iterable[str]) -> list[ReplayedLine]:
    return [step for step in steps(text) if step.differs]


@pytest.fixture(scope="module")
def whole() -> list[str]:
    stage = Stage()
    stage.tell()
    return stage.text()


def test_it_replays_to_the_same_decisions(whole: list[str]) -> None:
    found = steps(whole)
    plans = [step for step in found if step.line["what"] == "planned"]
    assert len(plans) == PLANS
    assert [step for step in found if step.differs] == []
    changed = {vip for step in plans for vip in step.did["vips"]}
    assert {"10.77.0.200", "172.16.0.0"} <= changed
    hops = {tuple(row["next_hops"]) for step in plans for row in step.did["vips"].values() if row}
    assert len(hops) > 2


def test_what_came_in_while_a_plan_was_made_belongs_to_the_next_one(whole: list[str]) -> None:
    lines = [json.loads(line) for line in whole]
    at = next(n for n, line in enumerate(lines) if line.get("what") == "leader" and line["value"] == "node-c")
    assert [line["what"] for line in lines[at - 1 : at + 2]] == ["begin", "leader", "planned"]
    moved = [*whole[: at - 1], whole[at], whole[at - 1], *whole[at + 1 :]]
    assert differing(moved)


@pytest.mark.parametrize("after", [1, 4, 8, 9, 10, 11, 14])
def test_its_oldest_part_may_be_gone(after: int) -> None:
    """A checkpoint before any plan, or in doubt, or with a wrong edit in force, is as good as the beginning."""
    stage = Stage()
    log = stage.recording.log
    assert log is not None
    planned = 0

    def begin(at: float, state: Any) -> None:
        nonlocal planned
        planned += 1
        if planned == after + 1:
            log.log = ManagerLog(1 << 22).log
        ManagerLog.begin(log, at, state)

    log.begin = begin  # type: ignore[method-assign]
    stage.tell()
    text = stage.text()
    found = steps(text)
    assert json.loads(text[1])["what"] == "state"
    assert len([step for step in found if step.line["what"] == "planned"]) == PLANS - after
    assert [step for step in found if step.differs] == []


def test_a_small_ring_replays_too() -> None:
    stage = Stage(1 << 16)
    stage.tell()
    for turn in range(60):
        stage.service("web", "pool", "10.77.0.200", NODES[: 1 + turn % 3])
        stage.plan(3.0)
    text = stage.text()
    lines = [json.loads(line) for line in text]
    assert lines[1]["what"] == "state"
    assert lines[1]["at"] > 1100
    assert stage.recording.log is not None
    assert stage.recording.log.log.size <= 1 << 16
    assert len([line for line in lines if line.get("what") == "planned"]) > 5
    assert differing(text) == []


@pytest.mark.parametrize("what", ["object", "wire", "bgp", "leader", "members", "passwords", "outage", "delivering"])
def test_a_lost_input_is_noticed(whole: list[str], what: str) -> None:
    kept = [line for line in whole if json.loads(line).get("what") != what]
    if what in ("outage", "delivering", "members"):
        assert len(kept) < len(whole)  # these inputs change nothing in this sequence
    else:
        assert differing(kept)


def test_a_recording_of_another_release_may_differ(whole: list[str], tmp_path: Path, capsys: Any) -> None:
    lines = [json.loads(line) for line in whole]
    lines[0]["release"] = "0.1.9"
    planned = [line for line in lines if line.get("what") == "planned"]
    planned[3]["did"]["digest"] ^= 1
    path = tmp_path / "other.jsonl"
    path.write_text("".join(f"{file.dumps(line)}\n" for line in lines))
    assert run(["replay", str(path)]) == 3
    out = capsys.readouterr().out
    assert "1 decisions differ. It was recorded by 0.1.9, and this is " in out
    assert "DIFFERS." in out


def test_a_failed_plan_fails_again() -> None:
    stage = Stage()
    stage.begin()
    stage.plan()
    stage.loop.begin_plan(stage.now + 1)
    stage.loop._note("failed", "ZeroDivisionError")
    (step,) = differing(stage.text())
    assert step.line["value"] == "ZeroDivisionError"
    assert "vips" in step.did  # it does not fail in the replay


# ---- the command


def written(whole: list[str], tmp_path: Path) -> Path:
    path = tmp_path / "recording.jsonl"
    path.write_text("".join(whole))
    return path


def test_what_a_person_reads(whole: list[str], tmp_path: Path, capsys: Any) -> None:
    assert run(["replay", str(written(whole, tmp_path))]) == 0
    out = capsys.readouterr().out
    assert "Recording of node-a, porterlb 0.2.0." in out
    assert "(Service shop/web has changed.)" in out
    assert "Service shop/web has 10.77.0.200." in out
    assert "10.77.0.200: to be served by" in out
    assert "because node-c does not answer probes." in out
    assert f"{PLANS} plans and 0 Layer 2 events in " in out
    assert "replayed: every decision is as recorded." in out


def test_one_address_until_a_time(whole: list[str], tmp_path: Path, capsys: Any) -> None:
    path = str(written(whole, tmp_path))
    assert run(["replay", path, "--vip", "172.16.0.0", "--until", "13s"]) == 0
    out = capsys.readouterr().out
    assert "172.16.0.0: to be served by bgp" in out
    assert "10.77.0.200" not in out
    assert "11 plans and 0 Layer 2 events" in out
    assert run(["replay", path, "--until", "yesterday"]) == 2
    assert run(["replay", path, "--until", "1970-01-01T00:00:00Z"]) == 0
    assert "begins after that time" in capsys.readouterr().out


def test_json_is_the_same_bytes_in_every_process(whole: list[str], tmp_path: Path) -> None:
    path, texts = str(written(whole, tmp_path)), set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "porterlb", "replay", path, "-o", "json", "--all"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        texts.add(done.stdout)
    (text,) = texts
    data = json.loads(text)
    assert (data["plans"], data["different"], data["node"]) == (PLANS, 0, "node-a")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 is no JSON"),
        ("{}\n", "its first line is no header"),
        ('{"porterlb":"recording","format":2}\n', "its format is 2"),
        ('{"porterlb":"recording","format":1}\n', "no settings"),
        ('{"porterlb":"recording","format":1,"settings":{"node":"a"}}\n{"by":"me"}\n', "line 2 is not of a recording"),
        ('{"porterlb":"recording","format":1,"settings":{"node":"a"}}\nnonsense}\n', "line 2 is no JSON"),
        (
            '{"porterlb":"recording","format":1,"settings":{"node":"a"}}\n'
            '{"by":"wire","at":1,"what":"state","state":["o",0,"layer2.chance:os"]}\n',
            "not a recorded value",
        ),
    ],
)
def test_what_is_no_recording_is_one_sentence(text: str, says: str, tmp_path: Path, capsys: Any) -> None:
    path = tmp_path / "wrong"
    path.write_text(text)
    assert run(["replay", str(path)]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_the_end_of_a_file_that_is_still_written_is_left_out(whole: list[str]) -> None:
    assert len(steps([*whole[:-1], whole[-1][:40]])) == len(whole) - 2


def test_an_unknown_input_is_refused(whole: list[str]) -> None:
    with pytest.raises(NotRecordable, match="magic"):
        steps([*whole[:2], file.dumps({"by": "manager", "at": 2000.0, "what": "magic"}) + "\n"])


# ---- secrets


def test_no_secret_is_in_it(whole: list[str]) -> None:
    text = "".join(whole)
    for secret in (*SECRETS, "123456789"):
        assert secret not in text
    assert "(redacted)" in text


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), min_size=5, max_size=20),
    st.recursive(
        st.just("SECRET"),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "token", "key"]), inner),
        max_leaves=4,
    ),
    st.sampled_from(["authPassword", "password", "bgpPassword", "apiToken", "secret", "privateKey", "credentials"]),
)
def test_secrets_of_our_kinds_are_left_out_wherever_they_are(secret: str, value: Any, name: str) -> None:
    """A field whose name indicates a secret, as a text or nested in any form; every annotation that we do not read."""
    secret = f"S3{secret}"
    planted = json.loads(json.dumps(value).replace("SECRET", "x")) if isinstance(value, dict | list) else secret
    obj = {
        "metadata": {"name": "tor", "labels": {"app": "x"}, "annotations": {COPY: secret, "example.org/x": secret}},
        "spec": {"conf": {name: secret, "authPasswordSecret": {"name": "bgp", "key": "tor"}}, name: [secret, planted]},
        "status": {name: {"value": secret, name: secret}},
    }
    found = recorded("BgpPeer", obj)
    assert secret not in json.dumps({**found, "status": found["status"][name][name]})
    assert found["spec"]["conf"]["authPasswordSecret"] == {"name": "bgp", "key": "tor"}
    assert found["metadata"]["labels"] == {"app": "x"}


def test_what_stands_for_a_password_is_as_valid_as_it_was() -> None:
    for password, valid in (("short", True), ("x" * 81, False), ("", True), ("bell\a", False)):
        found = recorded("BgpPeer", {"spec": {"conf": {"authPassword": password}}})["spec"]["conf"]["authPassword"]
        assert bool(found) == bool(password)
        assert (found.isprintable() and len(found) <= 80) == valid


def test_a_bundle_contains_it_as_it_is(whole: list[str], tmp_path: Path) -> None:
    """A password that is also a word in the recording must not damage the recording."""
    state = {"node": "node-a", "conf": {"authPassword": "wire"}}
    asked = Asked({"node-a": type("S", (), {"state": state, "source": "x"})()})
    text = "".join(whole)
    files = bundle.contents({}, None, asked, {"node-a/recording.jsonl": text, "node-a/log.txt": "wire is down"})
    assert files["replicas/node-a/log.txt"] == "(redacted) is down"
    bundle.write(tmp_path / "b.tar.gz", files)
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        member = archive.extractfile("porterlb-bundle/replicas/node-a/recording.jsonl")
        assert member is not None
        assert differing(member.read().decode().splitlines(keepends=True)) == []


# ---- the file


def test_a_file_is_written_as_it_happens(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    path.write_text("the run before")
    stage = Stage()
    recording = Recording(replace(stage.settings, record=str(path), record_ring=0), "0.2.0", stage.wire_part)
    stage.loop.log = stage.recording.log = recording.log

    async def main() -> None:
        task = asyncio.create_task(recording.run())
        await asyncio.sleep(0.05)
        stage.tell()
        recording.streamed(['{"at":1000.0,"what":"tick"}'])
        await asyncio.sleep(0.8)
        assert len(path.read_text().splitlines()) > 50
        stage.plan()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        asyncio.get_running_loop().remove_signal_handler(10)

    asyncio.run(main())
    assert (tmp_path / "recording.jsonl.1").read_text() == "the run before"
    assert path.stat().st_mode & 0o777 == 0o600
    text = path.read_text().splitlines(keepends=True)
    found = steps(text)
    assert len([step for step in found if step.line["what"] == "planned"]) == PLANS + 1
    assert len([step for step in found if step.line["by"] == "wire"]) == 1
    assert [step for step in found if step.differs] == []
    assert "record_ring is 0" in asyncio.run(recording.text())
    assert not any(secret in "".join(text) for secret in SECRETS)


def test_a_dump_is_a_new_file_of_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stage = Stage()
    stage.tell()
    asyncio.run(stage.recording.dump())
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("porterlb-node-a-")
    assert path.stat().st_mode & 0o777 == 0o600
    assert differing(path.read_text().splitlines(keepends=True)) == []


def test_a_wire_process_that_does_not_answer_is_named() -> None:
    async def never(within: float) -> list[str]:
        raise TimeoutError

    async def full(within: float) -> list[str]:
        return [file.FULL]

    stage = Stage()
    stage.recording = Recording(stage.settings, "0.2.0", never)
    assert "did not give" in json.loads(stage.text()[0])["missing"]
    stage.recording = Recording(stage.settings, "0.2.0", full)
    (line,) = stage.text()
    assert "too many objects" in json.loads(line)["missing"]
