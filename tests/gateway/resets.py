"""Clients that vanish: connections that are reset at random points of a request and its answer."""

import asyncio
import random
import socket
import struct
from contextlib import suppress

RESET = struct.pack("ii", 1, 0)  # lingering for zero seconds turns the goodbye into a RST


async def reset_at_random(
    port: int, path: str, body: bytes, *, n: int, seed: int = 7, replay: str | None = None
) -> None:
    """Make `n` connections, and reset each one: before, within or after its request, or later.

    Args:
        port: Of the server.
        path: To post to.
        body: What to post.
        n: How many.
        seed: Of the chance.
        replay: A path to get in every third one instead.
    """
    chance = random.Random(seed)
    for start in range(0, n, 50):
        await asyncio.gather(
            *(
                reset_one(port, path, body, chance.random(), replay if number % 3 == 0 else None)
                for number in range(start, min(n, start + 50))
            )
        )


async def reset_one(
    port: int, path: str, body: bytes, when: float, replay: str | None = None
) -> None:
    """Make a connection and reset it.

    Args:
        port: Of the server.
        path: To post to.
        body: What to post.
        when: From 0 to 1: up to 0.3 within the request, up to 0.5 right after it, later after so
            many bytes of the answer.
        replay: A path to get instead.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    if replay is None:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        request = head.encode() + body
    else:
        request = f"GET {replay} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    if when < 0.3:
        writer.write(request[: int(len(request) * when / 0.3)])
    else:
        writer.write(request)
    await asyncio.sleep(0)
    if when >= 0.5:
        left = int((when - 0.5) * 4000)
        with suppress(TimeoutError):  # a short answer leaves the connection open
            async with asyncio.timeout(0.1):
                while left > 0 and (packet := await reader.read(left)):
                    left -= len(packet)
    elif when >= 0.4:
        await asyncio.sleep((when - 0.4) * 0.1)
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
