"""Shared fixtures of the tests on a real Kubernetes control plane."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.cluster.controlplane.build import BuildError, ensure_binaries
from tests.cluster.controlplane.plane import ControlPlane
from tests.cluster.nodes import images


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds missing programs and images before the first test. The build takes minutes, which is longer than a test's
    time limit."""
    wanted = [
        build
        for marker, build in (("cluster", ensure_binaries), ("nodes", images.prepare))
        if any(item.get_closest_marker(marker) for item in session.items)
    ]
    if session.config.getoption("collectonly") or not wanted:
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    # Show the progress of the build.
    shown = contextlib.nullcontext() if capture is None else capture.global_and_fixture_disabled()
    try:
        with shown:
            for build in wanted:
                build()
    except (BuildError, images.ImageError) as error:
        pytest.exit(f"What the cluster tests need: {error}", returncode=1)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane on loopback, without controllers, for the tests of one module."""
    with ControlPlane() as running:
        yield running
