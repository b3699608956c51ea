"""A Layer 2 recording replays to the same decisions, also if its oldest part has been discarded."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from porterlb.core.layer2.arp import ARP_REQUEST, Arp
from porterlb.core.layer2.targets import Gateway
from porterlb.core.record.codec import NotRecordable
from porterlb.core.record.entries import Line, lines
from porterlb.core.record.layer2 import RecordedLayer2
from porterlb.core.record.layer2_replay import Layer2Replay
from porterlb.core.record.log import Log
from tests.core.layer2.world import KEY, NIC, Replica, World, nics_of

VIP, OTHER = "10.0.0.100", "10.0.0.101"


def world(log: Log[bytes]) -> World:
    made = World("n1", "n2", "n3", log=log)
    made.vips((VIP, ("n1", "n2")), (OTHER, ("n2", "n3")), *[(f"10.0.0.{n}", ("n3", "n1")) for n in range(150, 156)])
    made.run(1.3)
    return made


def story(made: World) -> None:
    """Nodes die and return, a process hangs, the own link is cut, a host asks, a foreign host claims a VIP."""
    n1 = made.replicas["n1"]
    made.cut.add("n2")
    made.run(0.15)
    asked(n1.layer2, OTHER, made.now)
    made.run(0.3)
    made.cut.clear()
    made.run(0.4)
    made.hung.add("n3")
    made.run(0.5)
    made.hung.clear()
    made.cut.add("n1")
    made.run(0.6)
    made.cut.clear()
    made.run(0.5)
    n1.layer2.claimed(ip_address(VIP).packed, b"\2\1\1\1\1\1", made.now)
    n1.do(n1.layer2.hello(b"PLBH no hello at all", made.now), made.now)
    n1.do(n1.layer2.hello(bytes(9000), made.now), made.now)
    n1.do(n1.layer2.gateways_found([Gateway(NIC, ip_address("10.0.0.254"))]), made.now)
    for up in (False, True):
        n1.do(n1.layer2.nics_changed(nics_of("n1", up), made.now), made.now)
        n1.settle(made.now)
    n1.do(n1.layer2.interface_failed(NIC, "no buffer", made.now), made.now)
    n1.settle(made.now)
    made.run(1.2)
    assert VIP in _held(n1)
    made.quiet = {"n2"}  # n2 does not learn that the VIP moves to it: n1 waits, also in the last states of a recording
    made.vips((VIP, ("n2", "n1")), (OTHER, ("n2", "n3")), *[(f"10.0.0.{n}", ("n3", "n1")) for n in range(150, 156)])
    made.run(1.0)
    assert VIP in _held(n1) and n1.layer2._handover.waiting


def _held(replica: Replica) -> set[str]:
    return {str(ip_address(address)) for address in replica.owned}


def asked(layer2: Any, vip: str, now: float) -> None:
    """Ask as a responder does when a question arrives."""
    packed = ip_address(vip).packed
    question = Arp(b"\2\0\0\0\0\x63", ARP_REQUEST, b"\2\0\0\0\0\x63", bytes((10, 0, 0, 99)), bytes(6), packed)
    layer2.vips.get(packed).ask(question, False, now)


def recorded(limit: int) -> list[Line]:
    log: Log[bytes] = Log(limit)
    story(world(log))
    assert log.size <= limit
    return [json.loads(json.dumps(line)) for line in lines(log.contents(), KEY)]


def replayed(recording: list[Line]) -> list[Any]:
    replay = Layer2Replay()
    return [json.loads(json.dumps(replay.take(line))) for line in recording]


@pytest.fixture(scope="module")
def whole() -> list[Line]:
    return recorded(1 << 22)


def differences(recording: list[Line]) -> list[Line]:
    now = zip(recording, replayed(recording), strict=True)
    return [line for line, rows in now if rows != line.get("did", [])]


def test_it_replays_to_the_same_decisions(whole: list[Line]) -> None:
    assert whole[0]["what"] == "state"
    assert differences(whole) == []
    decided = [row for line in whole for row in line.get("did", [])]
    assert {"own", "disown", "served", "announce", "note", "report", "say", "late"} <= {row[0] for row in decided}
    assert {"state", "hello", "heard", "asked", "claimed", "failed", "nics", "gateways"} <= {
        line["what"] for line in whole
    }


def test_its_oldest_part_may_be_gone(whole: list[Line]) -> None:
    short = recorded(60_000)
    assert len(short) < len(whole) / 2
    assert short[0]["what"] == "state"
    assert short[0]["at"] > whole[0]["at"] + 1
    assert differences(short) == []
    assert short[-1] == whole[-1]


@pytest.mark.parametrize("what", ["hello", "heard", "probed", "tick", "want", "vips", "nics", "wake", "asked"])
def test_a_lost_input_is_noticed(whole: list[Line], what: str) -> None:
    """Each kind of event matters: without all events of one kind, the decisions differ."""
    kept = [line for line in whole if line["what"] != what]
    with_loss = replayed(kept)
    assert [rows for rows, line in zip(with_loss, kept, strict=True) if rows != line.get("did", [])]


def test_a_recording_without_its_beginning_decides_nothing(whole: list[Line]) -> None:
    assert not any(replayed(whole[1:200]))


def test_no_key_is_in_it(whole: list[Line]) -> None:
    text = json.dumps(whole)
    assert KEY.hex() not in text
    assert KEY.decode() not in text


@pytest.mark.parametrize("change", [{"what": "nonsense"}, {"what": "hello"}, {"what": "heard", "nic": "x"}])
def test_what_is_no_event_is_refused(whole: list[Line], change: Line) -> None:
    replay = Layer2Replay()
    replay.take(whole[0])
    with pytest.raises(NotRecordable):
        replay.take({"at": 1.0, **change})


def test_probes_that_did_not_leave_do_not_count() -> None:
    """An interface with a full queue must not make the nodes behind it look dead, also in the replay."""
    log: Log[bytes] = Log(1 << 20)
    made = world(log)
    layer2 = made.replicas["n1"].layer2
    assert isinstance(layer2, RecordedLayer2)
    for _ in range(10):
        layer2.due([NIC])
        layer2.probed([])
    layer2.probe(made.now + 0.05, 0.0, made.now)
    found = [json.loads(json.dumps(line)) for line in lines(log.contents(), KEY)]
    assert [line["what"] for line in found[-4:]] == ["unsent", "probed", "unsent", "probe"]
    replay = Layer2Replay()
    for line in found:
        assert json.loads(json.dumps(replay.take(line))) == line.get("did", [])
    assert replay._layer2 is not None
    misses = {key: f.target.misses for key, f in replay._layer2.nodes.detector.probes.findings.items()}
    assert misses == {key: f.target.misses for key, f in layer2.nodes.detector.probes.findings.items()}
