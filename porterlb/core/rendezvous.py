"""Rendezvous order: for each key, an order of all names that is the same on all replicas.

Highest random weight (Thaler and Ravishankar, 1998): each (key, name) pair has a weight of its own. Removing one
name therefore moves only the keys that it was first for, and the order of the others stays.

Plain hashing spreads 300 addresses over 3 nodes no better than 300 throws of a die: in 15% of pools the fullest node
exceeds the emptiest by more than 25% of the mean. Pools are runs of consecutive addresses. Therefore a name's weights
over an aligned block of 16 addresses are stratified: one in each sixteenth of the scale, in an order drawn for that
block and name. This keeps all properties above and reduces the share of such pools to about 2%.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice

_BLOCK = 16  # addresses; 4 bits of a weight are the stratum, the other 60 are the tie-break
_LOW = (1 << 60) - 1
_DRAW = struct.Struct("<8Q")


@lru_cache(maxsize=16384)  # 10,000 addresses over 3 nodes need 1,900; an entry is about 0.7 kB
def _weights(block: str, name: str) -> tuple[int, ...]:
    """The weights of one name for the 16 keys of a block: 64-bit numbers, one in each sixteenth of the range."""
    seed = f"{block}\0{name}".encode()
    drawn = _DRAW.unpack(blake2b(seed, person=b"plb-order-0").digest())
    drawn += _DRAW.unpack(blake2b(seed, person=b"plb-order-1").digest())
    weights = [0] * _BLOCK
    for stratum, position in enumerate(sorted(range(_BLOCK), key=drawn.__getitem__)):
        weights[position] = stratum << 60 | drawn[position] & _LOW
    return tuple(weights)


@lru_cache(maxsize=16384)
def _place(key: str) -> tuple[str, int]:
    """Block and position of a key: from the last part of an IP address; any other text is a block of its own."""
    head, separator, tail = key.rpartition(":" if ":" in key else ".")
    try:
        number = int(tail or "0", 16 if separator == ":" else 10)
    except ValueError:
        return key, 0
    if not separator or number < 0:
        return key, 0
    return f"{head}{separator}{number // _BLOCK}", number % _BLOCK


def ranked(key: str, names: Iterable[str]) -> tuple[str, ...]:
    """``names`` (without repeats) in the rendezvous order for ``key``, best first.

    A pure function of its arguments' values: the order of ``names`` does not matter. ``key`` is the text of an IP
    address if balance over consecutive addresses is wanted, otherwise any text.
    """
    block, position = _place(key)
    weighed = sorted([(_weights(block, name)[position], name) for name in set(names)], reverse=True)
    return tuple([name for _, name in weighed])


def shuffled(key: str, names: Iterable[str]) -> list[str]:
    """As :func:`ranked`, but much cheaper and only randomly even: for names that few keys have."""
    salt = _hash(key)
    return [name for _, name in sorted([(_mixed(_hash(name) ^ salt), name) for name in set(names)], reverse=True)]


def _mixed(number: int) -> int:
    """64 bits, each of which depends on every bit of ``number`` (the finalizer of MurmurHash3)."""
    number = (number ^ number >> 33) * 0xFF51AFD7ED558CCD & _ALL
    number = (number ^ number >> 33) * 0xC4CEB9FE1A85EC53 & _ALL
    return number ^ number >> 33


_ALL = (1 << 64) - 1


class Ring:
    """Many names on a circle, to pick a few of them for a key at very low cost (consistent hashing).

    Each name has a fixed position. A key picks the names that follow its own position, so removing one name changes
    only the picks that contained it. All 16 addresses of a block have the same position: their picks are ordered by
    :func:`ranked`, which spreads them evenly.
    """

    __slots__ = ("_names", "_places")

    def __init__(self, names: Iterable[str]) -> None:
        placed = sorted([(_hash(name), name) for name in names])
        self._places = [place for place, _ in placed]
        self._names = [name for _, name in placed]

    def after(self, key: str) -> Iterator[str]:
        """Every name once, starting at the position of the key. ``key``: as for :func:`ranked`."""
        at = bisect_left(self._places, _hash(_place(key)[0]))
        return chain(islice(self._names, at, None), islice(self._names, at))


@lru_cache(maxsize=16384)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8, person=b"plb-ring").digest(), "big")
