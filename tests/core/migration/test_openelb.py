"""OpenELB's objects: unknown and malformed kinds."""

from __future__ import annotations

import pytest

from porterlb.core.migration.openelb import convert
from porterlb.core.migration.value import API_VERSION


@pytest.mark.parametrize("kind", [{"name": "Eip"}, ["Eip"], None, 7, "Pool"])
def test_a_kind_of_any_type_is_named_as_lost(kind: object) -> None:
    """`kind: {...}` ended the command with a TypeError. Found by `make fuzz`."""
    made = convert([{"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": "a"}}])
    assert made.manifests == []
    assert [remark.text for remark in made.remarks] == ["PorterLB has no such kind."]


@pytest.mark.parametrize(
    ("finalizers", "patch"),
    [
        (["finalizer.lb.kubesphere.io/v1alpha1"], '{"metadata":{"finalizers":null}}'),
        (["x/y", "finalizer.ipam.kubesphere.io/v1alpha1"], '{"metadata":{"finalizers":["x/y"]}}'),
    ],
)
def test_finalizers_of_openelb_are_removed_and_no_others(finalizers: list[str], patch: str) -> None:
    metadata = {"name": "a", "namespace": "b", "finalizers": finalizers}
    made = convert([{"apiVersion": "v1", "kind": "Service", "metadata": metadata}])
    assert made.manifests == []
    (remark,) = made.remarks
    assert remark.text.endswith(f"kubectl patch service a --namespace b --type=merge -p '{patch}'")


@pytest.mark.parametrize("finalizers", [[], ["service.kubernetes.io/load-balancer-cleanup"], "x", None, [7]])
def test_other_finalizers_are_not_mentioned(finalizers: object) -> None:
    made = convert([{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "finalizers": finalizers}}])
    assert made.remarks == []
