"""Where users find BFD: status, /state, history, explain, metrics, the list of peers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prometheus_client import generate_latest

from porterlb.cli.explain import explained
from porterlb.cli.lists import peer_table
from porterlb.core.bfd.values import BfdSession, BfdSettings, BfdState, Diagnostic, Obstacle, ObstacleKind
from porterlb.core.bgp.reasons import Loss, LossKind
from porterlb.core.history import History, What, step
from porterlb.core.history.words import sentence
from porterlb.core.known import Known
from porterlb.core.model import Snapshot
from porterlb.core.status.peer import own_entry, peer_conditions
from porterlb.core.status.state import state_of
from porterlb.edge.metrics import Metrics
from tests.cli.test_explain import asked, texts
from tests.core.stage import situation, snapshot

UP = BfdSession(BfdState.UP, 0, BfdState.UP, 0, True, 50_000, 150_000, 0, 1)
FAILED = BfdSession(BfdState.DOWN, Diagnostic.DETECTION_EXPIRED, failures=1, transitions=2, heard=True)
LOST = Loss(LossKind.BFD, Diagnostic.DETECTION_EXPIRED, local=True)


def of(*, up: tuple[str, ...] = ("node-a", "node-b", "node-c")) -> Snapshot:
    made = snapshot(up=up)
    return replace(made, peers={"tor": replace(made.peers["tor"], bfd=BfdSettings(3, 50, 50))})


def known(bfd: BfdSession | None, **more: Any) -> Known:
    up = ("node-b", "node-c") if more else ("node-a", "node-b", "node-c")
    made = situation(of(up=up), **more)
    return replace(made, bgp=replace(made.bgp, sessions={"tor": replace(made.bgp.sessions["tor"], bfd=bfd)}))


def failed() -> Known:
    return known(FAILED, loss=LOST, losses=1)


def entry(of: Known) -> dict[str, object]:
    found: dict[str, object] = own_entry(of, "tor", None)["nodesPeerStatus"]["node-a"]["bfd"]
    return found


def test_status() -> None:
    assert entry(known(UP)) == {
        "state": "Up",
        "diagnostic": "no diagnostic (0)",
        "remoteState": "Up",
        "remoteDiagnostic": "no diagnostic (0)",
        "transmitInterval": 50,
        "detectionTime": 150,
    }
    down = entry(failed())
    assert (down["state"], down["diagnostic"]) == ("Down", "control detection time expired (1)")
    assert down["reason"] == "BFD is down: control detection time expired (1)."
    assert entry(known(None)) == {
        "state": "Down", "diagnostic": "no diagnostic (0)", "reason": "BFD has not started yet.",
    }  # fmt: skip
    assert "bfd" not in own_entry(situation(snapshot()), "tor", None)["nodesPeerStatus"]["node-a"]
    reason = own_entry(failed(), "tor", None)["nodesPeerStatus"]["node-a"]["reason"]
    assert reason.startswith("BFD received no packet from the router within the detection time")


def test_a_port_that_is_taken_is_in_the_condition_and_the_peer_stays_ready() -> None:
    blocked = known(BfdSession(obstacle=Obstacle(ObstacleKind.PORT_TAKEN, 3784)))
    (ready,) = peer_conditions(blocked, "tor", None)["conditions"]
    assert ready["status"] == "True"
    assert "another process on the node uses UDP port 3784" in ready["message"]


def test_state_and_explain() -> None:
    shown = state_of(known(UP), History(), now=0.0)["peers"]["tor"]["bfd"]
    assert shown == {
        "state": "Up", "remoteState": "Up", "diagnostic": "no diagnostic (0)", "reason": "", "transmitInterval": 50,
        "detectionTime": 150, "failures": 0, "transitions": 1,
    }  # fmt: skip
    assert state_of(situation(snapshot()), History(), now=0.0)["peers"]["tor"]["bfd"] is None
    lines = texts(explained("default/shop", asked(known(UP)), None), "")
    assert "BFD of node-a: Up, the router says Up, 150 ms until a failure is found." in lines
    lines = texts(explained("default/shop", asked(failed()), None), "")
    assert any(line.startswith("BFD of node-a: Down") and "expired (1)" in line for line in lines)


def test_history() -> None:
    def told(*looks: Known) -> list[str]:
        history, before, found = History(), None, []
        for number, look in enumerate(looks):
            history, fresh = step(history, before, look, 100.0 * number)
            found += [sentence(one) for one in fresh if one.what in (What.BFD_UP, What.BFD_DOWN)]
            before = look
        return found

    up, down = "BFD between node-a and tor is up.", "BFD between node-a and tor is no longer up: "
    assert told(known(None), known(UP), failed(), known(UP)) == [
        up,
        f"{down}BFD is down: control detection time expired (1).",
        up,
    ]
    assert told(known(UP), known(replace(UP, failures=1))) == [f"{down}it came back at once.", up]
    assert told(known(UP), known(UP)) == []
    assert told(known(UP), known(None)) == []  # spec.bfd was removed


def test_metrics() -> None:
    for look, up in ((known(UP), 1), (failed(), 0), (known(None), 0)):
        text = generate_latest(Metrics(lambda look=look: look, lambda: 0.0).registry).decode()
        assert f'porterlb_bfd_session_up{{peer="tor"}} {up}.0' in text
    text = generate_latest(Metrics(failed, lambda: 0.0).registry).decode()
    assert 'porterlb_bfd_transitions_total{peer="tor"} 2.0' in text
    assert 'porterlb_bfd_failures_total{peer="tor"} 1.0' in text


def test_the_list_of_peers_has_a_column_where_a_peer_has_bfd() -> None:
    session = {"node": "node-a", "router": "", "state": "ESTABLISHED", "since": "", "announced": 1, "reason": ""}
    session["lastLoss"] = None
    row = {"name": "tor", "address": "10.0.0.1", "as": 1, "sessions": [{**session, "bfd": {"state": "Up"}}]}
    none = {**row, "name": "none", "sessions": [], "message": "no", "problems": []}
    table = peer_table([row, none])
    assert table.columns[4:6] == ("SESSION", "BFD")
    assert table.rows[0][4:6] == ("ESTABLISHED", "Up")
    assert {len(line) for line in table.rows} == {len(table.columns)}
    assert "BFD" not in peer_table([{**row, "sessions": [session]}]).columns
