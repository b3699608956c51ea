"""IP addresses and pools of them as users write them: ``IP``, ``CIDR``, ``a-b``, several separated by commas."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from porterlb.core.model import Address, AddressRange
from porterlb.core.parse.fields import Fields, show
from porterlb.core.problems import Problem, Reason

_PREFIX = re.compile(r"[0-9]{1,3}")
_ZEROS = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){3}")
_SHORT_END = re.compile(r"[0-9]{1,3}")
_MOST_PARTS = 10_000  # in one list; a longer one is a mistake, and would slow down every plan
_MOST_DOTTED = 1 << 24  # IPv4 addresses of one Eip with avoidNetworkAddresses: 131,072 are left out of a /8

_UNUSABLE = tuple(
    (ip_network(net), what)
    for net, what in (
        ("0.0.0.0/8", "addresses of this host"),
        ("127.0.0.0/8", "loopback addresses"),
        ("224.0.0.0/4", "multicast addresses"),
        ("255.255.255.255/32", "the broadcast address"),
        ("::/128", "the unspecified address"),
        ("::1/128", "the loopback address"),
        ("fe80::/10", "link-local addresses"),
        ("ff00::/8", "multicast addresses"),
    )
)


def parse_address(text: object) -> Address | None:
    """One IP address, or None. Zones (``%eth0``) are refused, because a cluster address has none."""
    if not isinstance(text, str) or "%" in text:
        return None
    try:
        return ip_address(text.strip())
    except ValueError:
        return None


def parse_host(fields: Fields, name: str) -> Address | None:
    """The address of our side of a session, or None; an error is recorded."""
    address = _host(fields, name, fields.text(name))
    if address is not None and address.is_link_local:
        message = f"{address} is a link-local address. Leave it out, and set interface if the router has one, too."
        fields.wrong(name, message, Reason.INVALID_ADDRESS)
        return None
    return address


def parse_router(fields: Fields, name: str) -> tuple[Address | None, str]:
    """The address of a router, and the interface that is written with a link-local one (``fe80::1%eth0``, RFC 4007).
    None: absent or wrong; an error is recorded."""
    text, _, interface = fields.text(name).partition("%")
    address = _host(fields, name, text)
    if address is None:
        return None, ""
    if address.version == 4 and address.is_link_local:
        fields.wrong(name, f"{address} is a link-local IPv4 address, which is not supported.", Reason.INVALID_ADDRESS)
        return None, ""
    if interface and not address.is_link_local:
        fields.wrong(name, f"{address} is not a link-local address: write it without %.", Reason.INVALID_ADDRESS)
        return None, ""
    return address, interface


def _host(fields: Fields, name: str, text: str) -> Address | None:
    if not text:
        return None
    address = parse_address(text)
    if address is None or address.is_unspecified or address.is_multicast:
        fields.wrong(name, f"{show(text)} is not the IP address of a host.", Reason.INVALID_ADDRESS)
        return None
    return address


INTERFACE = re.compile(r"[^\s/:%*,]{1,15}")
"""The name of a network interface: IFNAMSIZ. An alias (eth0:1) is an address of eth0."""


def parse_interface(fields: Fields, name: str) -> str:
    """The name of a network interface of the node, or empty; an error is recorded."""
    interface = fields.text(name)
    if interface and not INTERFACE.fullmatch(interface):
        fields.wrong(name, f"{show(interface)} is not the name of one network interface.")
        return ""
    return interface


def parse_router_id(fields: Fields) -> IPv4Address | None:
    """``routerId``: a BGP identifier (RFC 6286), or None; an error is recorded."""
    text = fields.text("routerId")
    if not text:
        return None
    address = parse_address(text)
    if isinstance(address, IPv4Address) and int(address):
        return address
    fields.wrong("routerId", f"{show(text)} is not an IPv4 address other than 0.0.0.0.", Reason.INVALID_ADDRESS)
    return None


def respelled(text: object) -> tuple[Address | None, str]:
    """The address that a text means although it is not in the usual form, and the remedy. (None, ""): no address.

    An IPv4-mapped IPv6 address means the IPv4 address. Leading zeros are refused, because some software reads them as
    octal (RFC 6943 3.1.1).
    """
    address = parse_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped, f"Write {address.ipv4_mapped}."
    if address is None and isinstance(text, str) and _ZEROS.fullmatch(text.strip()):
        plain_text = ".".join(str(int(part)) for part in text.strip().split("."))
        if parse_address(plain_text) is not None:
            return None, f"Write {plain_text}, without leading zeros."
    return address, ""


def parse_ranges(text: str, path: str, problems: list[Problem]) -> list[AddressRange]:
    """All parts of a list as ranges, in the order given; errors become problems."""
    parts = text.split(",")
    if len(parts) > _MOST_PARTS:
        problems.append(Problem(Reason.INVALID_ADDRESS, f"has more than {_MOST_PARTS} parts. Use ranges.", path))
        return []
    found = []
    for part in parts:
        if not part.strip() and len(parts) > 1:
            continue  # an additional comma is harmless
        range_ = _range(part.strip(), path, problems)
        if range_ is not None:
            found.append(range_)
    return found


def check_usable(ranges: Iterable[AddressRange], path: str, problems: list[Problem]) -> None:
    """Adds problems for ranges with addresses that no Service can have."""
    for first, last in ranges:
        for net, what in _UNUSABLE:
            if first.version == net.version and int(first) <= int(net[-1]) and int(net[0]) <= int(last):
                shown = str(first) if first == last else f"{first}-{last}"
                problems.append(Problem(Reason.INVALID_ADDRESS, f"{shown} has {what} ({net}) in it.", path))
                break


def _range(part: str, path: str, problems: list[Problem]) -> AddressRange | None:
    single = parse_address(part)
    if single is not None:
        return AddressRange(single, single)
    if "/" in part:
        address, _, prefix = part.partition("/")
        first = parse_address(address)
        if first is not None and _PREFIX.fullmatch(prefix.strip()) and int(prefix) <= first.max_prefixlen:
            make = IPv4Network if first.version == 4 else IPv6Network
            network = make((int(first), int(prefix)), strict=False)
            if network.network_address != first:
                problems.append(
                    Problem(
                        Reason.INVALID_ADDRESS,
                        f"{show(part)} has bits set behind its prefix; all of {network} is used.",
                        path,
                        fatal=False,
                    )
                )
            return AddressRange(network[0], network[-1])
    elif "-" in part:
        first, last = (parse_address(end) for end in part.split("-", 1))
        if first is not None and last is not None:
            if first.version != last.version:
                problems.append(
                    Problem(
                        Reason.INVALID_ADDRESS, f"{show(part)} goes from IPv{first.version} to IPv{last.version}.", path
                    )
                )
                return None
            if int(last) < int(first):
                message = f"{show(part)} ends before it starts. Write {last}-{first}."
                problems.append(Problem(Reason.REVERSED_RANGE, message, path))
                return None
            return AddressRange(first, last)
    message = f"{show(part)} is not an IP address, CIDR or range a-b.{_hint(part)}"
    problems.append(Problem(Reason.INVALID_ADDRESS, message, path))
    return None


def _hint(part: str) -> str:
    """What to write instead, if that is clear; with a leading space."""
    ends = [end.strip() for end in part.split("-", 1)]
    first = parse_address(ends[0])
    if isinstance(first, IPv4Address) and len(ends) == 2 and _SHORT_END.fullmatch(ends[1]):
        last = parse_address(f"{str(first).rpartition('.')[0]}.{int(ends[1])}")
        return f" Write {first}-{last}." if last is not None else ""
    return "".join(f" {remedy}" for end in ends if (remedy := respelled(end)[1]))


def pool_ranges(
    included: Iterable[AddressRange], excluded: Iterable[AddressRange], *, avoid_dotted: bool
) -> tuple[AddressRange, ...] | None:
    """Sorted, disjoint ranges without the excluded ones, IPv4 first. None: too large for ``avoid_dotted``.

    ``avoid_dotted``: also without IPv4 addresses that end in .0 or .255.
    """
    found: list[AddressRange] = []
    for version in (4, 6):
        spans = _joined((int(r.first), int(r.last)) for r in included if r.first.version == version)
        without = [(int(r.first), int(r.last)) for r in excluded if r.first.version == version]
        if avoid_dotted and version == 4:
            if sum(last - first + 1 for first, last in spans) > _MOST_DOTTED:
                return None
            without += [(end, end) for first, last in spans for end in _dotted(first, last)]
        make = IPv4Address if version == 4 else IPv6Address
        found += [AddressRange(make(first), make(last)) for first, last in _subtract(spans, _joined(without))]
    return tuple(found)


def _dotted(first: int, last: int) -> Iterable[int]:
    for block in range(first >> 8, (last >> 8) + 1):
        yield from (end for end in (block << 8, block << 8 | 255) if first <= end <= last)


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, with overlapping and adjacent spans merged."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def _subtract(spans: list[tuple[int, int]], without: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Both sorted and disjoint; one pass over both."""
    left: list[tuple[int, int]] = []
    at = 0
    for first, last in spans:
        start = first
        while at < len(without) and without[at][1] < start:
            at += 1
        hole = at
        while hole < len(without) and without[hole][0] <= last:
            if without[hole][0] > start:
                left.append((start, without[hole][0] - 1))
            start = without[hole][1] + 1
            hole += 1
        if start <= last:
            left.append((start, last))
    return left
