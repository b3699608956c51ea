"""The alerting rules: Prometheus accepts them, they fire correctly, and each has a page and uses existing metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from porterlb.edge import metrics
from tests.chart import chart

FILE = chart.FOLDER / "files" / "alerts.yaml"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "alerts.md"
RULES: list[dict[str, Any]] = yaml.safe_load(FILE.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]

# Alert -> a series that makes it fire, one that does not, and minutes until it fires.
FIRES: dict[str, tuple[str, str, str, int]] = {
    "PorterLBAddressNotServed": ('porterlb_vips{mode="none"}', "2x30", "0x30", 5),
    "PorterLBServiceWithoutAddress": ('porterlb_services_refused{reason="NoEip"}', "1x30", "0x30", 10),
    "PorterLBSessionDown": ('porterlb_bgp_session_up{peer="r1",instance="a"}', "0x30", "1x30", 5),
    "PorterLBAllSessionsDown": ('porterlb_bgp_session_up{peer="r1",instance="a"}', "0x30", "1x30", 5),
    "PorterLBRoutesRejected": ('porterlb_bgp_routes_rejected{instance="a"}', "3x30", "0x30", 5),
    "PorterLBExaBGPRestarts": ('porterlb_exabgp_restarts_total{instance="a"}', "0+1x30", "1x30", 15),
    "PorterLBNodeDead": ("porterlb_nodes_dead", "1x30", "0x30", 5),
    "PorterLBDeadNodeNotMarked": ('porterlb_dead_nodes_not_marked{reason="off"}', "1x30", "0x30", 5),
    "PorterLBNoLeader": ("porterlb_leader", "0x30", "1x30", 5),
    "PorterLBSingleReplica": ("porterlb_replicas_fresh", "1x30", "2x30", 10),
    "PorterLBApiUnavailable": ('porterlb_api_up{instance="a"}', "0x30", "1x30", 5),
    "PorterLBReplicaIsolated": ('porterlb_doubt{instance="a"}', "1x30", "0x30", 5),
    "PorterLBAddressConflict": ("porterlb_address_conflicts", "1x30", "0x30", 5),
    "PorterLBInternalError": ('porterlb_part_failures_total{part="plan",instance="a"}', "0+1x30", "1x30", 15),
    "PorterLBLogLinesDropped": ('porterlb_log_lines_dropped_total{instance="a"}', "0+9x30", "7x30", 15),
}
_UNBALANCED = {
    'porterlb_layer2_imbalance{instance="a"}': "2x40",
    'porterlb_layer2_excess{instance="a"}': "4x40",
    'porterlb_layer2_rebalances{instance="a"}': "0x40",
    'porterlb_leader{instance="a"}': "1x40",
}
PAIRS = {
    "PorterLBLayer2Unbalanced": (_UNBALANCED, {**_UNBALANCED, 'porterlb_layer2_rebalances{instance="a"}': "1x40"}, 20),
    "PorterLBPoolNearlyFull": (
        {'porterlb_eip_addresses{eip="p"}': "10x30", 'porterlb_eip_addresses_used{eip="p"}': "10x30"},
        {'porterlb_eip_addresses{eip="p"}': "10x30", 'porterlb_eip_addresses_used{eip="p"}': "8x30"},
        15,
    ),
    "PorterLBModeFlapping": (
        {'porterlb_vips{mode="bgp",instance="a"}': "2x30", 'porterlb_mode_changes_total{instance="a"}': "0+2x30"},
        {'porterlb_vips{mode="bgp",instance="a"}': "100x30", 'porterlb_mode_changes_total{instance="a"}': "0+2x30"},
        20,
    ),
}


def promtool(*arguments: str) -> str:
    program = shutil.which("promtool")
    assert program, "promtool is missing: install the system packages with `make setup`"
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cases() -> dict[str, tuple[dict[str, str], dict[str, str], int]]:
    single = {name: ({series: bad}, {series: good}, at) for name, (series, bad, good, at) in FIRES.items()}
    return {**single, **PAIRS}


def test_prometheus_accepts_the_rules() -> None:
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", str(FILE))


def test_every_alert_fires_when_it_should_and_not_otherwise(tmp_path: Path) -> None:
    assert set(cases()) == set(NAMES)
    tests = []
    for name, (firing, quiet, minutes) in cases().items():
        for series, count in ((firing, 1), (quiet, 0)):
            tests.append(
                {
                    "interval": "1m",
                    "input_series": [{"series": key, "values": value} for key, value in series.items()],
                    "promql_expr_test": [
                        {
                            "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)',
                            "eval_time": f"{minutes}m",
                            "exp_samples": [{"labels": "{}", "value": count}],
                        }
                    ],
                }
            )
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(FILE)], "evaluation_interval": "10s", "tests": tests}))
    assert "SUCCESS" in promtool("test", "rules", str(file))


@pytest.mark.parametrize("rule", RULES, ids=NAMES)
def test_every_alert_has_a_page_and_metrics_that_exist(rule: dict[str, Any]) -> None:
    source = Path(metrics.__file__).read_text()
    for metric in re.findall(r"porterlb_[a-z0-9_]+", rule["expr"]):
        assert f'"{metric.removesuffix("_total")}"' in source, metric
    assert f"\n## {rule['alert']}\n" in PAGE.read_text()
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert all(rule["annotations"][key].endswith(".") for key in ("summary", "description"))


def test_the_page_has_no_other_alert() -> None:
    assert re.findall(r"^## (\S+)$", PAGE.read_text(), re.MULTILINE) == NAMES


def test_the_chart_installs_them_with_links_and_without_those_that_are_disabled() -> None:
    objects = chart.rendered(chart.MATRIX["alerts"])
    rule = chart.only(objects, "PrometheusRule")
    assert rule["metadata"]["labels"]["team"] == "net"
    (group,) = rule["spec"]["groups"]
    assert [one["alert"] for one in group["rules"]] == [name for name in NAMES if name != "PorterLBSingleReplica"]
    for one, known in zip(group["rules"], [r for r in RULES if r["alert"] != "PorterLBSingleReplica"], strict=True):
        assert one["annotations"].pop("runbook_url") == f"https://docs.example/alerts.html#{one['alert'].lower()}"
        assert one == known
    assert not [obj for obj in chart.rendered() if obj["kind"] == "PrometheusRule"]
