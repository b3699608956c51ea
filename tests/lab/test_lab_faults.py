"""The lab's own faults have the intended effect: checks which nodes still hear each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.cluster import Lab
from lab.netns import LabError

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(nodes=2, routers=(), pod_servers=False, second=True) as made:
        yield made


def answered(lab: Lab, address: str, count: int = 1) -> int:
    """The number of answers that node-a gets to ``count`` pings, 10 ms apart."""
    done = lab.node("node-a").run(
        ["ping", "-q", "-c", str(count), "-i", "0.01", "-W", "0.3", address], check=False, timeout=60
    )
    return int(done.stdout.split(" received")[0].split()[-1])


def test_a_filter_stops_one_protocol_in_one_direction(lab: Lab) -> None:
    a, b = lab.nodes
    a.flush_neighbours()
    b.flush_neighbours()
    key = lab.faults.filter("arp-request", "node-a", "node-b")
    assert answered(lab, b.v4) == 0
    assert answered(lab, b.v6) == 1, "only ARP is filtered"
    assert b.run(["ping", "-c", "1", "-W", "1", a.v4], check=False).returncode == 0, "the other direction is open"
    lab.faults.lift(key)
    a.flush_neighbours()
    assert answered(lab, b.v4) == 1


def test_a_one_way_link(lab: Lab) -> None:
    lab.faults.filter("all", "node-b", "node-a")
    assert answered(lab, lab.node("node-b").v4) == 0
    lab.faults.clear()
    assert answered(lab, lab.node("node-b").v4) == 1


def test_loss_is_random_and_about_as_much_as_asked(lab: Lab) -> None:
    lab.faults.loss(30, ["node-b"])
    received = answered(lab, lab.node("node-b").v4, 300)
    lab.faults.clear()
    # 30 % in each direction: 49 % of the 300 answers arrive. Six standard deviations are 52.
    assert 147 - 52 <= received <= 147 + 52


def test_the_second_segment_and_a_port_that_leaves_its_vlan(lab: Lab) -> None:
    b = lab.node("node-b")
    nic = b.nics[1]
    assert answered(lab, nic.v4) == 1
    lab.net.port_member(b.port(nic), False)
    assert answered(lab, nic.v4) == 0
    assert "NO-CARRIER" not in b.run(["ip", "link", "show", nic.name]).stdout
    assert answered(lab, b.v4) == 1, "the first segment is untouched"
    lab.net.port_member(b.port(nic), True)
    assert answered(lab, nic.v4) == 1


def test_an_unknown_protocol_is_refused(lab: Lab) -> None:
    with pytest.raises(LabError, match="there is no filter for ipx"):
        lab.faults.filter("ipx")
