"""The custom resource definitions: one source for both clusters and for the chart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NAMES = ("eip", "bgpconf", "bgppeer")


def text(name: str) -> str:
    """The YAML text of one definition: ``eip``, ``bgpconf`` or ``bgppeer``."""
    return (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")


@cache
def load() -> Mapping[str, dict[str, Any]]:
    """The CustomResourceDefinitions (apiextensions.k8s.io/v1) by kind: ``Eip``, ``BgpConf``, ``BgpPeer``.

    The same objects at each call: copy before changing one.
    """
    definitions = [yaml.load(text(name), Loader=_LOADER) for name in NAMES]  # noqa: S506 — a safe one
    return {definition["spec"]["names"]["kind"]: definition for definition in definitions}


def schema(kind: str) -> Mapping[str, Any]:
    """The OpenAPI v3 schema of a kind (its one served version)."""
    found: Mapping[str, Any] = load()[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found
