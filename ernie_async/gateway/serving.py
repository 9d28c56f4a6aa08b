"""Run the application until it is told to stop, and then let what runs come to its end."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from ernie_async.gateway.app import GATEWAY

__all__ = ["run_gateway"]

# What viewers get after the drain to read the last words.
GOODBYE_SECONDS = 2.0


async def run_gateway(
    app: web.Application,
    *,
    host: str,
    port: int,
    drain: float,
    ready: Callable[[str], None],
    draining: Callable[[int], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one ends the drain.

    Args:
        app: From `make_app`.
        host: Where to listen.
        port: 0 takes a free one.
        drain: Seconds that running answers get.
        ready: Told the address.
        draining: Told how many answers are under way.

    Raises:
        OSError: It cannot listen there.
    """
    stops: asyncio.Queue[None] = asyncio.Queue()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt
            asyncio.get_running_loop().add_signal_handler(number, stops.put_nowait, None)
    # No access log: the addresses of streams hold tickets.
    runner = web.AppRunner(
        app, handler_cancellation=True, access_log=None, shutdown_timeout=GOODBYE_SECONDS
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=1024).start()
        address = runner.addresses[0]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{address[1]}")
        await stops.get()
        hub = app[GATEWAY].hub
        draining(hub.n_running)
        ending = asyncio.create_task(hub.drain(drain))
        hurry = asyncio.create_task(stops.get())
        await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        ending.cancel()
    finally:
        await runner.cleanup()
