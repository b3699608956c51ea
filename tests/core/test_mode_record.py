"""The record of a pool's mode: one entry for each change, and none while a change is in progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from porterlb.core.model import Mode
from porterlb.core.observed import Answering
from porterlb.core.plan import plan
from porterlb.core.served import Served
from porterlb.core.status.mode_record import Cause, mode_record
from porterlb.core.status.notices import eip_notices
from tests.core.stage import AUTO_VIP, POLICY, snapshot

WAYS = {
    "bgp": Served(Mode.BGP, {"tor": ("node-a",)}),
    "layer2": Served(Mode.LAYER2, answered=Answering("node-a", "node-a")),
    "none": Served(Mode.NONE),
}
LOST = "node-a lost tor: maintenance."
ALL = ("node-a", "node-b", "node-c")


class Story:
    """An Eip whose addresses change between the modes; ``told``: the events."""

    def __init__(self) -> None:
        self.plan = plan(snapshot(up=ALL), None, 0.0, POLICY)
        self.record: Mapping[str, Any] | None = None
        self.told: list[tuple[bool, str]] = []

    def at(self, second: int, served: str, *, up: bool = True, lost: str = LOST) -> Mapping[str, Any]:
        of = snapshot(up=ALL if up else ())
        self.plan = plan(of, self.plan, float(second), POLICY)
        vips = [vip for vip in self.plan.vips.values() if vip.eip == "auto"]
        now = f"2026-01-31T12:{second // 60:02}:{second % 60:02}Z"
        lost = "" if up else lost
        before, self.record = (
            self.record,
            mode_record(of.eips["auto"], vips, {AUTO_VIP: WAYS[served]}, lost, self.record, now, 1),
        )
        notices = eip_notices({"mode": before} if before else None, {"mode": self.record})
        self.told += [(notice.warning, notice.message) for notice in notices]
        return self.record

    @property
    def changes(self) -> list[str]:
        history = (self.record or {}).get("history", [])
        return [f"{change['before']} to {change['after']}" for change in history]


def test_a_moment_without_confirmation_is_part_of_the_change_that_follows() -> None:
    story = Story()
    story.at(0, "bgp")
    assert story.at(60, "none", up=False)["served"] == "none"
    assert not story.told, "nothing is told that the next moment mends"
    record = story.at(61, "layer2", up=False)
    assert story.changes == ["bgp to layer2"]
    assert record["since"] == "2026-01-31T12:01:01Z" and "maintenance" in record["history"][0]["reason"]
    assert len(story.told) == 1 and story.told[0][1].startswith("The mode went from bgp to layer2. ")


def test_a_moment_that_ends_where_it_began_is_no_story() -> None:
    story = Story()
    story.at(0, "bgp")
    story.at(60, "layer2", up=False)
    told = list(story.told)
    story.at(90, "none", up=False)
    story.at(91, "layer2", up=False)
    assert story.changes == ["bgp to layer2"] and story.told == told


def test_what_is_not_served_for_longer_is_told() -> None:
    story = Story()
    story.at(0, "bgp")
    assert story.at(60, "none")["cause"] == Cause.UNCONFIRMED
    story.at(70, "bgp")
    assert story.changes == ["none to bgp", "bgp to none"]
    assert [text for _, text in story.told] == ["The mode went from none to bgp. An established session carries it."]


def test_a_time_that_nobody_can_read_joins_nothing() -> None:
    story = Story()
    story.at(0, "bgp")
    record = dict(story.at(60, "none"))
    record["history"] = [{**record["history"][0], "time": "yesterday"}]
    story.record = record
    story.at(61, "bgp")
    assert story.changes == ["none to bgp", "bgp to none"]


def test_losses_that_are_heard_of_a_moment_later_are_in_the_story() -> None:
    story = Story()
    story.at(0, "bgp")
    story.at(60, "layer2", up=False)
    both = "node-a, node-b lost tor: maintenance."
    record = story.at(61, "layer2", up=False, lost=both)
    assert both in record["reason"] and both in record["history"][0]["reason"]
    assert len(record["history"]) == 1 and len(story.told) == 1, "and it is told once"
    later = story.at(300, "layer2", up=False, lost="node-c lost tor: the cable.")
    assert "the cable" in later["reason"] and both in later["history"][0]["reason"]
    assert story.at(400, "layer2", up=False, lost="")["reason"] == later["reason"]
