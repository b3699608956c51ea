"""Our own records of Services, in the status of the Eips: the Service of each address and the node that serves it.

``Eip.status.used`` names the Services of each address; it takes precedence over a Service status written by others.
``Eip.status.layer2NextHops`` names the node that is the Layer 2 next hop of each address, so that a returning node does
not take VIPs from other nodes. Both fields may have been edited manually, so their format is not trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from porterlb.core.model import Address, ServiceKey
from porterlb.core.parse.addresses import parse_address
from porterlb.core.parse.fields import mapping

_NOTHING: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """The record of one Service. ``addresses``: IPv4 first, ascending. ``node``: the Layer 2 next hop of its first
    address."""

    addresses: tuple[Address, ...] = ()
    node: str = ""


@dataclass(slots=True)
class ServiceRecords:
    """The records of all Eips, by Service. One changed entry costs one text comparison for each other entry of its
    Eip."""

    _used: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _nodes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _entries: dict[ServiceKey, dict[Address, list[str]]] = field(default_factory=dict)  # the Eips with this entry

    def take(self, eip: str, obj: Mapping[str, Any] | None) -> set[ServiceKey]:
        """Takes over the status of an Eip (None: it is deleted). Returns the Services whose record may have changed."""
        status = mapping((obj or {}).get("status"))
        used, nodes = (_texts(status.get(name)) for name in ("used", "layer2NextHops"))
        old_used, old_nodes = self._used.get(eip, _NOTHING), self._nodes.get(eip, _NOTHING)
        self._used[eip], self._nodes[eip] = used, nodes
        if obj is None:
            del self._used[eip], self._nodes[eip]
        changed: set[ServiceKey] = set()
        for text in [text for text, owners in old_used.items() if used.get(text) != owners]:
            changed |= self._entry(eip, text, old_used[text], add=False)
        for text in [text for text, owners in used.items() if old_used.get(text) != owners]:
            changed |= self._entry(eip, text, used[text], add=True)
        for text in old_nodes.keys() | nodes.keys():
            if old_nodes.get(text) != nodes.get(text):
                changed.update(_owners(used.get(text, "")))
        return changed

    def of(self, key: ServiceKey) -> ServiceRecord:
        """The record of a Service."""
        entries = self._entries.get(key)
        if not entries:
            return _EMPTY
        addresses = tuple(sorted(entries, key=lambda address: (address.version, int(address))))
        eips = ((address, eip) for address in addresses for eip in entries[address])
        nodes = (self._nodes.get(eip, _NOTHING).get(str(address), "") for address, eip in eips)
        return ServiceRecord(addresses, next(filter(None, nodes), ""))

    def _entry(self, eip: str, text: str, owners: str, *, add: bool) -> set[ServiceKey]:
        address = parse_address(text)
        keys = _owners(owners) if address is not None else set()
        for key in keys:
            assert address is not None
            eips = self._entries.setdefault(key, {}).setdefault(address, [])
            if add:
                eips.append(eip)
                eips.sort()
            elif eip in eips:
                eips.remove(eip)
            if not eips:
                del self._entries[key][address]
            if not self._entries[key]:
                del self._entries[key]
        return keys


_EMPTY = ServiceRecord()


def used(status: Mapping[str, Any] | None) -> dict[Address, tuple[ServiceKey, ...]]:
    """The record in the status of an Eip: the Services of each address."""
    found = {}
    for text, owners in _texts((status or {}).get("used")).items():
        address = parse_address(text)
        if address is not None:
            found[address] = tuple(sorted(_owners(owners)))
    return found


def _owners(text: str) -> set[ServiceKey]:
    """``namespace/name;namespace/name``, the same format as OpenELB's."""
    pairs = (part.strip().partition("/") for part in text.split(";"))
    return {ServiceKey(namespace, name) for namespace, _, name in pairs if namespace and name}


def _texts(value: object) -> Mapping[str, str]:
    found = mapping(value)
    if all(isinstance(key, str) and isinstance(text, str) for key, text in found.items()):
        return found
    return {key: text for key, text in found.items() if isinstance(key, str) and isinstance(text, str)}
