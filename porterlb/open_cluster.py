"""Opens one of the two kinds of cluster: the only module that parses ``--cluster``."""

from __future__ import annotations

from porterlb.cluster import Cluster
from porterlb.errors import PorterError

DIRECTORY = "dir:"


def open_cluster(
    spec: str, *, namespace: str, kubeconfig: str = "", context: str = "", read_only: bool = False
) -> Cluster:
    """The cluster that ``spec`` names: ``kube``, or ``dir:PATH``. Nothing is read or contacted yet.

    ``read_only``: for queries; a directory is then left unchanged. Raises PorterError for any other ``spec``.
    """
    # Each has its own tree of imports (45 MB for Kubernetes): only the one that is used is loaded.
    if spec == "kube":
        from porterlb.edge.kube import KubeCluster  # noqa: PLC0415

        return KubeCluster.connect(namespace, kubeconfig, context)
    path = spec.removeprefix(DIRECTORY)
    if not spec.startswith(DIRECTORY) or not path:
        raise PorterError(f"{spec!r} is not a cluster.", "Use --cluster kube or --cluster dir:PATH.", exit_code=2)
    from porterlb.edge.manifests import ManifestsCluster  # noqa: PLC0415

    return ManifestsCluster(path, namespace, read_only=read_only)
