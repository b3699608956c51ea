"""Limits and spellings of BGP, each defined once, for the parser, the plan and the commands to ExaBGP."""

from __future__ import annotations

import re

BGP_PORT = 179
AS_MAX = 2**32 - 1  # RFC 6793
AS_TRANS = 23456
"""Stands for a four-octet AS where only two octets fit (RFC 6793)."""
MAX_PASSWORD = 80
"""Bytes; TCP_MD5SIG_MAXKEYLEN (linux/tcp.h)."""
MAX_RESTART = 4095
"""Seconds; 12 bits (RFC 4724, 3)."""
GTSM_TTL = 255
"""The TTL that both sides send with (RFC 5082, 3)."""
MIN_HOLD_TIME = 3
"""Seconds, unless it is 0 (RFC 4271, 4.2)."""
MAX_PREPEND = 16
MAX_U32 = 2**32 - 1
FAMILIES = (4, 6)


def hold_time_allowed(seconds: int) -> bool:
    return seconds == 0 or seconds >= MIN_HOLD_TIME


def keepalive_of(hold_time: int, asked: int = 0) -> int:
    """Seconds between two keepalives: as configured, at most a third of the hold time (RFC 4271, 4.4); 0: none."""
    third = max(1, hold_time // 3) if hold_time else 0
    return min(asked or third, third)


def password_allowed(password: str) -> bool:
    return len(password.encode(errors="replace")) <= MAX_PASSWORD and password.isprintable()


WELL_KNOWN = {  # names of the IANA registry, with the spelling of ExaBGP, or numbers if ExaBGP has no name
    "no-export": "no-export",  # RFC 1997
    "no-advertise": "no-advertise",  # RFC 1997
    "no-export-subconfed": "no-export-subconfed",  # RFC 1997
    "local-as": "no-export-subconfed",  # the name used by routers
    "no-peer": "no-peer",  # RFC 3765
    "nopeer": "no-peer",
    "blackhole": "blackhole",  # RFC 7999
    "graceful-shutdown": "65535:0",  # RFC 8326
    "accept-own": "65535:1",  # RFC 7611
    "accept-own-nexthop": "65535:8",
    "standby-pe": "65535:9",  # RFC 9026
    "llgr-stale": "65535:6",  # RFC 9494
    "no-llgr": "65535:7",  # RFC 9494
}

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_NUMBERS = re.compile(r"[0-9]{1,10}(:[0-9]{1,10}){1,2}")


def community(text: str) -> str | None:
    """A community (RFC 1997) in the form of ExaBGP: two 16-bit numbers, or a well-known name; None: invalid."""
    return WELL_KNOWN.get(text.lower().replace("_", "-")) or _numbers(text, 2, 0xFFFF)


def community_name(text: str) -> bool:
    """Whether a community of the BgpConf may have this name: valid as an object name, and not a well-known one."""
    return _NAME.fullmatch(text) is not None and community(text) is None


def large_community(text: str) -> str | None:
    """A large community (RFC 8092): three 32-bit numbers; None: invalid."""
    return _numbers(text, 3, 0xFFFFFFFF)


def _numbers(text: str, parts: int, most: int) -> str | None:
    if not text.isascii() or not _NUMBERS.fullmatch(text):
        return None
    numbers = [int(number) for number in text.split(":")]
    return ":".join(map(str, numbers)) if len(numbers) == parts and max(numbers) <= most else None
