"""Real routers by name: bird, frr, gobgp, openbgpd."""

from __future__ import annotations

from lab.netns import LabError
from lab.routers.base import NODES_AS, RibPath, Router, RouterConfig, Session, SessionState
from lab.routers.bird import Bird
from lab.routers.frr import Frr
from lab.routers.gobgp import GoBgp
from lab.routers.openbgpd import OpenBgpd

KINDS: dict[str, type[Router]] = {"bird": Bird, "frr": Frr, "gobgp": GoBgp, "openbgpd": OpenBgpd}

__all__ = ["KINDS", "NODES_AS", "RibPath", "Router", "RouterConfig", "Session", "SessionState", "router_class"]


def router_class(kind: str) -> type[Router]:
    """The class for a router's name."""
    try:
        return KINDS[kind]
    except KeyError:
        raise LabError(f"there is no router {kind!r}; there are {', '.join(KINDS)}") from None
