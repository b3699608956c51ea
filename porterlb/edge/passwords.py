"""BGP passwords: read from the Secrets that peers name, by name only, outside the planning loop."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import logging
from collections.abc import Callable, Mapping

from porterlb.cluster import Cluster, Denied, Kind, Unavailable
from porterlb.core.model import Peer

log = logging.getLogger("porterlb.passwords")

REFRESH = 30.0
"""Seconds between two readings: a changed Secret takes effect within this time. One request per Secret."""

RETRY = 5.0
"""Seconds until the next attempt if a Secret is missing or the API does not answer."""


class Passwords:
    """Keeps the password of every peer that names a Secret; calls ``changed`` when one is new, different or gone.

    ``changed`` gets the passwords by peer name; a peer whose Secret or key is missing is left out. While the API is
    unavailable, the last known passwords stay in force.
    """

    def __init__(self, cluster: Cluster, changed: Callable[[Mapping[str, str]], None]) -> None:
        self._cluster = cluster
        self._changed = changed
        self._wanted: dict[str, tuple[str, str]] = {}
        self._known: dict[str, str] = {}
        self._wake = asyncio.Event()

    def want(self, peers: Mapping[str, Peer]) -> None:
        """The peers as they are now; reads at once if they name other Secrets than before."""
        wanted = {name: peer.password_secret for name, peer in peers.items() if peer.password_secret}
        if wanted != self._wanted:
            self._wanted = wanted
            self._wake.set()

    async def run(self) -> None:
        while True:
            complete = await self._read()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH if complete else RETRY):
                    await self._wake.wait()
            self._wake.clear()

    async def _read(self) -> bool:
        """Reads all passwords; returns whether all were found."""
        found: dict[str, str] = {}
        complete = True
        for peer, (secret, key) in dict(self._wanted).items():
            try:
                password = await read_password(self._cluster, secret, key)
            except Exception as error:  # a faulty Secret must affect only its own peer
                log.warning("the Secret %s of BgpPeer %s cannot be read: %s", secret, peer, _said(error))
                complete = False
                # Denied is an answer: no such Secret exists for us. Other errors say nothing about the password.
                if peer in self._known and not isinstance(error, Denied):
                    found[peer] = self._known[peer]
                continue
            if password:
                found[peer] = password
            else:
                complete = False
        if found != self._known:
            self._known = found
            self._changed(dict(found))
        return complete


async def read_password(cluster: Cluster, secret: str, key: str) -> str:
    """The text of one key of a Secret in the release namespace; empty if there is none."""
    return _value(await cluster.get(Kind.SECRET, secret, cluster.namespace) or {}, key)


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, Unavailable | Denied) else f"{type(error).__name__}: {error}"


def _value(secret: Mapping[str, object], key: str) -> str:
    """The text of one key of a Secret: ``data`` is base64, ``stringData`` (manifests) is not."""
    plain = secret.get("stringData")
    if isinstance(plain, Mapping) and isinstance(plain.get(key), str):
        return str(plain[key])
    data = secret.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get(key), str):
        return ""
    try:
        return base64.b64decode(str(data[key]), validate=True).decode().strip("\n")
    except (binascii.Error, ValueError):  # ValueError: characters outside ASCII, or not UTF-8
        return ""
