"""A proof that an earlier process of this node is dead: an abstract Unix socket, which the kernel closes with it."""

from __future__ import annotations

import hashlib
import logging
import socket
from pathlib import Path

log = logging.getLogger(__name__)


class Place:
    """Taken when it is made, and held until this process ends, even if it is stopped or hung.

    Abstract sockets belong to a network namespace (unix(7)); the replicas of a cluster run in those of their nodes.

    Attributes:
        name: text that equals that of another process only if that one has ended. Empty if another process is there.
    """

    def __init__(self, cluster: str, namespace: str) -> None:
        digest = hashlib.sha256(f"{cluster}\n{namespace}".encode()).hexdigest()[:16]
        self._socket = socket.socket(socket.AF_UNIX)
        self.name = ""
        try:
            where = f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {_network_namespace()} {digest}"
            self._socket.bind(f"\0porterlb-{digest}")
            self.name = where
        except OSError as error:
            self._socket.close()
            log.debug("there is no proof that an earlier process of this node is dead: %s", error)

    def close(self) -> None:
        self._socket.close()


def _network_namespace() -> str:
    found = Path("/proc/self/ns/net").stat()
    return f"{found.st_dev}:{found.st_ino}"
