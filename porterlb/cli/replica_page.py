"""A page that a replica serves over HTTP, asked at its address instead of through the API."""

from __future__ import annotations

import asyncio


def replica_page(url: str, path: str, within: float) -> tuple[int, str]:
    """Status and text of the answer. ``within``: seconds. Raises OSError with a clause if there is none."""
    import aiohttp  # noqa: PLC0415  # 0.2 s that other commands need not wait for

    async def work() -> tuple[int, str]:
        # A manager refuses a name with dots: it might be the name of a web site. A proxy with TLS may need it.
        host = {"Host": "localhost"} if url.startswith("http:") else {}
        limit = aiohttp.ClientTimeout(total=within)
        async with (
            aiohttp.ClientSession(timeout=limit, headers=host) as session,
            session.get(f"{url.rstrip('/')}{path}") as answer,
        ):
            return answer.status, await answer.text(errors="replace")

    try:
        return asyncio.run(work())
    except TimeoutError:
        raise OSError(f"it has not answered within {within:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise OSError(str(error) or type(error).__name__) from None
