"""The API server's address and our credentials: in-cluster files or a kubeconfig, read again when they change."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.request import getproxies_environment

import aiohttp
import yaml

from porterlb.edge.kube.client_library import (
    ConfigException,
    Configuration,
    InClusterConfigLoader,
    RESTClientObject,
    load_kube_config,
)
from porterlb.errors import PorterError

log = logging.getLogger("porterlb.kube")

LOOK_AGAIN = 5.0
"""Seconds between two checks of the files: a token lives for an hour and is renewed at 80% of that."""

RENEW_AT_MOST = 2.0
"""Seconds, at least, between two new clients that are made because of a timeout or a 401."""

Fingerprint = tuple[tuple[str, int, int, int], ...]


class Source(Protocol):
    """Where the address of the API server and our credentials are read from."""

    @property
    def name(self) -> str:
        """The name of the source in messages."""

    async def configuration(self) -> Configuration:
        """Reads everything again. Raises ConfigException, OSError, ValueError or a YAML error."""

    def files(self) -> list[Path]:
        """Every file that the configuration depends on."""


@dataclass(frozen=True, slots=True)
class InCluster:
    """The service account of a pod."""

    directory: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount")
    name: str = "the pod's service account"

    async def configuration(self) -> Configuration:
        loader = InClusterConfigLoader(  # type: ignore[no-untyped-call]
            token_filename=str(self.directory / "token"),
            cert_filename=str(self.directory / "ca.crt"),
            try_refresh_token=False,  # a changed file leads to a new client, which covers the CA too
            environ=os.environ,
        )
        configuration = Configuration()
        loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
        return configuration

    def files(self) -> list[Path]:
        return [self.directory / "token", self.directory / "ca.crt"]


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """One kubeconfig or several, separated by colons. ``context`` empty: the current one."""

    paths: str
    context: str = ""

    @property
    def name(self) -> str:
        return f"kubeconfig {self.paths}" + (f", context {self.context}" if self.context else "")

    async def configuration(self) -> Configuration:
        if not any(path.exists() for path in self._paths()):
            raise ConfigException("there is no such file")
        configuration = Configuration()
        await load_kube_config(  # type: ignore[no-untyped-call]
            self.paths, self.context or None, configuration, persist_config=False
        )
        return configuration

    def files(self) -> list[Path]:
        found = self._paths()
        for path in list(found):
            found += _referenced(path)
        return found

    def _paths(self) -> list[Path]:
        return [Path(path).expanduser() for path in self.paths.split(":") if path]


def find_source(kubeconfig: str, context: str, environ: Mapping[str, str]) -> Source:
    """The given kubeconfig, else KUBECONFIG, else the pod's service account (if no context is given), else
    ~/.kube/config."""
    if kubeconfig or environ.get("KUBECONFIG"):
        return Kubeconfig(kubeconfig or environ["KUBECONFIG"], context)
    if environ.get("KUBERNETES_SERVICE_HOST") and not context:
        return InCluster()
    return Kubeconfig("~/.kube/config", context)


@dataclass(slots=True, eq=False)
class _Lent:
    """One client and the number of calls that use it: closed after the last one, so that streams end by themselves."""

    client: Any
    connector: aiohttp.TCPConnector
    fingerprint: Fingerprint
    users: int = 0

    async def close(self) -> None:
        await self.client.close()
        await self.connector.close(abort_ssl=True)


@dataclass(slots=True, eq=False)
class Access:
    """Lends clients of the API. A new one is made when a file has changed, or when the old one seems stuck."""

    source: Source
    _current: _Lent | None = None
    _old: list[_Lent] = field(default_factory=list)
    _looked: float = 0.0
    _made: float = 0.0
    _distrusted: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """A RESTClientObject for one call. Raises PorterError if no client could be made so far."""
        async with self._lock:
            lent = await self._fresh()
        lent.users += 1
        try:
            yield lent.client
        finally:
            lent.users -= 1
            if lent in self._old and not lent.users:
                self._old.remove(lent)
                await lent.close()

    def distrust(self) -> bool:
        """Makes the next call use new connections and freshly read credentials. False: they are new already.

        After a timeout, all pooled connections may be half-open. Finding that out one deadline at a time would take too
        long for a lease.
        """
        if time.monotonic() - self._made < RENEW_AT_MOST:
            return False
        self._distrusted = True
        return True

    async def close(self) -> None:
        for lent in [*self._old, *([self._current] if self._current else [])]:
            await lent.close()
        self._old.clear()
        self._current = None

    async def _fresh(self) -> _Lent:
        now = time.monotonic()
        if self._current and not self._distrusted and now - self._looked < LOOK_AGAIN:
            return self._current
        fingerprint = _fingerprint(self.source)
        self._looked = now
        if self._current and not self._distrusted and fingerprint == self._current.fingerprint:
            return self._current
        self._made, self._distrusted = now, False
        try:
            lent = await self._make(fingerprint)
        except (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            # The libraries raise nearly anything for a file that is half written or not a kubeconfig.
            sentence = f"The Kubernetes API cannot be used with {self.source.name}: {_one_line(error)}."
            if self._current is None:
                raise PorterError(sentence, "Give --kubeconfig FILE, or use --cluster dir:PATH.") from None
            log.warning("%s What was read before stays in use.", sentence)
            return self._current
        if self._current:
            await self._retire(self._current)
        self._current = lent
        return lent

    async def _make(self, fingerprint: Fingerprint) -> _Lent:
        configuration = await self.source.configuration()
        configuration.retries = None
        token = configuration.api_key.get("BearerToken")
        if token:
            configuration.api_key["BearerToken"] = token.strip()  # a newline at the end of the file
        client = RESTClientObject(configuration)
        connector = aiohttp.TCPConnector(limit=0, ssl=client.ssl_context, socket_factory=_socket)
        # Without a proxy, requests must not read the environment again: each would read ~/.netrc in a thread.
        proxies = bool(getproxies_environment())
        configuration.client_session_kwargs = {"connector": connector, "trust_env": proxies}
        return _Lent(client, connector, fingerprint)

    async def _retire(self, lent: _Lent) -> None:
        if lent.users:
            self._old.append(lent)
        else:
            await lent.close()


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A TCP socket that notices a silent peer: idle for 10 s, then three probes 5 s apart (Linux's default: 2 h).

    TCP_USER_TIMEOUT (RFC 5482) bounds the same for what was sent and never acknowledged.
    """
    family, kind, protocol = address[0], address[1], address[2]
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 25_000)
    return made


def _fingerprint(source: Source) -> Fingerprint:
    found = []
    for path in source.files():
        try:
            stat = path.stat()
        except OSError:
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), stat.st_mtime_ns, stat.st_ino, stat.st_size))
    return tuple(found)


def _referenced(kubeconfig: Path) -> Iterable[Path]:
    """The files that a kubeconfig names: certificates, keys, tokens; relative paths are relative to the kubeconfig."""
    try:
        content = yaml.safe_load(kubeconfig.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return []
    if not isinstance(content, dict):
        return []
    entries = [*(content.get("clusters") or []), *(content.get("users") or [])]
    parts = [part for entry in entries if isinstance(entry, dict) for part in entry.values() if isinstance(part, dict)]
    keys = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return [kubeconfig.parent / part[key] for part in parts for key in keys if isinstance(part.get(key), str)]


def _one_line(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"a certificate or key cannot be read ({error.reason or error})"
    if isinstance(error, TypeError | KeyError | AttributeError):
        return "that is not a kubeconfig"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
