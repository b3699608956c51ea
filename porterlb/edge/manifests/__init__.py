"""A directory of YAML manifests as a Cluster."""

from porterlb.edge.manifests.cluster import ManifestsCluster

__all__ = ["ManifestsCluster"]
