"""A server that takes connections and never says a word."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

__all__ = ["silent_server"]


@asynccontextmanager
async def silent_server() -> AsyncGenerator[str, None]:
    """Listen on loopback; yields `host:port`."""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.close()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        await asyncio.sleep(0.05)  # those who listened see that nobody is there any more
