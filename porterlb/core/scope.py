"""Link-local IPv6 addresses with and without their interface, ``fe80::1%eth0`` (RFC 4007, section 11)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


def scope_of(address: Address | None) -> str:
    """The interface of a link-local IPv6 address that is written with it (RFC 4007); empty: it has none."""
    return (address.scope_id or "") if isinstance(address, IPv6Address) else ""


def scoped(address: Address, interface: str) -> Address:
    """A link-local IPv6 address with its interface; others unchanged."""
    if isinstance(address, IPv6Address) and address.is_link_local and interface:
        return IPv6Address(f"{unscoped(address)}%{interface}")
    return address


def unscoped(address: Address) -> Address:
    """An address without its interface."""
    return IPv6Address(int(address)) if scope_of(address) else address
