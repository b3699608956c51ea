"""BFD with the BFD of real routers: FRR's bfdd and BIRD. GoBGP 3.10 and OpenBGPD 7.7 have no BFD."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Address, ip_address
from pathlib import Path as File

import pytest

from lab.cluster import Lab
from lab.node import Node
from lab.routers import NODES_AS, Router, RouterConfig, Session
from porterlb.core.bfd.values import BfdSession, BfdSettings, BfdTarget
from porterlb.core.bgp import words as bgp_words
from porterlb.core.bgp.reasons import LossKind
from porterlb.core.desired import DesiredBgp, SessionConfig
from porterlb.edge.bfd import BfdSpeaker
from porterlb.settings import Settings
from tests.edge.bgp_speaking import Watched, eventually, speaking, via
from tests.edge.test_bgp_every_router import inside

pytestmark = pytest.mark.lab

FAST = BfdSettings(3, 50, 50)
V4, V6 = "192.0.2.1/32", "2001:db8::1/128"


class Bfd:
    """A running BFD speaker and its last report."""

    def __init__(self, silence_after: float = 10.0) -> None:
        self.last: Mapping[str, BfdSession] = {}
        self.bgp: Watched | None = None
        self.speaker = BfdSpeaker(self._heard, settings=Settings("n", silence_after=silence_after))

    def _heard(self, sessions: Mapping[str, BfdSession]) -> None:
        self.last = sessions
        if self.bgp is not None:
            self.bgp.speaker.hear_bfd(sessions)

    def up(self) -> set[str]:
        return {peer for peer, session in self.last.items() if session.up}

    def want(self, *targets: BfdTarget) -> None:
        self.speaker.want({target.peer: target for target in targets})


@asynccontextmanager
async def bfd(silence_after: float = 10.0) -> AsyncIterator[Bfd]:
    made = Bfd(silence_after)
    running = asyncio.create_task(made.speaker.run())
    beating = asyncio.create_task(_beat(made))
    try:
        yield made
    finally:
        for task in (beating, running):
            task.cancel()
        await asyncio.gather(beating, running, return_exceptions=True)


async def _beat(made: Bfd) -> None:
    while True:
        made.speaker.beat()
        await asyncio.sleep(0.2)


def peers(router: Router, node: Node, **changes: object) -> dict[str, SessionConfig]:
    """One session for each IP version."""
    made = SessionConfig(
        "four", ip_address(router.v4), router.config.asn, NODES_AS, IPv4Address(node.v4), graceful_restart=60
    )
    made = replace(made, **changes)  # type: ignore[arg-type]
    return {
        "four": replace(made, families=(4,)),
        "six": replace(made, peer="six", address=ip_address(router.v6), families=(6,)),
    }


def wanted(router: Router, node: Node, **changes: object) -> DesiredBgp:
    sessions = peers(router, node, **changes)
    targets = {name: BfdTarget(name, peer.address, settings=FAST) for name, peer in sessions.items()}
    routes = {via("four", node.v4): frozenset([V4]), via("six", node.v6): frozenset([V6])}
    return DesiredBgp(sessions, routes, bfd=targets)


def sessions(node: Node, **options: object) -> tuple[Session, ...]:
    made = (Session(node.name, node.v4, ("v4",), bfd=50), Session(node.name, node.v6, ("v6",), bfd=50))
    return tuple(replace(session, **options) for session in made)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["frr", "bird"])
def test_router_and_node_agree_and_each_notices_the_end_of_the_other(kind: str, tmp_path: File) -> None:
    async def story(lab: Lab) -> None:
        router, node = lab.router, lab.nodes[0]
        both = {node.v4: "up", node.v6: "up"}
        desired = wanted(router, node)
        async with speaking(tmp_path) as bgp, bfd() as ours:
            ours.bgp = bgp
            ours.speaker.want(desired.bfd)
            with suppress(TimeoutError):
                await eventually(lambda: ours.up() == {"four", "six"}, 3)
            print(f"{kind}: BFD without BGP: {ours.up() or 'does not come up'}")
            bgp.want(desired)
            await eventually(lambda: ours.up() == {"four", "six"} and router.bfd_states() == both)
            await eventually(lambda: bgp.up() == {"four", "six"} and set(router.routes()) == {V4, V6})
            await eventually(
                lambda: all((s.transmit_interval, s.detection_time) == (50_000, 150_000) for s in ours.last.values()), 5
            )
            print(f"{kind}: failures meanwhile: {[session.failures for session in ours.last.values()]}")

            # an orderly end: the router is informed, and no route is lost
            ours.want()
            await eventually(lambda: "up" not in router.bfd_states().values(), 5)
            assert ours.speaker.pid is None or not ours.last
            if kind == "bird":
                # BIRD 2.0.12 treats AdminDown as a failure and ends the session: it comes back without BFD
                await eventually(lambda: {session.losses for session in bgp.last.sessions.values()} == {1})
                await eventually(lambda: bgp.up() == {"four", "six"} and set(router.routes()) == {V4, V6}, 30)
            else:
                await asyncio.sleep(0.5)
                assert set(router.routes()) == {V4, V6}
                assert bgp.up() == {"four", "six"}
            losses = {name: session.losses for name, session in bgp.last.sessions.items()}
            ours.speaker.want(desired.bfd)
            await eventually(lambda: ours.up() == {"four", "six"} and router.bfd_states() == both)

            # the router is cut off without notice
            cut = time.monotonic()
            port = router.port(router.nics[0])
            keys = [lab.faults.filter("all", port), lab.faults.filter("all", target=port)]
            begun = time.monotonic()
            await eventually(lambda: not bgp.up(), 2, 0.001)
            took = time.monotonic() - begun
            print(f"{kind}: both sessions lost {took:.3f} s after the cut (the cut itself took {begun - cut:.3f} s)")
            assert took < 0.4
            for name in ("four", "six"):
                lost = bgp.last.sessions[name]
                assert lost.loss is not None and lost.loss.kind is LossKind.BFD
                assert "within the detection time" in bgp_words.why_down(lost)
            for key in keys:
                lab.faults.lift(key)
            await eventually(lambda: bgp.up() == {"four", "six"}, 30)
            await eventually(lambda: ours.up() == {"four", "six"} and set(router.routes()) == {V4, V6}, 30)
            assert {name: s.losses for name, s in bgp.last.sessions.items()} == {n: c + 1 for n, c in losses.items()}

    with Lab(nodes=1, routers=[kind], pods=0, sessions=[]) as lab:
        lab.router.reconfigure(RouterConfig(sessions(lab.nodes[0])))
        with inside(lab.nodes[0]):
            asyncio.run(story(lab))
