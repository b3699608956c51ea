"""A node is drained under load and then loses its power: neither event causes a loss."""

from __future__ import annotations

import pytest

from lab.measure import wait_until
from lab.routers.bird import Bird
from tests.lab.mode_scenes import RETURN_AFTER, ModeStage

pytestmark = [pytest.mark.lab, pytest.mark.timeout(150)]

DRAIN_AFTER = 4  # seconds: the command must see the intermediate state, also on a busy machine


def test_a_drained_node_can_lose_its_power_without_a_loss() -> None:
    options = ("--return-after", str(RETURN_AFTER), "--drain-after", str(DRAIN_AFTER))
    with ModeStage(routers=("bird",), options=options) as stage:
        stage.wait_wide()
        router = stage.lab.router
        assert isinstance(router, Bird)
        (vip,) = (vip for vip in stage.vips["quiet"] if ":" not in vip)
        assert stage.command("mode", "layer2", "--eip", "standby")[0] == 0
        victim = stage.lab.wait_owner(stage.vips["standby"][0])
        others = {node.name for node in stage.lab.nodes} - {victim}
        seen: list[str] = []

        def drain() -> None:
            code, out, err = stage.command("drain", victim, node=min(others))
            seen.extend([out, err])
            assert code == 0, err

        with stage.lab.segment_client.stream(stage.vips["standby"], interval=0.01) as near:
            far = stage.during(drain, vips=stage.vips["quiet"])
            assert stage.routes(vip) == others, "withdrawn"
            assert stage.lab.wait_owner(stage.vips["standby"][0]) in others
            assert f"Routes to {victim} have the community GRACEFUL_SHUTDOWN" in seen[1]
            assert "It is safe to reboot it." in seen[0]
            off = stage.during(stage.lab.node(victim).power_off, vips=stage.vips["quiet"], after=2.0)
            beside = near.report()
        print(f"while it drained {far}\nwithout power {off}\non the segment {beside}")
        assert far.lost == 0 and off.lost == 0, "by BGP"
        assert beside.lost == 0, "by Layer 2"
        stage.lab.node(victim).power_on()
        assert stage.command("undrain", victim, node=min(others))[0] == 0
        code, out, _ = stage.command("status", node=min(others))
        assert code == 0 and "is drained" not in out


def test_the_router_gets_the_community_before_the_withdrawal() -> None:
    options = ("--return-after", str(RETURN_AFTER), "--drain-after", "60")
    with ModeStage(routers=("bird",), options=options, pools=("quiet",)) as stage:
        stage.wait_wide(("quiet",))
        router = stage.lab.router
        assert isinstance(router, Bird)
        (vip,) = (vip for vip in stage.vips["quiet"] if ":" not in vip)
        assert stage.command("drain", "node-c", "--no-wait")[0] == 0
        hop = next(iter(stage.lab.hops("node-c")))

        def marked() -> bool:
            paths = router.paths("v4")[f"{vip}/32"]
            told = {path.next_hop: path.communities for path in paths}
            return {at for at, found in told.items() if "65535:0" in found} == {hop}

        wait_until(marked, 15, "the community on the routes to node-c, and on no other")
        assert stage.routes(vip) == {node.name for node in stage.lab.nodes}, "not withdrawn yet"
