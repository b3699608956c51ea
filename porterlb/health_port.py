"""One GET request to the health port of a kube-proxy, of which only the status counts.

It needs no HTTP library: that would take 11 MB of a manager without the Kubernetes API.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from porterlb.core.model import Address

TIMEOUT = 0.5
"""Seconds for one answer."""

_LONGEST = 1024  # bytes of the first line
_OK = re.compile(rb"HTTP/1\.[01] 200( |\r?\n)")


async def healthy(address: Address, port: int, path: str) -> bool:
    """Whether the port answers with status 200. An answer that is late, too long or no HTTP counts as no."""
    host = f"[{address}]" if address.version == 6 else str(address)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(str(address), port, limit=_LONGEST)
            try:
                writer.write(request.encode())
                return _OK.match(await reader.readline()) is not None
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
