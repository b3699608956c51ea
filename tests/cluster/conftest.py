"""What the tests on a real Kubernetes control plane share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.controlplane.build import BuildError, ensure_binaries
from tests.cluster.controlplane.plane import ControlPlane


def pytest_collection_finish(session: pytest.Session) -> None:
    """Builds the programs, where they are missing, before the first test: no test's time limit has minutes for it."""
    if session.config.getoption("collectonly") or not any(item.get_closest_marker("cluster") for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        if capture is None:
            ensure_binaries()
        else:
            with capture.global_and_fixture_disabled():  # the progress is for whoever waits
                ensure_binaries()
    except BuildError as error:
        pytest.exit(f"The control plane for the cluster tests: {error}", returncode=1)


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane on loopback, without controllers, for the tests of one module."""
    with ControlPlane() as running:
        yield running
