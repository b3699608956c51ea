"""All known API objects, parsed: updated one object at a time.

Cluster events go in (:meth:`Objects.replace`, :meth:`Objects.change`, :meth:`Objects.delete`); the parts of a
:class:`~porterlb.core.model.Snapshot` come out. The work for one changed object does not grow with the number of
objects. The parsed value of an unchanged object stays the same value (``is``), so that a planner finds changes quickly.
Objects are plain JSON mappings; kinds are named as in the API (``"Eip"``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from porterlb.core.model import Address, BgpConf, Eip, Endpoint, Node, Peer, Service, ServiceKey
from porterlb.core.parse import (
    addresses_elsewhere,
    class_hint,
    merge,
    parse_conf,
    parse_eip,
    parse_endpoint_slice,
    parse_node,
    parse_peer,
    parse_service,
)
from porterlb.core.persistent import Editor
from porterlb.core.problems import Parsed, Problem, Reason
from porterlb.core.records import ServiceRecords

Obj = Mapping[str, Any]

K = TypeVar("K")
T = TypeVar("T")

Slice = tuple[ServiceKey, tuple[Endpoint, ...]]
"""An EndpointSlice: its Service, and its endpoints."""

CONF_NAME = "default"
"""The only BgpConf that is used."""

WITH_CONDITIONS = ("Service", "Eip", "BgpPeer", "BgpConf")
"""Kinds to whose status we write conditions."""


class ObjectKey(NamedTuple):
    """``kind``: as in the API, e.g. ``Eip``. ``namespace``: empty for cluster-scoped objects."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def key_of(kind: str, obj: Obj) -> ObjectKey:
    """The key of an object: from its metadata."""
    metadata = obj.get("metadata") or {}
    return ObjectKey(kind, str(metadata.get("namespace") or ""), str(metadata.get("name") or ""))


class _Store(Generic[K, T]):
    """Values by key, also available as an immutable mapping: a plan keeps its inputs."""

    def __init__(self) -> None:
        self.values: Editor[K, T] = Editor()

    def set(self, key: K, value: T | None) -> bool:
        """Sets a value, or removes it (None). An equal value does not replace the old one. True if different."""
        old = self.values.get(key)
        if old == value:
            return False
        if value is None:
            del self.values[key]
        else:
            self.values[key] = value
        return True

    def frozen(self) -> Mapping[K, T]:
        return self.values.frozen()


class Objects:
    """The known objects. The mappings that it returns are snapshots: later events do not change them.

    Args:
        claim_without_class: the setting of that name: whether we manage LoadBalancer Services without a class.
        ignore_exclude_label, drain_cordoned: the settings of these names.
    """

    def __init__(
        self, claim_without_class: bool, *, ignore_exclude_label: bool = False, drain_cordoned: bool = False
    ) -> None:
        self.seen: Callable[[ObjectKey, Obj | None], None] | None = None
        """Called with each new version of an object, and with None for a deleted one, before the change is applied."""
        self._claim_without_class = claim_without_class
        self._ignore_exclude_label = ignore_exclude_label
        self._drain_cordoned = drain_cordoned
        self._raw: dict[str, Editor[ObjectKey, Obj]] = {}
        self._versions: dict[ServiceKey, str] = {}  # the newest version with the values of the Service
        self._problems: _Store[ObjectKey, tuple[Problem, ...]] = _Store()
        self._generations: _Store[ObjectKey, int] = _Store()
        self._nodes: _Store[str, Node] = _Store()
        self._namespaces: _Store[str, Mapping[str, str]] = _Store()
        self._services: _Store[ServiceKey, Service] = _Store()
        self._records = ServiceRecords()
        self._elsewhere: _Store[Address, tuple[ServiceKey, ...]] = _Store()
        self._elsewhere_of: dict[ServiceKey, tuple[Address, ...]] = {}
        self._hints: _Store[ObjectKey, tuple[Problem, ...]] = _Store()
        self._eips: _Store[str, Eip] = _Store()
        self._peers: _Store[str, Peer] = _Store()
        self._confs: _Store[str, BgpConf] = _Store()
        self._slices: dict[ObjectKey, Slice] = {}
        self._kinds_of: dict[ServiceKey, dict[Endpoint | None, int]] = {}  # slices by endpoint; None: all slices
        self._unmerged: set[ServiceKey] = set()
        self._endpoints: _Store[ServiceKey, tuple[Endpoint, ...]] = _Store()
        self._parsers: Mapping[str, Callable[[ObjectKey, Obj | None], bool]] = {
            "Node": self._node,
            "Namespace": self._namespace,
            "Service": self._service,
            "EndpointSlice": self._endpoint_slice,
            "Eip": self._eip,
            "BgpPeer": self._peer,
            "BgpConf": self._conf,
        }

    @property
    def nodes(self) -> Mapping[str, Node]:
        return self._nodes.frozen()

    @property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """Labels by name of the namespace."""
        return self._namespaces.frozen()

    @property
    def services(self) -> Mapping[ServiceKey, Service]:
        """The Services that we manage."""
        return self._services.frozen()

    @property
    def elsewhere(self) -> Mapping[Address, tuple[ServiceKey, ...]]:
        """Addresses whose traffic kube-proxy sends to Services that did not get them from us: spec.externalIPs of any
        Service, and the addresses of Services of other load balancers."""
        return self._elsewhere.frozen()

    @property
    def hints(self) -> Mapping[ObjectKey, tuple[Problem, ...]]:
        """Likely mistakes in objects that we do not manage: no status or Event is written, only ``plan`` prints
        them."""
        return self._hints.frozen()

    @property
    def endpoints(self) -> Mapping[ServiceKey, tuple[Endpoint, ...]]:
        """Endpoints of all Services, managed or not: EndpointSlices may arrive before their Service."""
        for key in self._unmerged:  # once for all changed slices: a Service may have a thousand
            kinds = self._kinds_of.get(key)
            merged = merge([[kind for kind in kinds if kind is not None]]) if kinds is not None else None
            self._endpoints.set(key, merged)
        self._unmerged.clear()
        return self._endpoints.frozen()

    @property
    def eips(self) -> Mapping[str, Eip]:
        return self._eips.frozen()

    @property
    def peers(self) -> Mapping[str, Peer]:
        return self._peers.frozen()

    @property
    def problems(self) -> Mapping[ObjectKey, tuple[Problem, ...]]:
        """Problems by object; only objects with a problem, fatal or not, are included."""
        return self._problems.frozen()

    @property
    def generations(self) -> Mapping[ObjectKey, int]:
        """metadata.generation of every object that has our conditions, usable or not; 0 if it has none."""
        return self._generations.frozen()

    @property
    def conf(self) -> BgpConf:
        """The BgpConf ``default``; built-in values if it is missing or unusable."""
        conf: BgpConf = self._confs.values.get(CONF_NAME, _NO_CONF)
        return conf

    def raw(self, kind: str, namespace: str, name: str) -> Obj | None:
        """The object as in the API; of any kind that was ever added, parsed or not."""
        known = self._raw.get(kind)
        return known.get(ObjectKey(kind, namespace, name)) if known is not None else None

    def all_raw(self, kind: str) -> Mapping[ObjectKey, Obj]:
        """Every object of a kind as in the API now."""
        return self._raw.setdefault(kind, Editor()).frozen()

    def version_of(self, service: Service) -> str:
        """The newest resourceVersion whose values equal ``service``; decisions based on that value also hold for this
        version. If the object has changed since, the version in which the value was first seen."""
        if self._services.values.get(service.key) is not service:
            return service.resource_version
        return self._versions.get(service.key, service.resource_version)

    def replace(self, kind: str, objects: Iterable[Obj]) -> bool:
        """Takes over a full list: objects that are not in it are removed. True if any input of a plan is different."""
        return any([*self.replacing(kind, objects)])

    def replacing(self, kind: str, objects: Iterable[Obj]) -> Iterator[bool]:
        """As :meth:`replace`, one object per step: the caller may do other work between the steps."""
        fresh: set[ObjectKey] = set()
        for obj in objects:
            fresh.add(key_of(kind, obj))
            yield self.change(kind, obj)
        for key in [key for key in self.all_raw(kind) if key not in fresh]:
            yield self.delete(kind, key.namespace, key.name)

    def change(self, kind: str, obj: Obj) -> bool:
        """Takes over one new or changed object. True if any input of a plan is different."""
        key = key_of(kind, obj)
        known = self._raw.setdefault(kind, Editor())
        before = known.get(key)
        known[key] = obj
        if before is not None and _same_version(before, obj):
            return False
        if self.seen is not None:
            self.seen(key, obj)
        judged = kind in WITH_CONDITIONS and self._generations.set(key, _generation(obj))
        parser = self._parsers.get(kind)
        if parser is None:
            return before != obj  # a kind without a parser (Secret) is read by its user alone: any change counts
        try:
            return parser(key, obj) or (judged and self._is_told(key))
        except Exception as error:  # a bug of ours, in one object: the last good version stays, with a problem
            message = (
                f"This object cannot be read ({type(error).__name__}): please report it. {_STILL_IN_FORCE.message}"
            )
            return self._problems.set(key, (Problem(Reason.UNREADABLE, message),))

    def _is_told(self, key: ObjectKey) -> bool:
        """Whether we write a status to it."""
        ours = key.kind != "Service" or ServiceKey(key.namespace, key.name) in self._services.values
        return ours or key in self._problems.values

    def delete(self, kind: str, namespace: str, name: str) -> bool:
        """Removes one object; an unknown one is not an error. True if any input of a plan is different."""
        key = ObjectKey(kind, namespace, name)
        if kind not in self._raw or self._raw[kind].pop(key, None) is None:
            return False
        if self.seen is not None:
            self.seen(key, None)
        self._generations.set(key, None)
        parser = self._parsers.get(kind)
        return parser(key, None) if parser else True

    def kept(self) -> dict[ObjectKey, Any]:
        """The parsed values that are in force although the version in the API is unusable."""
        found = {}
        for key, problems in self._problems.frozen().items():
            if any(problem.reason in (Reason.KEPT, Reason.UNREADABLE) for problem in problems):
                store, name = self._store(key)
                if store is not None and (value := store.values.get(name)) is not None:
                    found[key] = value
        return found

    def keep(self, kept: Mapping[ObjectKey, Any]) -> None:
        """Puts values of :meth:`kept` in force, after the objects were added."""
        for key, value in kept.items():
            store, name = self._store(key)
            if store is not None:
                store.set(name, value)
                problems = self._problems.values.get(key, ())
                if not any(problem.reason is Reason.KEPT for problem in problems):
                    self._problems.set(key, (*problems, _STILL_IN_FORCE))

    def _store(self, key: ObjectKey) -> tuple[_Store[Any, Any] | None, Any]:
        """The store of the parsed value of an object, and its key there."""
        by_name: dict[str, _Store[Any, Any]] = {
            "Node": self._nodes,
            "Eip": self._eips,
            "BgpPeer": self._peers,
            "BgpConf": self._confs,
        }
        if key.kind == "Service":
            return self._services, ServiceKey(key.namespace, key.name)
        return by_name.get(key.kind), key.name

    def _keep(self, store: _Store[K, T], name: K, key: ObjectKey, parsed: Parsed[T]) -> bool:
        """Puts a parsed value into ``store`` and records its problems."""
        different = store.set(name, parsed.value)
        return self._problems.set(key, parsed.problems or None) or different

    def _keep_good(self, store: _Store[K, T], name: K, key: ObjectKey, parsed: Parsed[T]) -> bool:
        """Like :meth:`_keep`, but after an unusable edit the last good version stays in force: a typing error in a pool
        or a peer must not withdraw addresses that are in use."""
        good = store.values.get(name)
        if parsed.value is None and parsed.problems and good is not None:
            parsed = Parsed(good, (*parsed.problems, _STILL_IN_FORCE))
        return self._keep(store, name, key, parsed)

    def _node(self, key: ObjectKey, obj: Obj | None) -> bool:
        rules = {"ignore_exclude_label": self._ignore_exclude_label, "drain_cordoned": self._drain_cordoned}
        parsed = parse_node(obj, **rules) if obj else _gone()
        return self._keep(self._nodes, key.name, key, parsed)

    def _namespace(self, key: ObjectKey, obj: Obj | None) -> bool:
        parsed: Parsed[Mapping[str, str]] = Parsed(_labels(obj)) if obj else _gone()
        return self._keep(self._namespaces, key.name, key, parsed)

    def _service(self, key: ObjectKey, obj: Obj | None) -> bool:
        name = ServiceKey(key.namespace, key.name)
        ours = parse_service(obj, self._claim_without_class) if obj else None
        different = self._uses(name, addresses_elsewhere(obj, ours=ours is not None) if obj else ())
        hint = class_hint(obj) if obj else ""
        self._hints.set(key, (Problem(Reason.INVALID_FIELD, hint, _CLASS_FIELD, fatal=False),) if hint else None)
        parsed = ours or _gone()
        if parsed.value is not None:
            self._versions[name] = parsed.value.resource_version
            parsed = Parsed(self._recorded(parsed.value), parsed.problems)
        else:
            self._versions.pop(name, None)
        return self._keep(self._services, name, key, parsed) or different

    def _uses(self, key: ServiceKey, addresses: tuple[Address, ...]) -> bool:
        """Records the addresses that a Service has without having got them from us."""
        before = self._elsewhere_of.get(key, ())
        if before == addresses:
            return False
        if addresses:
            self._elsewhere_of[key] = addresses
        else:
            del self._elsewhere_of[key]
        for address in {*before, *addresses}:
            others = [other for other in self._elsewhere.values.get(address, ()) if other != key]
            users = sorted([*others, key] if address in addresses else others)
            self._elsewhere.set(address, tuple(users) or None)
        return True

    def _recorded(self, service: Service) -> Service:
        """The Service with the data from our records."""
        record = self._records.of(service.key)
        if not record.addresses:
            return service
        return replace(service, recorded=record.addresses, pinned_node=record.node or service.pinned_node)

    def _eip(self, key: ObjectKey, obj: Obj | None) -> bool:
        different = False
        for name in self._records.take(key.name, obj):
            raw = self.raw("Service", *name)
            if name in self._services.values and raw is not None:
                different |= self._service(ObjectKey("Service", *name), raw)
        return self._keep_good(self._eips, key.name, key, parse_eip(obj) if obj else _gone()) or different

    def _peer(self, key: ObjectKey, obj: Obj | None) -> bool:
        return self._keep_good(self._peers, key.name, key, parse_peer(obj) if obj else _gone())

    def _conf(self, key: ObjectKey, obj: Obj | None) -> bool:
        return self._keep_good(self._confs, key.name, key, parse_conf(obj) if obj else _gone())

    def _endpoint_slice(self, key: ObjectKey, obj: Obj | None) -> bool:
        after = parse_endpoint_slice(obj) if obj else None
        before = self._slices.pop(key, None)
        if after is not None:
            self._slices[key] = after
        if before == after:
            return False
        different = False
        for piece, sign in ((after, 1), (before, -1)):  # an endpoint in both slices is never missing in between
            if piece is not None:
                different |= self._count(*piece, sign)
        return different

    def _count(self, service: ServiceKey, held: tuple[Endpoint, ...], sign: int) -> bool:
        """Adds or removes a slice of a Service in the counts. Returns whether the Service has another set of
        endpoints."""
        kinds = self._kinds_of.setdefault(service, {})
        different = False
        for kind in (None, *held):
            count = kinds.get(kind, 0) + sign
            if count:
                kinds[kind] = count
            else:
                del kinds[kind]
            different |= count == (1 if sign > 0 else 0)
        if not kinds:
            del self._kinds_of[service]
        if different:
            self._unmerged.add(service)
        return different


_NO_CONF = BgpConf()
_CLASS_FIELD = "spec.loadBalancerClass"


_STILL_IN_FORCE = Problem(
    Reason.KEPT, "The last version without this error stays in force until it is corrected.", fatal=False
)


def _gone() -> Parsed[Any]:
    return Parsed(None)


def _generation(obj: Obj) -> int:
    found = (obj.get("metadata") or {}).get("generation")
    return found if isinstance(found, int) else 0


def _labels(obj: Obj) -> Mapping[str, str]:
    labels = (obj.get("metadata") or {}).get("labels") or {}
    return {str(name): str(value) for name, value in labels.items()}


def _same_version(before: Obj, after: Obj) -> bool:
    """Whether both are the same version of one object. resourceVersion is opaque: only equality has a meaning."""
    if before is after:
        return True
    old, new = before.get("metadata") or {}, after.get("metadata") or {}
    version = new.get("resourceVersion")
    return bool(version) and version == old.get("resourceVersion") and new.get("uid") == old.get("uid")
