"""Silent faults of the network: loss, filters by protocol, one-way links.

The switch drops frames by rules in a separate bridge table (nftables); carriers stay up. Every change replaces the
whole table in one transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lab.net import Net
from lab.netns import LabError

PROTOCOLS = {
    "arp": "ether type arp",
    "arp-request": "arp operation request",
    "arp-reply": "arp operation reply",
    "ndp": "ip6 nexthdr icmpv6 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }",
    "hello": "udp dport 7473",
    "bgp": "tcp dport 179",
    "bgp-reply": "tcp sport 179",
    "bfd": "udp dport 3784",
    "all": "",
}
"""The protocols that a filter may name, each as an nftables match."""


@dataclass
class Faults:
    """The active faults on one switch. Ports are named after machines (`Host.port`)."""

    net: Net
    _rules: dict[str, str] = field(default_factory=dict)

    def loss(self, percent: int, ports: Iterable[str] = ()) -> str:
        """Drops this share of all frames at random, or of the frames from or to `ports`. Returns the fault's key."""
        if not 0 <= percent <= 100:
            raise LabError(f"a loss of {percent} % is not between 0 and 100")
        drop = f"numgen random mod 100 < {percent} counter drop"
        names = _set(ports)
        rules = [f"iifname {names} {drop}", f"oifname {names} {drop}"] if names else [drop]
        return self._add(f"loss {percent} {names}", rules)

    def filter(self, protocol: str, source: str = "", target: str = "") -> str:
        """Drops the frames of a protocol (`PROTOCOLS`) from port `source` to port `target`; empty: any. Returns the
        fault's key. If only one direction is filtered, the other stays open: a one-way link is ``filter("all", a,
        b)``."""
        match = PROTOCOLS.get(protocol)
        if match is None:
            raise LabError(f"there is no filter for {protocol}; there are {', '.join(PROTOCOLS)}")
        where = [f'iifname "{source}"' if source else "", f'oifname "{target}"' if target else "", match]
        return self._add(f"filter {protocol} {source}>{target}", [" ".join([*filter(None, where), "counter drop"])])

    def lift(self, key: str) -> None:
        """Ends one fault."""
        self._rules.pop(key, None)
        self._write()

    def clear(self) -> None:
        """Ends all faults."""
        self._rules.clear()
        self._write()

    def _add(self, key: str, rules: list[str]) -> str:
        self._rules[key] = "\n".join(f"  {rule};" for rule in rules)
        self._write()
        return key

    def _write(self) -> None:
        chain = "\n".join(["  type filter hook forward priority 10;", *self._rules.values()])
        table = f"table bridge faults {{\n chain forward {{\n{chain}\n }}\n}}\n" if self._rules else ""
        self.net.switch.nft(f"table bridge faults\ndelete table bridge faults\n{table}")


def _set(ports: Iterable[str]) -> str:
    names = [f'"{port}"' for port in sorted(ports)]
    return f"{{ {', '.join(names)} }}" if names else ""
