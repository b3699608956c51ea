"""``python -m tests.cluster.prepare`` builds the missing prerequisites of the tests in this folder: the programs of
Kubernetes, and the images on the nodes."""

from __future__ import annotations

import sys

from tests.cluster.controlplane import build
from tests.cluster.nodes import images


def main() -> int:
    return build.main() or images.main()


if __name__ == "__main__":
    sys.exit(main())
