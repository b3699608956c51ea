"""Reading and writing API objects: one protocol, two implementations (edge/kube, edge/manifests).

Objects are plain JSON mappings, exactly as in the Kubernetes API; :mod:`porterlb.core.parse` validates them.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from porterlb.core.doctor.installed import Installation

if TYPE_CHECKING:
    from porterlb.core.status.notices import Notice  # imports the planner: help and completion must not wait for it

log = logging.getLogger(__name__)

Obj = Mapping[str, Any]

GROUP = "network.kubesphere.io"
VERSION = "v1alpha2"


class Kind(enum.Enum):
    """The kinds that we read. Value: (group, version, plural, kind, namespaced)."""

    NODE = ("", "v1", "nodes", "Node", False)
    NAMESPACE = ("", "v1", "namespaces", "Namespace", False)
    SERVICE = ("", "v1", "services", "Service", True)
    ENDPOINT_SLICE = ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", True)
    SECRET = ("", "v1", "secrets", "Secret", True)
    LEASE = ("coordination.k8s.io", "v1", "leases", "Lease", True)
    EIP = (GROUP, VERSION, "eips", "Eip", False)
    BGP_CONF = (GROUP, VERSION, "bgpconfs", "BgpConf", False)
    BGP_PEER = (GROUP, VERSION, "bgppeers", "BgpPeer", False)

    @property
    def api_version(self) -> str:
        group, version = self.value[0], self.value[1]
        return f"{group}/{version}" if group else str(version)

    @property
    def plural(self) -> str:
        return str(self.value[2])

    @property
    def kind(self) -> str:
        return str(self.value[3])

    @property
    def namespaced(self) -> bool:
        return bool(self.value[4])


KINDS: Mapping[str, Kind] = {kind.kind: kind for kind in Kind}


@dataclass(frozen=True, slots=True)
class Replaced:
    """A full list of one kind: objects that are not in it are gone."""

    kind: Kind
    objects: tuple[Obj, ...]


@dataclass(frozen=True, slots=True)
class Changed:
    kind: Kind
    object: Obj


@dataclass(frozen=True, slots=True)
class Deleted:
    kind: Kind
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Outage:
    """The API cannot be reached or read: what is known stays in force.

    ``reason``: a sentence. ``refused``: the API answers, but refuses: rights or CRDs are missing.
    """

    reason: str
    refused: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """The API is available again; Replaced events for every kind have been delivered since."""


@dataclass(frozen=True, slots=True)
class Broken:
    """An object cannot be read; its last good version stays. ``message``: empty once it can be read again."""

    where: str
    message: str


Event = Replaced | Changed | Deleted | Outage | Restored | Broken


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A coordination.k8s.io Lease. ``version``: opaque, for compare-and-swap; empty to create the Lease.

    Times in a stored Lease are for people only: never compare them with a local clock; observe changes of the record.
    """

    name: str
    holder: str
    duration: float  # seconds
    transitions: int = 0
    renewals: int = 0  # not a Kubernetes field: kube maps it to renewTime
    annotations: Mapping[str, str] = field(default_factory=dict)
    version: str = ""


Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Marked:
    """How many endpoints of a node were changed, and how many could not be changed: those are tried again."""

    done: int
    failed: int = 0


def lease_version(lease: Obj) -> str:
    """The version of a Lease object, as in its :class:`LeaseRecord`; empty for none.

    It contains the uid too: a write to a Lease that is gone makes the API server create it again, unless the uid says
    which one is meant. A directory of manifests has no uids, and its versions never repeat.
    """
    metadata = lease.get("metadata") or {}
    return "/".join(str(part) for part in (metadata.get("uid"), metadata.get("resourceVersion")) if part)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """What one replica knows (its /state). ``age``: age of the state in seconds; ``source``: where it was read."""

    node: str
    state: Obj
    age: float
    source: str


class Tunnel(Protocol):
    """A connection to the web server of a replica. Methods raise Unavailable."""

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes:
        """The next bytes; none at the end."""

    async def close(self) -> None: ...


class Conflict(Exception):
    """Compare-and-swap failed: another writer has changed the object since. Read it again."""


class Unavailable(Exception):
    """The API did not answer, or not in time. It is unknown what it has done."""


class NoReplica(Unavailable):
    """No replica runs on the node, as far as the API knows."""


class Denied(Exception):
    """The API refused: rights, validation or a missing object. The message says which."""


class Cluster(Protocol):
    """Every method may raise Unavailable; writes may raise Denied, and Conflict if a version was given.

    Each call ends within its own deadline of a few seconds.
    """

    namespace: str  # of Leases and Secrets (the release namespace)
    shares_state: bool
    """Whether replicas must publish their state with :meth:`share_state`; if not, their web servers can be reached."""

    def watch(self, kinds: Iterable[Kind]) -> AsyncIterator[Event]:
        """First a Replaced for each kind, then changes without end; survives outages by itself."""

    async def objects(self, kind: Kind) -> list[Obj]:
        """Every object of a kind, now."""

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Obj | None: ...

    async def apply_status(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        status: Mapping[str, Any],
        *,
        owner: str,
        version: str = "",
        deadline: float = 2.0,
    ) -> Obj:
        """Server-side apply (KEP-555) of the status fields that ``owner`` wants; it gives up fields that are left out.

        ``version``: a resourceVersion that must still be current, otherwise Conflict. ``deadline``: seconds.
        """

    async def apply(self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], *, owner: str) -> Obj:
        """Server-side apply of anything but status: annotations, spec fields. With ``metadata.uid`` in ``body``, only
        to that object, not to another one of the same name."""

    async def emit(self, kind: Kind, obj: Obj, *, type_: str, reason: str, message: str, reporter: str) -> None:
        """Makes an Event about ``obj``; ``type_``: Normal or Warning. Repeats are counted in one Event."""

    async def read_lease(self, name: str) -> LeaseRecord | None: ...

    async def write_lease(self, record: LeaseRecord, *, deadline: float = 1.0) -> LeaseRecord:
        """Creates (version empty) or replaces by compare-and-swap. Raises Conflict if it was changed."""

    async def delete_lease(self, name: str) -> None: ...

    async def leases(self) -> list[LeaseRecord]: ...

    async def mark_endpoints(
        self, node: str, first: Callable[[str, Labels], bool], *, reason: str, message: str, deadline: float
    ) -> Marked:
        """Makes the endpoints on ``node`` not ready, so that kube-proxy sends no new connection there.

        ``first``: whether a pod, by its namespace and labels, comes before others. ``deadline``: seconds for each
        request. May be repeated: endpoints that are already not ready are left unchanged."""

    async def marking_bounded(self, deadline: float) -> bool:
        """Whether the right to :meth:`mark_endpoints` allows nothing else. ``deadline``: seconds for each request."""

    async def restore_endpoints(self, node: str, *, reason: str, deadline: float) -> Marked:
        """Undoes what :meth:`mark_endpoints` did with this reason, unless it was changed since, and nothing else."""

    async def hello_key(self) -> bytes:
        """The key of the hellos: the Secret ``porterlb-hello`` (kube), or a file created once (manifests)."""

    async def share_state(self, node: str, text: str | None) -> None:
        """Publishes the state of the replica on ``node`` (JSON text) for other readers; None: it is unchanged."""

    async def unshare_state(self, node: str) -> None:
        """Removes the state of the replica on ``node``, which stops."""

    async def replica_state(self, node: str) -> ReplicaState:
        """What the replica on ``node`` knows. Raises Unavailable or Denied; has no deadline but the caller's."""

    async def replica_page(self, node: str, path: str) -> str:
        """A page of the web server of the replica on ``node``. Raises Unavailable or Denied; has no deadline but the
        caller's."""

    async def tunnel(self, node: str) -> Tunnel:
        """A tunnel to the replica on ``node``. Raises Unavailable or Denied; has no deadline but the caller's."""

    async def installation(self) -> Installation:
        """What is installed in the cluster. Raises nothing: for parts that cannot be read, the result says why."""

    async def replica_texts(self, node: str) -> Mapping[str, str]:
        """Logs and metrics of the replica on ``node``, by file name. Raises Unavailable or Denied."""

    async def close(self) -> None: ...


async def tell(cluster: Cluster, kind: str, obj: Obj, notice: Notice, *, reporter: str) -> None:
    """Writes an Event about ``obj``. Best effort: status says the same, so a refusal is only logged."""
    try:
        await cluster.emit(
            KINDS[kind], obj, type_=notice.type_, reason=notice.reason, message=notice.message, reporter=reporter
        )
    except (Unavailable, Conflict, Denied) as error:
        log.debug("An Event was not taken: %s", error)
