"""Who writes which status, as which field manager, and when there is nothing to write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from porterlb.core.objects import ObjectKey
from porterlb.core.status.peer import loss_reasons
from porterlb.core.status.reading import entries, version_of
from porterlb.core.status.writes import (
    LEADER,
    StatusWrite,
    conditions_differ,
    context_writes,
    losses_of,
    owner_of,
    release,
    removal,
    taking,
)
from tests.core.stage import EXPIRED, EXPIRED_WORDS, LATER, SHOP, situation, snapshot

POOL, TOR, CONF = ObjectKey("Eip", "", "auto"), ObjectKey("BgpPeer", "", "tor"), ObjectKey("BgpConf", "", "default")
SERVICE = ObjectKey("Service", *SHOP)
KNOWN = situation(snapshot())


def writes(key: ObjectKey, status: Mapping[str, Any] | None, *, leading: bool = True, known=KNOWN) -> list[StatusWrite]:
    return context_writes(known, key, lambda _: {"status": status}, leading=leading)


def merged(of: list[StatusWrite]) -> dict[str, Any]:
    """The status after these writes."""
    status: dict[str, Any] = {}
    for write in of:
        status |= write.status
    return status


@pytest.mark.parametrize("key", [POOL, TOR, CONF])
def test_the_leader_writes_once_and_then_nothing(key) -> None:
    first = writes(key, None)
    assert first[0].owner == LEADER and first[0].leader_only and first[0].key == key
    assert writes(key, merged(first)) == []


@pytest.mark.parametrize(("key", "field"), [(POOL, "usage"), (TOR, "sessions"), (CONF, "nodesConfStatus")])
def test_one_different_field_is_a_write(key, field) -> None:
    status = merged(writes(key, None))
    (again,) = writes(key, {**status, field: "edited by hand"})
    assert again.status[field] == status[field]


@pytest.mark.parametrize("key", [POOL, TOR, CONF])
def test_a_condition_that_was_removed_is_a_write(key) -> None:
    status = merged(writes(key, None))
    (again,) = writes(key, {**status, "conditions": []})
    assert again.owner == LEADER


def test_another_replica_writes_only_its_entry_of_a_peer() -> None:
    assert writes(POOL, None, leading=False) == writes(CONF, None, leading=False) == []
    (own,) = writes(TOR, None, leading=False)
    assert (own.owner, own.leader_only, list(entries(own.status))) == ("porterlb-node-a", False, ["node-a"])
    assert writes(TOR, own.status, leading=False) == []


def test_an_object_that_is_gone_gets_no_status() -> None:
    assert context_writes(KNOWN, POOL, lambda _: None, leading=True) == []


def test_a_recorded_next_hop_is_a_write_that_places() -> None:
    (first,) = writes(POOL, None)
    assert first.placing is bool(first.status.get("layer2NextHops"))
    (again,) = writes(POOL, {**first.status, "layer2NextHops": {"10.77.0.201": "elsewhere"}})
    assert again.placing
    (other,) = writes(POOL, {**first.status, "usage": -1})
    assert not other.placing


def test_a_service_that_is_no_longer_ours_loses_our_status_once() -> None:
    meta = {"resourceVersion": "7"}
    theirs = {"type": "Theirs", "status": "True"}
    for ours in ("AddressAssigned", "Serving"):
        status = {"conditions": [theirs, {"type": ours, "status": "False"}]}
        write = release(SERVICE, {"metadata": meta, "status": status})
        assert write == StatusWrite(SERVICE, {}, LEADER, version="7", urgent=True)
    assert release(SERVICE, {"metadata": meta, "status": {"conditions": [theirs]}}) is None
    assert release(SERVICE, {"metadata": meta}) is None


def test_the_entry_of_a_vanished_node_is_taken_and_then_removed_as_its_owner() -> None:
    assert taking(TOR, "node-x") == StatusWrite(TOR, {"nodesPeerStatus": {"node-x": {}}}, "porterlb-node-x")
    assert removal(TOR, "node-x") == StatusWrite(TOR, {}, owner_of("node-x"))


@pytest.mark.parametrize(
    ("obj", "version"), [({"metadata": {"resourceVersion": "9"}}, "9"), ({"metadata": None}, ""), ({}, "")]
)
def test_versions(obj, version) -> None:
    assert version_of(obj) == version


def test_only_our_conditions_are_compared() -> None:
    ready, theirs = {"type": "Ready", "status": "True"}, {"type": "Theirs", "status": "True"}
    assert not conditions_differ("BgpPeer", {"conditions": [ready, theirs]}, {"conditions": [ready]})
    assert conditions_differ("BgpPeer", {"conditions": [theirs]}, {"conditions": [ready]})
    assert conditions_differ("BgpPeer", {"conditions": [{**ready, "status": "False"}]}, {"conditions": [ready]})


def test_losses_are_those_of_all_replicas_and_our_own_is_the_newest() -> None:
    lost = situation(snapshot(up=("node-b", "node-c")), now=LATER, loss=EXPIRED, losses=1)
    status = {"nodesPeerStatus": {"node-a": {"reason": "old"}, "node-b": {"lastLoss": {"reason": "theirs"}}}}
    objects: list[tuple[str, Mapping[str, Any]]] = [
        ("tor", {"status": status}),
        ("far", {"status": {"nodesPeerStatus": {"node-c": {"reason": "far"}}}}),
    ]
    assert losses_of(lost, objects) == {"tor": {"node-a": EXPIRED_WORDS, "node-b": "theirs"}, "far": {"node-c": "far"}}
    assert losses_of(lost, []) == {"tor": {"node-a": EXPIRED_WORDS}}
    assert losses_of(replace(lost, bgp=KNOWN.bgp), []) == {}


def test_the_present_reason_comes_before_that_of_the_last_loss() -> None:
    both = {"reason": "now", "lastLoss": {"reason": "then"}}
    status = {"nodesPeerStatus": {"a": both, "b": {"lastLoss": {"reason": "then"}}, "c": {"lastLoss": None}, "d": {}}}
    assert loss_reasons(status) == {"a": "now", "b": "then"}
