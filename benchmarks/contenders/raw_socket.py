"""No HTTP library at all: asyncio's streams, drained without looking at what comes.

Connections are kept and used again, as the others do. Of HTTP it knows how a body of this server
ends, and nothing else.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

from benchmarks.contenders import KEY, MODEL, PROMPT
from benchmarks.load_server import END_OF_BODY

READ_BYTES = 65536

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    def __init__(self, base_url: str) -> None:
        self._url = urlsplit(f"{base_url}/chat/completions")
        self._idle: list[Connection] = []
        messages = [{"role": "user", "content": PROMPT}]
        request: dict[str, object] = {"model": MODEL, "messages": messages}
        self._request = self._render(request)
        self._stream_request = self._render({**request, "stream": True})

    def _render(self, request: dict[str, object]) -> bytes:
        body = json.dumps(request).encode()
        head = (
            f"POST {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()

    async def _connect(self) -> Connection:
        if self._idle:
            return self._idle.pop()
        return await asyncio.open_connection(self._url.hostname, self._url.port)

    async def stream(self, started: Callable[[], None]) -> None:
        reader, writer = connection = await self._connect()
        try:
            writer.write(self._stream_request)
            data = await reader.read(READ_BYTES)
            started()
            while data and not data.endswith(END_OF_BODY):
                data = await reader.read(READ_BYTES)
        except BaseException:
            writer.close()
            raise
        self._idle.append(connection)

    async def answer(self) -> None:
        reader, writer = connection = await self._connect()
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
        await reader.readexactly(int(length))
        self._idle.append(connection)
