"""Tables of benchmarks: figures beside their anchors."""

from __future__ import annotations

from bench.answers import kernel
from bench.bgp import ALL, tabled
from bench.report import Table


def test_a_figure_is_divided_by_that_of_its_anchor() -> None:
    table = Table("answers", ("who answers", "median µs"))
    table.rows = [
        ("kernel, ARP, its own address", 20.0),
        ("PorterLB, ARP, 1 VIPs", 50.0),
        ("kernel, NDP, its own address", 0),
        ("PorterLB, NDP, 1 VIPs", 60.0),
        ("kernel, ARP, its own address beside them", 30.0),
    ]
    table.add_ratio("median / kernel's", "median µs", "who answers", kernel)
    assert table.columns == ["who answers", "median µs", "median / kernel's"]
    assert [row[-1] for row in table.rows] == ["", 2.5, "", "", ""]


def test_routes_have_the_worst_figures_and_the_ratios_of_the_medians() -> None:
    ipv4 = {
        ALL: [10.0, 20.0, 90.0],
        "birdc configure: all in the table": [10.0, 8.0, 50.0],
        "GoBGP: all in the table": [40.0, 80.0, 41.0],
    }
    ipv6 = {ALL: [30.0], "birdc configure: all in the table": [60.0]}
    table = tabled("routes", {(100, 4): ipv4, (100, 6): ipv6}, {ALL: "50"})
    assert table.columns == ["", "100 IPv4", "100 IPv6", "target"]
    assert table.rows[0] == [ALL, 90.0, 30.0, "50"]
    assert table.rows[-2:] == [
        ["ratio: PorterLB / birdc configure", 2.0, 0.5, ""],
        ["ratio: PorterLB / GoBGP", 20.0 / 41.0, "", ""],
    ]
    assert table.raw == {"100 IPv4": ipv4, "100 IPv6": ipv6}
