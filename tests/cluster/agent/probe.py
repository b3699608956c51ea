"""HTTP probes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp


@dataclass(frozen=True)
class Probe:
    """One probe of a container. Times in seconds."""

    url: str
    delay: float
    period: float
    timeout: float
    failures: int
    successes: int

    @classmethod
    def read(cls, spec: Mapping[str, Any], container: Mapping[str, Any], address: str) -> Probe:
        """``address``: of the pod. Raises ValueError for anything but HTTP."""
        if "httpGet" not in spec:
            raise ValueError("the agent has HTTP probes only")
        asked = spec["httpGet"]
        ports = {port.get("name"): port["containerPort"] for port in container.get("ports") or []}
        port = asked["port"] if isinstance(asked["port"], int) else ports[asked["port"]]
        host = asked.get("host") or address
        host = f"[{host}]" if ":" in host else host
        return cls(
            f"{asked.get('scheme', 'HTTP').lower()}://{host}:{port}{asked.get('path', '/')}",
            float(spec.get("initialDelaySeconds", 0)),
            float(spec.get("periodSeconds", 10)),
            float(spec.get("timeoutSeconds", 1)),
            int(spec.get("failureThreshold", 3)),
            int(spec.get("successThreshold", 1)),
        )

    async def ask(self) -> str:
        """Empty, or why it has failed."""
        try:
            async with (
                asyncio.timeout(self.timeout),
                aiohttp.ClientSession() as session,
                session.get(self.url) as answer,
            ):
                text = (await answer.text()).strip()
                return "" if 200 <= answer.status < 400 else f"{answer.status} {text}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return repr(error)
