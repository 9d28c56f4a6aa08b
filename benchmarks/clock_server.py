"""Streams whose text is the time they were sent, so that the reader knows how late it comes.

Run as a process of its own (`python -m benchmarks.clock_server`); it prints its port and ends when
its standard input closes. A path begins with the pause between two chunks in ms, and their number:
`/20/50/v2/chat/completions`.
"""

import asyncio
import sys
import time

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
EVENT = (
    b'data: {"id":"as-bench00001","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"ernie-5.1","choices":[{"index":0,"delta":{"content":"%.6f"},"flag":0}]}\n\n'
)


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class Connection(asyncio.Protocol):
    """One connection and one stream."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.left = 0
        self.pause = 0.0
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.left:
            return
        _, pause, chunks, _ = data.split(b" ", 2)[1].split(b"/", 3)
        self.left, self.pause = int(chunks), int(pause) / 1000
        self.due = self.loop.time()
        self.transport.write(HEAD)
        self.send()

    def send(self) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(http_chunk(EVENT % time.monotonic()))
        self.left -= 1
        if self.left:
            self.due += self.pause
            self.loop.call_at(self.due, self.send)
        else:
            self.transport.write(http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
            self.transport.close()


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    is_over = asyncio.Event()
    loop.add_reader(sys.stdin, is_over.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await is_over.wait()


if __name__ == "__main__":
    asyncio.run(serve())
