"""The paths of kinds, objects and their status on the API server."""

from __future__ import annotations

from porterlb.cluster import Denied, Kind
from porterlb.core.names import NAME_RULE, is_name


def collection(kind: Kind, namespace: str = "") -> str:
    """The path of all objects of a kind: in one namespace, or in all namespaces if it is empty."""
    group, version, plural, _, namespaced = kind.value
    root = f"/apis/{group}/{version}" if group else f"/api/{version}"
    if namespace and namespaced:
        return f"{root}/namespaces/{_segment(namespace)}/{plural}"
    return f"{root}/{plural}"


def item(kind: Kind, name: str, namespace: str = "") -> str:
    """The path of one object. Raises Denied if the name is not valid."""
    if kind.namespaced and not namespace:
        raise Denied(f"A {kind.kind} has a namespace, and none was given.")
    return f"{collection(kind, namespace)}/{_segment(name)}"


PODS = "/api/v1/pods"
"""All pods of all namespaces."""


def pod_status(namespace: str, name: str) -> str:
    """The path of the status of a pod."""
    return f"/api/v1/namespaces/{_segment(namespace)}/pods/{_segment(name)}/status"


def events(namespace: str, name: str = "") -> str:
    """The path of the Events (events.k8s.io/v1) of a namespace, or of one of them."""
    path = f"/apis/events.k8s.io/v1/namespaces/{_segment(namespace)}/events"
    return f"{path}/{_segment(name)}" if name else path


def _segment(name: str) -> str:
    # Any other text could change the path's meaning ("..", a slash, the empty name), and no object has such a name.
    if not is_name(name):
        raise Denied(f"{name[:60]!r} is not the name of an object: {NAME_RULE}.")
    return name
