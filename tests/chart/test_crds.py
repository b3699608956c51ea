"""The custom resource definitions: complete, structural, documented; and old users' sample manifests stay valid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from porterlb import crds
from porterlb.core import names

KINDS = ("Eip", "BgpConf", "BgpPeer")


def walk(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}".lstrip("."))
    if isinstance(schema.get("additionalProperties"), Mapping):
        yield from walk(schema["additionalProperties"], f"{path}.*")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def test_all_three_kinds_are_there() -> None:
    assert tuple(crds.load()) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_head(kind: str) -> None:
    definition = crds.load()[kind]
    spec = definition["spec"]
    assert definition["apiVersion"] == "apiextensions.k8s.io/v1"
    assert definition["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert (spec["group"], spec["scope"]) == ("network.kubesphere.io", "Cluster")
    assert spec["names"]["shortNames"]
    (version,) = spec["versions"]
    assert version["name"] == "v1alpha2"
    assert version["served"] and version["storage"]
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind: str) -> None:
    scalars_in_lists_and_maps = ("[]", ".*")
    for path, schema in walk(crds.schema(kind)):
        if not path.endswith(scalars_in_lists_and_maps):
            assert schema.get("description", "").endswith("."), f"{kind}.{path} has no sentence"


@pytest.mark.parametrize("kind", KINDS)
def test_the_spec_is_closed_and_bounded(kind: str) -> None:
    """An API server then prunes or refuses values that are too long or too deep. One field is open, for OpenELB's
    notation; its depth is limited when objects are read."""
    names_of_objects = {"spec.conf.authPasswordSecret.name", "spec.advertise[].eips[]"}
    for path, schema in walk(crds.schema(kind)["properties"]["spec"], "spec"):
        type_ = schema.get("type")
        if type_ == "string":
            assert {"maxLength", "enum"} & schema.keys(), path
        if type_ == "array":
            assert schema["maxItems"] <= 1000, path
        if type_ == "object" and "properties" not in schema:
            assert schema["maxProperties"] <= 1000, path
            assert isinstance(schema["additionalProperties"], Mapping), path
        assert ("x-kubernetes-preserve-unknown-fields" in schema) == (path == "spec.namespaceSelector"), path
        if path in names_of_objects:
            assert schema["pattern"] == names.NAME, path
        if path == "spec.conf.authPasswordSecret.key":
            assert schema["pattern"] == names.KEY
        if path == "spec.namespaces[]":
            assert schema["pattern"] == names.NAMESPACE


@pytest.mark.parametrize("kind", KINDS)
def test_structural(kind: str) -> None:
    """The API server's requirements for a structural schema (KEP-1693), as far as we use it."""
    for path, schema in walk(crds.schema(kind)):
        int_or_string = schema.get("x-kubernetes-int-or-string", False)
        assert ("type" in schema) != int_or_string, f"{kind}.{path} needs a type"
        assert not ("properties" in schema and "additionalProperties" in schema), path
        if schema.get("type") == "array":
            assert "items" in schema, path
        if "default" in schema:
            assert schema["default"] in schema.get("enum", [schema["default"]]), path
        for required in schema.get("required", []):
            assert required in schema["properties"], path


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_are_a_map_by_type(kind: str) -> None:
    conditions = crds.schema(kind)["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert set(conditions["items"]["required"]) == {"type", "status"}


def test_text_is_what_is_loaded() -> None:
    assert "kind: CustomResourceDefinition" in crds.text("eip")
