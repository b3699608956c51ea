"""API objects to model values, one object at a time: problems instead of exceptions."""

from porterlb.core.parse.conf import parse_conf
from porterlb.core.parse.eip import parse_eip
from porterlb.core.parse.endpoints import merge, parse_endpoint_slice
from porterlb.core.parse.meta import Meta, parse_meta
from porterlb.core.parse.node import parse_node
from porterlb.core.parse.peer import parse_peer
from porterlb.core.parse.service import addresses_elsewhere, class_hint, parse_service

__all__ = [
    "Meta",
    "addresses_elsewhere",
    "class_hint",
    "merge",
    "parse_conf",
    "parse_eip",
    "parse_endpoint_slice",
    "parse_meta",
    "parse_node",
    "parse_peer",
    "parse_service",
]
