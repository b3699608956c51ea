"""Settings of all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# A machine that is busy makes single examples slow, which says nothing about the code. In the gate the examples are the
# same each time: it judges a change, not the luck of a draw.
settings.register_profile("tests", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tests")
