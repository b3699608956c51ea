"""Reasons as values, and the sentences made of them."""

from __future__ import annotations

from ipaddress import ip_address

from porterlb.core.bgp import words
from porterlb.core.bgp.reasons import Refusal, RefusalKind, Trouble, TroubleKind


def test_exabgp_runs_on_only_after_a_failed_reload() -> None:
    running = {kind for kind in TroubleKind if Trouble(kind).runs}
    assert running == {TroubleKind.RELOAD_REFUSED, TroubleKind.RELOAD_FAILED}


def test_the_guard_names_its_limit() -> None:
    assert "maxPrefixesSent is 8" in words.withheld(8)
    assert words.overflow(8, 1).endswith("1 more prefix is not announced by this node.")
    assert words.overflow(8, 2).endswith("2 more prefixes are not announced by this node.")


def test_an_absent_interface_needs_an_address_of_the_routers_version() -> None:
    def of(address: str | None) -> str:
        return words.refusal(
            Refusal(RefusalKind.INTERFACE_ABSENT, ip_address(address) if address else None, other="eth1")
        )

    assert "no interface eth1 with an IPv6 address" in of("fd00::1")
    assert "no interface eth1 with an IPv4 address" in of("10.0.0.1")
    assert "no interface eth1 with an IPv4 address" in of(None)
    assert words.refusal(None) == ""
