"""Which history entries are logged as warnings."""

from __future__ import annotations

from porterlb.core.history.entries import What


def test_losses_and_doubts_are_warnings_and_returns_are_not() -> None:
    good = {"VipServed", "VipMoved", "VipModeChanged", "NodeBack", "ReplicaBack", "SessionUp", "DoubtOver", "ApiBack"}
    bad = {"VipNotServed", "NodeDead", "ReplicaSilent", "SessionDown", "AddressConflict", "InDoubt", "ApiAway"}
    assert {what.value for what in What if what.bad} >= bad
    assert not {what.value for what in What if what.bad} & good
