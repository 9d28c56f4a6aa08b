"""SIGTERM for a service under uvicorn: `with drain_at_sigterm(client):` in its lifespan."""

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ernie_async import AsyncClient


@contextmanager
def drain_at_sigterm(client: AsyncClient, seconds: float = 20) -> Iterator[None]:
    """From the signal on no call begins, and those under way have so many seconds."""
    loop, server_stops = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not callable(server_stops):  # under a test client
        yield
        return

    async def drain() -> None:
        report = await client.drain(timeout=seconds)
        logging.getLogger("uvicorn.error").info("%s", report)

    def on_sigterm(number: int, frame: FrameType | None) -> None:
        asyncio.run_coroutine_threadsafe(drain(), loop)
        server_stops(number, frame)

    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, server_stops)
