"""The stories of docs/stories on real nodes: each command of a page, in order, as a reader runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lab.measure import wait_until
from lab.routers.frr import Frr
from lab.topology import rack_nic, racks
from tests.cluster.backend import CONTROL
from tests.cluster.reader import desk
from tests.cluster.whole import Whole, WholeBackend, whole

pytestmark = [pytest.mark.cluster, pytest.mark.lab, pytest.mark.nodes, pytest.mark.timeout(400)]

VIP = "10.77.0.220"


class RackBackend(WholeBackend):
    """The control plane is in rack 1."""

    nic, gateway = rack_nic(1, CONTROL), rack_nic(1, 1)


@contextmanager
def cluster(nodes: int, *routers: str, **options: Any) -> Iterator[Whole]:
    """Real nodes without PorterLB. After a failure, the logs of all its programs are printed."""
    with whole(nodes=nodes, routers=routers, **options) as lab:
        try:
            yield lab
        except BaseException:
            for node in lab.nodes:
                print(f"--- {node.name}\n{lab.manager_log(node.name)[-4000:]}")
            for router in lab.routers:
                print(f"--- {router.name}\n{router.process.output()[-2000:] if router.process else ''}")
            raise


def configured(router: Frr) -> Callable[[str], None]:
    """Restarts the router with the configuration of the page."""

    def start(text: str) -> None:
        router.stop_daemon()
        router.render = lambda: text  # type: ignore[method-assign]
        router.start_daemon()

    return start


def frr(lab: Whole, number: int = 0) -> Frr:
    router = lab.routers[number]
    assert isinstance(router, Frr)
    return router


def hops(router: Frr, vip: str) -> frozenset[str]:
    return router.next_hops().get(f"{vip}/32", frozenset())


def test_quick_start_and_home_lab(tmp_path: Path) -> None:
    with cluster(2, "frr") as lab:
        reader, router = desk(lab, tmp_path), frr(lab)
        said = reader.follow("index.md")
        owner = lab.wait_owner(VIP)
        assert f"Layer 2 {owner} answers with the MAC of {owner}" in " ".join(said.split()), said
        assert not hops(router, VIP)
        said = reader.follow("stories/home-lab.md", {"frr": configured(router)})
        assert "established" in said.lower(), said
        wait_until(lambda: hops(router, VIP) == lab.hops("node-a", "node-b"), 20, "both next hops")
        wait_until(lambda: len(lab.client.pods_answering(VIP, 20)) == 2, 20, "answers through the router")

        router.kill_daemon()
        reader.run(f"curl --fail --silent --max-time 2 http://{VIP}/")
        told = wait_until(
            lambda: text if "layer2" in (text := reader.run("kubectl porterlb history --since 1m")) else "",
            15,
            "the history to name the switch",
            0.5,
        )[0]
        assert VIP in told or "home" in told, told


def test_single_node(tmp_path: Path) -> None:
    with cluster(1) as lab:
        lab.kubectl("label", "node", "node-a", "node.kubernetes.io/exclude-from-external-load-balancers=")
        lab.kubectl("taint", "node", "node-a", "node-role.kubernetes.io/control-plane:NoSchedule")
        said = desk(lab, tmp_path).follow("stories/single-node.md")
        assert VIP in said, said
        lab.nodes[0].power_off()
        lab.back("node-a")
        wait_until(lambda: lab.segment_client.pods_answering(VIP, 5), 40, "answers after the restart", 0.2)


def test_two_switches(tmp_path: Path) -> None:
    with cluster(3, "frr", "frr") as lab:
        reader = desk(lab, tmp_path)

        def both(text: str) -> None:
            for number in (0, 1):
                configured(frr(lab, number))(text)

        reader.follow("stories/two-switches.md", {"frr": both})
        (vip,) = lab.wait_vips("web")
        names = [node.name for node in lab.nodes]
        for number in (0, 1):
            wait_until(lambda n=number: hops(frr(lab, n), vip) == lab.hops(*names), 20, f"next hops of switch {number}")
        wait_until(lambda: len(lab.client.pods_answering(vip, 30)) == 3, 20, "answers of all pods")
        frr(lab, 1).kill_daemon()
        lab.nodes[2].power_off()
        wait_until(lambda: hops(frr(lab, 0), vip) == lab.hops(*names[:2]), 5, "the dead node to be withdrawn")


def integrated(router: Frr) -> Callable[[str], None]:
    """Restarts the router with the configuration of the page, which is one file for all daemons. The router still
    announces the networks that the lab needs: the routes to the pods of other racks."""
    networks = "".join(f"  network {prefix}\n" for prefix in router.config.injected if ":" not in prefix)
    underlay = f"router bgp {router.config.asn}\n address-family ipv4 unicast\n{networks}"

    def start(text: str) -> None:
        profile, bgp = text.split("router bgp", 1)
        configured(router)(f"router bgp{bgp}{underlay}")
        router.vty("configure terminal", *profile.splitlines(), "end", daemon="bfdd")

    return start


def test_rack_per_subnet(tmp_path: Path) -> None:
    with cluster(2, topology=racks((("frr",), ("frr",)), "frr", bfd=50), backend=RackBackend) as lab:
        starts = iter([integrated(frr(lab, number)) for number in range(3)])

        def start(text: str) -> None:
            next(starts)(text)

        said = desk(lab, tmp_path).follow("stories/racks.md", {"frr": start})
        assert said.lower().count("bfd") and "established" in said.lower(), said
        spine = frr(lab, 2)
        (vip,) = lab.wait_vips("web")
        first, second = (lab.routers[number].nics[1].v4 for number in (0, 1))
        wait_until(lambda: hops(spine, vip) == {first, second}, 20, "both racks at the spine")
        wait_until(lambda: len(lab.client.pods_answering(vip, 20)) == 2, 20, "answers of both pods")
        lab.node("node-b").power_off()
        wait_until(lambda: hops(spine, vip) == {first}, 3, "the dead node to be withdrawn, by BFD")
        wait_until(lambda: len(lab.client.pods_answering(vip, 5)) == 1, 5, "answers of the other pod")
        lab.back("node-b")
        wait_until(lambda: hops(spine, vip) == {first, second}, 30, "both racks at the spine again")
        lab.routers[0].isolate()
        wait_until(lambda: hops(spine, vip) == {second}, 3, "the dead router to be left out, by BFD")
        wait_until(lambda: len(lab.client.pods_answering(vip, 5)) == 1, 5, "answers by the other rack")
