"""The content of /state: JSON, complete, and without a password."""

from __future__ import annotations

import json
from dataclasses import replace

from porterlb.core.history import Entry, History, ServedBy, What
from porterlb.core.model import Interface, Mode
from porterlb.core.objects import ObjectKey
from porterlb.core.observed import AddressConflict, Nic
from porterlb.core.problems import Problem, Reason
from porterlb.core.status.state import state_of
from tests.core.stage import AUTO_VIP, LATER, NOW, situation, snapshot


def test_the_state_is_json_and_has_everything() -> None:
    of = snapshot()
    of = replace(of, peers={"tor": replace(of.peers["tor"], password="correct-horse")})
    member: Interface = of.members["node-a"].subnets[0]
    wire = {
        "conflicts": {AUTO_VIP: AddressConflict(AUTO_VIP, bytes(6), 1.0)},
        "nics": (Nic("eth0", 2, bytes(6), up=True, addresses=(member,)),),
        "in_kernel": {"eth0": "", "eth1": "old_kernel"},
    }
    made = situation(of, wire=wire)
    problems = {ObjectKey("Eip", "", "bad"): (Problem(Reason.INVALID_ADDRESS, "is wrong.", "spec.address"),)}
    entry = Entry(NOW, What.NODE_DEAD, "node-c")
    history = History((entry,), {AUTO_VIP: ServedBy(Mode.BGP, since=LATER)})
    state = state_of(replace(made, problems=problems, broken={"a.yaml:3": "no"}), history, now=12.5)
    text = json.dumps(state)
    assert "correct-horse" not in text
    assert json.loads(text) == state
    assert state["version"] == 1
    assert state["vips"]["10.77.0.201"]["served"] == "bgp"
    assert state["vips"]["10.77.0.201"]["age"] == 12.5
    assert state["vips"]["10.77.0.201"]["conflict"] == "00:00:00:00:00:00"
    assert set(state["replicas"]) == {"node-a", "node-b", "node-c"}
    assert state["problems"] == {"Eip bad": ["spec.address: is wrong."]}
    assert state["nodes"]["node-a"]["usable"] is True
    assert state["peers"]["tor"]["state"] == "established"
    assert state["wire"]["nics"][0]["addresses"] == ["10.77.0.11/24"]
    assert state["wire"]["inKernel"]["eth0"] == "" and "Linux 6.6" in state["wire"]["inKernel"]["eth1"]
    assert state["vips"]["10.77.0.201"]["since"] == LATER
    assert [(entry["what"], entry["subject"]) for entry in state["history"]] == [("NodeDead", "node-c")]
