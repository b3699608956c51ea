"""The rights that the tests give the managers equal the chart's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.chart import chart
from tests.cluster.rights import CLUSTER_RULES, NAMESPACE_RULES, SECRETS


def spelled(rules: Iterable[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Every single right: group, resource, name (empty: any), verb."""
    return {
        (group, resource, name, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames") or [""]
        for verb in rule["verbs"]
    }


def test_the_charts_rules_are_those_of_the_tests() -> None:
    objects = chart.rendered({"bgp": {"passwordSecrets": [name for name in SECRETS if name != "porterlb-hello"]}})
    (whole,) = (obj["rules"] for obj in objects if obj["kind"] == "ClusterRole")
    (here,) = (obj["rules"] for obj in objects if obj["kind"] == "Role")
    assert spelled(whole) == spelled(CLUSTER_RULES)
    assert spelled(here) == spelled(NAMESPACE_RULES)
