"""The Grafana dashboard: it is complete for Grafana, its queries are PromQL, and each metric and label exists."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart import chart
from tests.chart.test_alerts import promtool

FILE = chart.FOLDER / "files" / "dashboard.json"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
BOARD: dict[str, Any] = json.loads(FILE.read_text())
PANELS: list[dict[str, Any]] = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
EXPRESSIONS = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
EACH = pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])

UNITS = {"short", "none", "percentunit", "s", "pps", "wps", "bool_on_off", "bool_yes_no"}
"""The Grafana value formats in use."""

WIDTH = 24
"""The number of columns of Grafana's grid."""

ADDED = {"job", "instance", "le"}
"""Labels that Prometheus adds."""


def served() -> dict[str, set[str]]:
    """The labels of each series, by name: docs/metrics.md is generated from the program, and a test compares them."""
    found = {}
    for name, type_, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \|", PAGE.read_text(), re.MULTILINE):
        for suffix in ("_bucket", "_count", "_sum") if type_ == "histogram" else ("",):
            found[name + suffix] = set(re.findall(r"`(\w+)`", labels))
    return found


def plain(expression: str) -> str:
    """The query with values in place of Grafana's variables."""
    for variable, value in (("$__rate_interval", "5m"), ("$__range", "6h"), ("$job", ".*")):
        expression = expression.replace(variable, value)
    return expression


def test_grafana_finds_what_it_needs() -> None:
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids) and all(isinstance(number, int) and number > 0 for number in ids)
    assert BOARD["uid"] == "porterlb" and BOARD["title"] == "PorterLB" and "id" not in BOARD
    assert BOARD["schemaVersion"] >= 36, "from then on a data source is an object"
    assert Counter(v["name"] for v in BOARD["templating"]["list"]) == {"datasource": 1, "job": 1}
    datasource = next(v for v in BOARD["templating"]["list"] if v["name"] == "datasource")
    assert (datasource["type"], datasource["query"]) == ("datasource", "prometheus")
    assert {"time", "refresh", "annotations", "timezone", "tags"} <= BOARD.keys()


def test_panels_do_not_overlap() -> None:
    taken: Counter[tuple[int, int]] = Counter()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= WIDTH
        taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
    assert max(taken.values()) == 1


@EACH
def test_every_panel_has_a_unit_a_description_and_the_chosen_data_source(panel: dict[str, Any]) -> None:
    assert panel["type"] in ("stat", "timeseries", "bargauge")
    assert panel["description"].endswith(".") and panel["fieldConfig"]["defaults"]["unit"] in UNITS
    for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
        assert source == {"type": "prometheus", "uid": "${datasource}"}
    names = [target["refId"] for target in panel["targets"]]
    assert len(set(names)) == len(names)
    for target in panel["targets"]:
        assert target["range"] is not target["instant"], "a graph has a range, a number is of now"
        assert target["range"] is (panel["type"] == "timeseries")
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {"steps": []})["steps"][1:]:
        assert step["value"] is not None


def test_prometheus_accepts_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{n}", "expr": plain(target["expr"])} for n, (_, target) in enumerate(EXPRESSIONS)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", str(file))


@pytest.mark.parametrize(("title", "target"), EXPRESSIONS, ids=[f"{t}-{e['refId']}" for t, e in EXPRESSIONS])
def test_every_metric_and_label_exists(title: str, target: dict[str, Any]) -> None:
    known = served()
    names = set(re.findall(r"porterlb_[a-z0-9_]+", target["expr"]))
    assert names and names <= known.keys(), f"{title}: {names - known.keys()}"
    labels = ADDED.union(*(known[name] for name in names))
    grouped = [label.strip() for by in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in by.split(",")]
    shown = re.findall(r"\{\{\s*(\w+)\s*\}\}", target["legendFormat"])
    selected = re.findall(r"(\w+)\s*=~?\"", target["expr"])
    assert {*grouped, *shown, *selected} <= labels, title
    assert not grouped or set(shown) <= set(grouped), f"{title}: a label that is summed away cannot be shown"
    assert all('job=~"$job"' in selector for selector in re.findall(r"porterlb_\w+(\{[^}]*\}|)", target["expr"]))


def test_the_chart_installs_it_for_the_sidecar() -> None:
    objects = chart.rendered(chart.MATRIX["dashboard"])
    (found,) = [obj for obj in objects if obj["kind"] == "ConfigMap"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["labels"]["app.kubernetes.io/name"] == "porterlb"
    assert found["metadata"]["annotations"] == {"grafana_folder": "Network"}
    assert found["metadata"]["namespace"] == "monitoring"
    assert json.loads(found["data"]["porterlb.json"]) == BOARD
    assert not [obj for obj in chart.rendered() if obj["kind"] == "ConfigMap"]
