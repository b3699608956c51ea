"""State that survives an ExaBGP: no wanted set is lost between two checks."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

import pytest

from porterlb.core.desired import DesiredBgp, Path, SessionConfig
from porterlb.edge.bgp.process import Log
from porterlb.edge.bgp.speaker_state import SpeakerState

PEER = SessionConfig("tor", ip_address("127.0.0.2"), 64500, 64512, IPv4Address("127.0.0.1"))


@pytest.mark.parametrize("again", [False, True])
def test_a_set_that_comes_just_before_the_addresses_are_looked_at_again_is_taken_over(
    tmp_path: File, again: bool
) -> None:
    state = SpeakerState(lambda _: None, tmp_path, Log(tmp_path / "log"), 2.0, 1.0, 10.0)
    state.take_over()
    state.difference.set_peers(frozenset({"tor"}))
    for number in (1, 2):
        path = Path("tor", ip_address(f"192.0.2.{number}"))
        state.wanted = DesiredBgp({"tor": PEER}, {path: frozenset({"198.51.100.1/32"})})
        state.take_over(again=again)
        batch = state.difference.next(48)
        assert batch is not None
        assert batch.path == path
        state.difference.done(batch)
    state.log.close()
