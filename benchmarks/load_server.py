"""A server that costs next to nothing: rendered bytes, one event per TCP write.

Run as a process of its own (`python -m benchmarks.load_server`); it prints its port and ends when
its standard input closes. What it sends is chosen by the first part of the path, a `Mode`:
`POST /chunks=2000,pause=0.02,gate=1/v2/chat/completions`. It reads no request body.

A gated stream sends its first event and then holds until `GET /gate`, which lets every held stream
go on. So a client can open all its streams first, and only then start its clock. `GET /gate/ahead`
is answered only when each of these streams is sent whole or fills its socket: a client that waits
for it, without reading, never waits for the server again. One client process is served at a time:
there is one gate.

Rule: after the first event one event is one HTTP chunk and one `write`, and nothing is written
while the socket is full, so that the transport never joins two events in its own buffer.
"""

import argparse
import asyncio
import json
import socket
import ssl
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

from benchmarks.machine import MANY, allow_descriptors, pin

SLICE = 32
"""Events one full-speed stream may write before the next stream has its turn."""

TEXT = "量子"

STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"Content-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"X-Request-Id: as-bench00001\r\n"
    b"Transfer-Encoding: chunked\r\n"
    b"\r\n"
)
END_OF_BODY = b"0\r\n\r\n"
GATE_OPEN = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Mode:
    """What one base URL asks of the server.

    Attributes:
        chunks: Chunks in the stream, the one with `finish_reason` included; 0 for a plain answer.
        pause: Seconds between two chunks; 0 for as fast as the client reads.
        is_gated: Hold after the first chunk until the gate opens.
        words: How often `TEXT` stands in a plain answer.
    """

    chunks: int
    pause: float = 0.0
    is_gated: bool = False
    words: int = 50

    def __str__(self) -> str:
        return (
            f"chunks={self.chunks},pause={self.pause},gate={int(self.is_gated)},words={self.words}"
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        fields = dict(field.split("=") for field in text.split(","))
        return cls(
            int(fields["chunks"]),
            float(fields["pause"]),
            fields["gate"] == "1",
            int(fields["words"]),
        )


def render_chunk(delta: str, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": delta}, "flag": 0}
    if "finish_reason" in more:
        choice["finish_reason"] = more.pop("finish_reason")
    return {
        "id": "as-bench00001",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": "ernie-5.1",
        "choices": [choice],
        **more,
    }


def render_usage(completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": 1,
        "completion_tokens": completion_tokens,
        "total_tokens": completion_tokens + 1,
    }


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def frame(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


@lru_cache
def render_stream(chunks: int) -> tuple[bytes, ...]:
    """The writes of one stream, its head not included."""
    text = frame(compact(render_chunk(TEXT)))
    last = render_chunk("", finish_reason="stop", usage=render_usage(chunks))
    return (*[text] * (chunks - 1), frame(compact(last)), frame(b"[DONE]") + END_OF_BODY)


@lru_cache
def render_answer(words: int) -> bytes:
    body = compact(
        {
            "id": "as-bench00001",
            "object": "chat.completion",
            "created": 1760000000,
            "model": "ernie-5.1",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": TEXT * words},
                    "finish_reason": "stop",
                    "flag": 0,
                }
            ],
            "usage": render_usage(words),
        }
    )
    head = (
        "HTTP/1.1 200 OK\r\n"
        "Content-Type: application/json\r\n"
        "X-Request-Id: as-bench00001\r\n"
        f"Content-Length: {len(body)}\r\n"
        "\r\n"
    )
    return head.encode() + body


class Gate:
    """The streams that wait for `GET /gate`, in the order they came, and who waits for them."""

    def __init__(self) -> None:
        self.held: list[Connection] = []
        self.behind: set[Connection] = set()
        self.opened_by: asyncio.Transport | None = None

    def open(self, by: asyncio.Transport, *, ahead: bool) -> None:
        held, self.held = self.held, []
        if ahead:
            self.behind.update(held)
            self.opened_by = by
        else:
            by.write(GATE_OPEN)
        for position, connection in enumerate(held):
            connection.go_on(position / len(held))

    def is_ahead(self, connection: "Connection") -> None:
        """Note that a stream is sent whole or fills its socket."""
        self.behind.discard(connection)
        if self.opened_by is not None and not self.behind:
            self.opened_by.write(GATE_OPEN)
            self.opened_by = None


class Connection(asyncio.Protocol):
    """One client connection, with one request at a time."""

    transport: asyncio.Transport

    def __init__(self, gate: Gate) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = gate
        self.received = b""
        self.mode = Mode(0)
        self.writes: tuple[bytes, ...] = ()
        self.position = 0
        self.due = 0.0
        self.timer: asyncio.Handle | None = None
        self.is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        _, has_body, length = head.lower().partition(b"\r\ncontent-length:")
        if has_body and len(body) < int(length.split(b"\r\n", 1)[0]):
            return
        self.received = b""
        self.answer(head.split(b" ", 2)[1].decode())

    def answer(self, path: str) -> None:
        if path.startswith("/gate"):
            self.gate.open(self.transport, ahead=path.endswith("/ahead"))
            return
        self.mode = Mode.parse(path.split("/")[1])
        if not self.mode.chunks:
            self.transport.write(render_answer(self.mode.words))
            return
        self.writes = render_stream(self.mode.chunks)
        self.transport.write(STREAM_HEAD)
        self.transport.write(self.writes[0])
        self.position = 1
        if self.mode.is_gated:
            self.gate.held.append(self)
        else:
            self.go_on(0.0)

    def go_on(self, share: float) -> None:
        """Send the rest; `share` of a pause later, so that paced streams do not march in step."""
        if self.mode.pause:
            self.due = self.loop.time() + self.mode.pause * (1 + share)
            self.timer = self.loop.call_at(self.due, self.send_one)
        else:
            self.timer = self.loop.call_soon(self.send_slice)

    def send_one(self) -> None:
        self.transport.write(self.writes[self.position])
        self.position += 1
        if self.position < len(self.writes) - 1:
            self.due += self.mode.pause
            self.timer = self.loop.call_at(self.due, self.send_one)
        else:  # nobody waits between the last chunk and [DONE]
            self.transport.write(self.writes[-1])

    def send_slice(self) -> None:
        end = min(self.position + SLICE, len(self.writes))
        while self.position < end and not self.is_full:
            self.transport.write(self.writes[self.position])
            self.position += 1
        if self.position == len(self.writes):
            self.gate.is_ahead(self)
        elif not self.is_full:
            self.timer = self.loop.call_soon(self.send_slice)

    def pause_writing(self) -> None:
        self.is_full = True
        self.gate.is_ahead(self)

    def resume_writing(self) -> None:
        self.is_full = False
        if not self.mode.pause and 1 < self.position < len(self.writes):
            self.timer = self.loop.call_soon(self.send_slice)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.timer is not None:
            self.timer.cancel()
        if self in self.gate.held:
            self.gate.held.remove(self)
        self.gate.is_ahead(self)


async def serve(certificate: Path | None) -> None:
    loop = asyncio.get_running_loop()
    gate = Gate()
    tls = None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    server = await loop.create_server(
        lambda: Connection(gate), "127.0.0.1", 0, backlog=4096, ssl=tls
    )
    is_over = asyncio.Event()
    loop.add_reader(sys.stdin, is_over.set)
    print(server.sockets[0].getsockname()[1], flush=True)
    await is_over.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int)
    parser.add_argument("--certificate", type=Path, help="a PEM file with key; then it speaks TLS")
    options = parser.parse_args()
    pin(options.core)
    allow_descriptors(MANY)
    asyncio.run(serve(options.certificate))


if __name__ == "__main__":
    main()
