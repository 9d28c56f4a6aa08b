"""The other side of the chaos run: a server of known texts, behind the fault proxy.

A process of its own (`python -m benchmarks.chaos_server`). It prints the proxy's port, answers each
line on its standard input with the faults so far, as JSON, and ends when that closes.

The first part of a path says how to answer: `/ids/...` numbers the events and sends what comes
after `Last-Event-ID`; `/plain/...` does neither, and given a turn of the model goes on from there,
after repeating up to 20 of its last characters.
"""

import argparse
import asyncio
import json
import random
import sys
from typing import Any

from benchmarks.faults import FaultProxy, Plan

CHUNKS = 40
CHUNK_CHARS = 2
REPEATED_MOST = 20

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)


def text_of(name: str) -> str:
    """The text that belongs to a question; no character stands in it twice."""
    letters = random.Random(name).sample(range(0x4E00, 0x9FFF), CHUNKS * CHUNK_CHARS)
    return "".join(map(chr, letters))


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def events_of(text: str, name: str, *, first: int, has_ids: bool) -> list[bytes]:
    """The events of a text, numbered from `first`."""
    pieces = [text[at : at + CHUNK_CHARS] for at in range(0, len(text), CHUNK_CHARS)]
    fields: list[dict[str, Any]] = [{"index": 0, "delta": {"content": piece}} for piece in pieces]
    fields.append({"index": 0, "delta": {}, "finish_reason": "stop"})
    events = [
        json.dumps({"id": f"as-{name}", "choices": [choice]}, ensure_ascii=False).encode()
        for choice in fields
    ]
    return [
        (b"id: %d\n" % number if has_ids else b"") + b"data: " + event + b"\n\n"
        for number, event in enumerate([*events, b"[DONE]"], first)
    ]


def answer(head: str, body: bytes, chance: random.Random) -> list[bytes]:
    """The events to send to a request."""
    messages = json.loads(body)["messages"]
    name = messages[0]["content"]
    text = text_of(name)
    if head.split(" ", 2)[1].startswith("/ids/"):
        _, found, value = head.lower().partition("last-event-id:")
        read = int(value.split("\r\n", 1)[0]) if found else 0
        return events_of(text, name, first=1, has_ids=True)[read:]
    told = sum(len(turn["content"]) for turn in messages if turn["role"] == "assistant")
    again = chance.randint(0, min(REPEATED_MOST, told))
    return events_of(text[told - again :], name, first=1, has_ids=False)


async def serve(seed: int, pause: float) -> None:
    chance = random.Random(seed)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(head.lower().split("content-length:")[1].split("\r\n", 1)[0])
            events = answer(head, await reader.readexactly(length), chance)
            writer.write(HEAD)
            for event in events:
                writer.write(http_chunk(event))
                await writer.drain()
                await asyncio.sleep(pause)
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)
    proxy = FaultProxy(server.sockets[0].getsockname()[1], Plan(), seed=seed)
    front = await proxy.start()
    print(front.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(proxy.counts), flush=True)
        proxy.counts.clear()
    # Python 3.11 reports each connection that is cancelled now.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.05)
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.seed, arguments.pause))


if __name__ == "__main__":
    main()
