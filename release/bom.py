"""The bill of materials: which packages the image holds beside PorterLB, with versions, hashes and licenses.

The SBOM is CycloneDX 1.6 (ECMA-424), made by cyclonedx-python-lib.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

CLASSIFIERS = {
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: ISC License (ISCL)": "ISC",
    "License :: OSI Approved :: Python Software Foundation License": "PSF-2.0",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Classifiers of PyPI -> SPDX identifiers."""


@dataclass(frozen=True, slots=True)
class Package:
    """One pinned package. ``license``: an SPDX identifier or the text of the package's own metadata."""

    name: str
    version: str
    hashes: tuple[str, ...]
    license: str


def packages(requirements: str) -> list[Package]:
    """Those of a requirements file with hashes, in its order."""
    found: list[Package] = []
    joined = requirements.replace("\\\n", " ")
    for line in joined.splitlines():
        pinned = re.match(r"([A-Za-z0-9._-]+)==(\S+)", line.strip())
        if pinned:
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            found.append(Package(pinned[1], pinned[2], hashes, license_of(pinned[1])))
    return found


def license_of(name: str) -> str:
    """What the installed package says: License-Expression (PEP 639), else its classifiers, else License."""
    try:
        data = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "unknown"
    told = data.json
    if told.get("license_expression"):
        return str(told["license_expression"])
    known = sorted({CLASSIFIERS[line] for line in data.get_all("Classifier") or () if line in CLASSIFIERS})
    return " OR ".join(known) or str(told.get("license") or "unknown").splitlines()[0][:80]


def sbom(version: str, found: Iterable[Package], epoch: int) -> str:
    """CycloneDX JSON. ``epoch``: seconds since 1970; the serial number follows from the content."""
    bom = Bom()
    bom.metadata.timestamp = datetime.fromtimestamp(epoch, UTC)
    bom.metadata.component = _component("porterlb", version, "Apache-2.0", (), ComponentType.APPLICATION)
    listed = list(found)
    for one in listed:
        bom.components.add(_component(one.name, one.version, one.license, one.hashes, ComponentType.LIBRARY))
    content = ";".join(f"{one.name}=={one.version}" for one in listed)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"porterlb {version} {content}")
    bom.register_dependency(bom.metadata.component, bom.components)
    return JsonV1Dot6(bom).output_as_string(indent=1) + "\n"


def _component(name: str, version: str, license_: str, hashes: Iterable[str], kind: ComponentType) -> Component:
    return Component(
        type=kind,
        name=name,
        version=version,
        bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", None, name, version),
        licenses=[DisjunctiveLicense(name=license_)],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in hashes],
    )


def licenses(version: str, found: Iterable[Package]) -> str:
    """A table for people."""
    rows = [f"| {one.name} | {one.version} | {one.license} |" for one in found]
    head = [
        f"# Licenses of the image of PorterLB {version}",
        "",
        "PorterLB has the license Apache-2.0. The image also holds these Python packages, and the packages of its base",
        "image, whose licenses are in /usr/share/doc. Only tests use scapy (GPL-2.0-only); it is not in the image.",
        "",
        "| package | version | license |",
        "|---|---|---|",
    ]
    return "\n".join([*head, *rows, ""])
