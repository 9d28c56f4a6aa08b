"""A proxy that breaks connections when it is told to."""

import asyncio
from types import TracebackType
from typing import Self


class CuttingProxy:
    """Passes bytes on, until `cut`.

    Args:
        port: Where to.
        after: Bytes of an answer after which a connection breaks, one number for each connection;
            those that come later do not break.
    """

    def __init__(self, port: int, *, after: tuple[int, ...] = ()) -> None:
        self._to = port
        self._after = list(after)
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.n_made = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Break all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[task] = writer
        self.n_made += 1
        left = self._after.pop(0) if self._after else 1 << 40
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._to)
        upwards = asyncio.create_task(pump(reader, up_writer))
        try:
            while left and (packet := await up_reader.read(min(left, 65536))):
                writer.write(packet)
                await writer.drain()
                left -= len(packet)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            upwards.cancel()
            up_writer.close()
            writer.transport.abort()
            del self._tasks[task]


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes."""
    while packet := await reader.read(65536):
        writer.write(packet)
