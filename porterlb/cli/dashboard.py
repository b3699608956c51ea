"""``porterlb dashboard``: opens the status page of a replica in a browser."""

from __future__ import annotations

import asyncio
import contextlib
import webbrowser
from collections.abc import Sequence

import click

from porterlb.cli.completion import names
from porterlb.cli.loading import leader_of, members_of
from porterlb.cli.options import Options, query
from porterlb.cluster import Cluster, Denied, Tunnel, Unavailable
from porterlb.errors import PorterError

REACH_WITHIN = 3.0
"""Seconds for a connection to one replica."""

AT_ONCE = 32
"""Simultaneous connections of the browser."""

PIECE = 65536
"""Bytes passed on at a time."""

HERE = "http://127.0.0.1:7472"


@click.command()
@click.option("--node", metavar="NAME", shell_complete=names("Node"), help="Replica to show. Default: the leader.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Local TCP port. Default: a free one.")
@click.option("--no-browser", is_flag=True, help="Print the URL only.")
@click.option("--from", "source", metavar="URL", help=f"Open the page at this address, without the API: {HERE}.")
@query
def dashboard(options: Options, *, node: str | None, port: int, no_browser: bool, source: str | None) -> None:
    """Open the status page of a replica in a browser, and forward it until Ctrl-C."""
    if source or options.cluster != "kube":
        _direct(source or HERE, browser=not no_browser)
        return

    async def work(cluster: Cluster) -> None:
        replica = await chosen(cluster, node)
        await _forward(cluster, replica, port, browser=not no_browser)

    options.ask(work)


def _direct(url: str, *, browser: bool) -> None:
    from porterlb.cli.replicas import reach  # noqa: PLC0415  # with aiohttp

    reach(url)
    _show(f"The status page: {url.rstrip('/')}/", f"{url.rstrip('/')}/", browser=browser)


def _show(text: str, url: str, *, browser: bool) -> None:
    click.echo(text)
    with contextlib.suppress(webbrowser.Error):
        if browser and not webbrowser.open(url):
            click.echo("There is no browser here: open the URL yourself.", err=True)


async def chosen(cluster: Cluster, node: str | None) -> str:
    """The node of the first replica that can be reached, the leader's first. Raises PorterError if there is none."""
    leases = await cluster.leases()
    members, leader = sorted(members_of(leases)), leader_of(leases)
    if node is not None and node not in members:
        known = f"Replicas: {', '.join(members)}." if members else "No replica is known: is a manager running?"
        raise PorterError(f"There is no replica on {node}.", known, exit_code=2)
    order = [node] if node is not None else sorted(members, key=lambda name: name != leader)
    failed: list[str] = []
    for name in order:
        try:
            async with asyncio.timeout(REACH_WITHIN):
                tunnel = await cluster.tunnel(name)
            await tunnel.close()
        except TimeoutError:
            failed.append(f"{name}: no answer within {REACH_WITHIN:g} s")
        except (Unavailable, Denied) as error:
            failed.append(f"{name}: {str(error).rstrip('.')}")
        else:
            return name
    why = "; ".join(failed) or "there is none"
    raise PorterError(
        f"No replica can be reached ({why}).", f"On a node of the cluster: porterlb dashboard --from {HERE}."
    )


async def _forward(cluster: Cluster, node: str, port: int, *, browser: bool) -> None:
    room = asyncio.Semaphore(AT_ONCE)
    told: set[str] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with room:
                async with asyncio.timeout(REACH_WITHIN):
                    tunnel = await cluster.tunnel(node)
                await _relay(reader, writer, tunnel)
        except (Unavailable, Denied, TimeoutError, OSError) as error:
            text = str(error) or f"The replica on {node} has not answered within {REACH_WITHIN:g} s."
            if text not in told:  # the page tries again each second
                told.add(text)
                click.echo(text, err=True)
        finally:
            writer.transport.abort()

    try:
        server = await asyncio.start_server(serve, "127.0.0.1", port)
    except OSError as error:
        raise PorterError(
            f"The local port {port} cannot be used: {error.strerror}.", "Choose another --port."
        ) from None
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server:
        await asyncio.to_thread(
            _show, f"The status page of the replica on {node}: {url}\nPress Ctrl-C to end.", url, browser=browser
        )
        await server.serve_forever()


async def _relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tunnel: Tunnel) -> None:
    """Relays bytes in both directions until one end closes."""

    async def up() -> None:
        while data := await reader.read(PIECE):
            await tunnel.send(data)

    async def down() -> None:
        while data := await tunnel.receive():
            writer.write(data)
            await writer.drain()

    tasks: Sequence[asyncio.Task[None]] = [asyncio.create_task(up()), asyncio.create_task(down())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        if tasks[1].done():
            writer.close()
            await writer.wait_closed()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await tunnel.close()
