"""The Kubernetes API as a Cluster."""

from porterlb.edge.kube.kube_cluster import KubeCluster

__all__ = ["KubeCluster"]
