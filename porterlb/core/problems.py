"""Why an object does not work as the user asked: values with a reason and a sentence, never only a boolean or text."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


class Reason(enum.StrEnum):
    """The machine-readable part of a condition or Event: CamelCase, as Kubernetes wants it."""

    # objects
    INVALID_FIELD = "InvalidField"
    MISSING_FIELD = "MissingField"
    UNSUPPORTED_FIELD = "UnsupportedField"
    INVALID_ADDRESS = "InvalidAddress"
    REVERSED_RANGE = "ReversedRange"
    EMPTY_POOL = "EmptyPool"
    UNREADABLE = "Unreadable"
    KEPT = "LastGoodVersionKept"
    PLAIN_PASSWORD = "PlainPassword"  # noqa: S105  # a reason
    SECRET_MISSING = "SecretMissing"  # noqa: S105  # a reason
    NO_LOCAL_AS = "NoLocalAS"
    NO_NODE = "NoNode"
    NO_REPLICA = "NoReplica"
    NO_ROUTER = "NoRouterHeard"
    SEVERAL_ROUTERS = "SeveralRouters"
    # pools
    OVERLAPPING = "Overlapping"
    # allocation
    NO_EIP = "NoEip"
    EIP_UNKNOWN = "EipUnknown"
    COMMUNITY_UNKNOWN = "CommunityUnknown"
    EIP_NOT_ALLOWED = "EipNotAllowed"
    EIP_DISABLED = "EipDisabled"
    EIP_EXHAUSTED = "EipExhausted"
    ADDRESS_NOT_IN_EIP = "AddressNotInEip"
    ADDRESS_IN_USE = "AddressInUse"
    ADDRESS_CLAIMED = "AddressClaimedByForeignHost"
    ADDRESS_RESERVED = "AddressReserved"
    ADDRESS_USED_BY_SERVICE = "AddressUsedByService"
    PROXY_ARP = "ProxyArp"
    FAMILY_UNAVAILABLE = "FamilyUnavailable"
    SHARING_DENIED = "SharingDenied"
    # serving
    NO_READY_ENDPOINT = "NoReadyEndpoint"
    NO_USABLE_NODE = "NoUsableNode"
    NO_SESSION = "NoSession"
    NO_PEER = "NoPeer"
    NOT_NEGOTIATED = "FamilyNotNegotiated"
    ROUTES_LOST = "RoutesLostAfterAnnouncing"
    OFF_SEGMENT = "OffSegment"
    NO_INTERFACE = "InterfaceMissing"
    NOT_LEADER = "NotLeader"
    ADDRESS_CONFLICT = "AddressConflict"
    # segments and replicas
    NODE_UNREACHABLE = "NodeUnreachable"
    HELLO_REFUSED = "HelloRefused"
    DUPLICATE_NODE = "DuplicateNode"
    ADDRESS_CONTESTED = "AddressContested"


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding that the user should know. ``field``: the path in the object, e.g. ``spec.address``."""

    reason: Reason
    message: str
    field: str = ""
    fatal: bool = True  # False: a warning; the object is still used

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


@dataclass(frozen=True, slots=True)
class Parsed(Generic[T]):
    """A parsed object, or None where a problem is fatal."""

    value: T | None
    problems: tuple[Problem, ...] = ()
