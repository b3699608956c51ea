"""The last holder of an address."""

from __future__ import annotations

import pytest

from porterlb.core.allocation import lastholders
from porterlb.core.allocation.lastholders import Freed, LastHolders
from porterlb.core.model import Service, ServiceKey

WEB, SHOP = ServiceKey("default", "web"), ServiceKey("default", "shop")


def service(key: ServiceKey, uid: str = "") -> Service:
    return Service(key, uid=uid, created="2026-01-01T00:00:00Z")


def test_a_service_had_its_latest_address_last_by_uid_before_by_name() -> None:
    held = LastHolders().updated({1: Freed("a", WEB, 1.0), 2: Freed("a", WEB, 2.0), 3: Freed("b", WEB, 3.0)}, ())
    assert held.of(service(WEB, "a")) == (2, 1, 3)
    assert held.of(service(WEB, "new")) == (3, 2, 1) == held.of(service(WEB))
    assert held.of(service(SHOP, "a")) == (2, 1) and held.of(service(SHOP, "new")) == ()


def test_an_address_that_somebody_has_again_was_held_last_by_nobody() -> None:
    held = LastHolders().updated({1: Freed("a", WEB, 1.0), 2: Freed("a", WEB, 2.0)}, ())
    again = held.updated({}, {1, 7})
    assert again.of(service(WEB, "a")) == (2,) and again.freed.keys() == {2}
    assert held.of(service(WEB, "a")) == (2, 1), "the value before is as it was"
    assert held.updated({}, {7}) is held


def test_an_address_that_is_freed_again_has_a_new_last_holder() -> None:
    held = LastHolders().updated({1: Freed("a", WEB, 1.0)}, ()).updated({1: Freed("b", SHOP, 2.0)}, {1})
    assert held.of(service(WEB, "a")) == () and held.of(service(SHOP, "b")) == (1,)


def test_the_oldest_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lastholders, "REMEMBERED", 2)
    held = LastHolders().updated({1: Freed("a", WEB, 1.0)}, ())
    held = held.updated({2: Freed("a", WEB, 2.0), 3: Freed("b", SHOP, 3.0)}, ())
    assert list(held.freed) == [2, 3] and held.of(service(WEB, "a")) == (2,)
