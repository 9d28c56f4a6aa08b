"""What a server may do to a stream, and what must come of it.

One row for each behaviour that users of other SDKs suffer from. Every row plays on a real server.
"""

import asyncio
import gzip
import time
import zlib
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import anyio
import pytest

from ernie_async import (
    APIError,
    AsyncClient,
    ConnectError,
    DeadlineError,
    DecodeError,
    ErnieError,
    InterruptedStreamError,
    Limits,
    RateLimitError,
    ServerError,
)
from ernie_async.testing import (
    MockErnie,
    Step,
    cut,
    error_event,
    heartbeats,
    raw,
    refuse,
    reply,
    stall,
)
from tests.net.freed import wait_freed

TEXT = "量子纠缠，简单说：😀 é\u2028x\u2029y\u0085z。"


def events(*texts: str, end: bytes = b"\n\n", colon: bytes = b": ", done: bool = True) -> bytes:
    """A whole stream of these texts."""
    lines = [
        b'data%s{"choices":[{"delta":{"content":"%s"}}]}' % (colon, text.encode()) for text in texts
    ]
    if done:
        lines += [b'data%s{"choices":[{"delta":{},"finish_reason":"stop"}]}' % colon]
        lines += [b"data%s[DONE]" % colon]
    return b"".join(line + end for line in lines)


def with_ids(body: bytes) -> bytes:
    blocks = body.removesuffix(b"\n\n").split(b"\n\n")
    return b"".join(b"id: %d\n%s\n\n" % (n, block) for n, block in enumerate(blocks, 1))


def bytewise(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


def flushed(body: bytes) -> bytes:
    """gzip up to here, without its end."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)


WHOLE = events(*TEXT)

COMES_WHOLE: dict[str, Step] = {
    "one byte at a time": raw(bytewise(events("量子", "😀"))),
    "CRLF": raw(events(*TEXT, end=b"\r\n\r\n")),
    "CR": raw(events(*TEXT, end=b"\r\r")),
    "CR, one byte at a time": raw(bytewise(events("量子", "😀", end=b"\r\r"))),
    "mixed line ends": raw(events("量子", end=b"\r\n\n", done=False) + events("😀", end=b"\r\r")),
    "byte order mark": raw(b"\xef\xbb\xbf" + WHOLE),
    "byte order mark in pieces": raw([b"\xef", b"\xbb", b"\xbf", WHOLE]),
    "no space after the colon": raw(events(*TEXT, colon=b":")),
    "a blank after the JSON": raw(WHOLE.replace(b"}\n", b"} \n")),
    "comments between events": raw(b": ping\n\n" + WHOLE.replace(b"\n\n", b"\n\n:\n\n: keep\n", 3)),
    "blocks with only retry or id": raw(b"retry: 3000\n\nid: 7\n\n" + WHOLE),
    "an empty data block": raw(b"data:\n\ndata\n\n" + WHOLE),
    "a line of 600 kB": raw(events("量" * 200_000)),
    "a line of 5 MB": raw(events("x" * 5_000_000)),
    "many events in one packet": raw(events(*("字" * 5000))),
    "no [DONE]": reply(TEXT, done=False),
    "no finish reason": reply(TEXT, finish_reason=None),
    "no empty line at the end": raw(WHOLE.removesuffix(b"\n\n")),
    "an unknown field": raw(WHOLE.replace(b'{"choices"', b'{"x_new":1,"choices"')),
    "usage in a chunk of its own": raw(
        WHOLE.replace(
            b"data: [DONE]", b'data: {"choices":[],"usage":{"total_tokens":9}}\n\ndata: [DONE]'
        )
    ),
    "content type missing": raw(WHOLE, content_type=""),
    "content type text/plain": raw(WHOLE, content_type="text/plain; charset=utf-8"),
    "heartbeats that stop": heartbeats(1, limit=20, text=TEXT),
    "heartbeats in the middle": heartbeats(1, after_chunks=2, limit=20, text=TEXT),
    "a cut after [DONE]": raw(WHOLE, end="reset"),
    "events after [DONE]": raw(WHOLE + events("幽灵")),
    "an error after [DONE]": raw(WHOLE + b'data: {"error":{"code":"internal_error"}}\n\n'),
    "silence after [DONE]": raw(WHOLE, end="stall"),
    "gzip": raw(gzip.compress(WHOLE), headers={"Content-Encoding": "gzip"}),
    "gzip, one byte at a time": raw(
        bytewise(gzip.compress(WHOLE)), headers={"Content-Encoding": "gzip"}
    ),
    "deflate": raw(zlib.compress(WHOLE), headers={"Content-Encoding": "deflate"}),
    "a lot of white space in gzip": raw(
        gzip.compress(b"\n" * 100_000 + WHOLE), headers={"Content-Encoding": "gzip"}
    ),
}


@pytest.mark.anyio
@pytest.mark.parametrize("step", COMES_WHOLE.values(), ids=COMES_WHOLE.keys())
async def test_the_text_comes_whole(server: MockErnie, client: AsyncClient, step: Step) -> None:
    server.script(step)
    async with client.stream("hi") as stream:
        text = "".join([chunk.text async for chunk in stream])
        answer = await stream.final()
    expected = {
        "a line of 600 kB": "量" * 200_000,
        "a line of 5 MB": "x" * 5_000_000,
        "many events in one packet": "字" * 5000,
    }
    name = next(name for name, row in COMES_WHOLE.items() if row is step)
    short = {"one byte at a time", "CR, one byte at a time", "mixed line ends"}
    assert text == expected.get(name, "量子😀" if name in short else TEXT)
    assert answer.text == text
    assert len(server.requests) == 1


BREAKS_LATE: dict[str, tuple[Step, type[ErnieError], Callable[[Any], bool]]] = {
    "a proper end of body without a marker": (
        cut(3, how="end"), InterruptedStreamError, lambda e: "finish reason" in str(e)),
    "closed in the middle": (cut(3), InterruptedStreamError, lambda e: e.last_event_id is None),
    "reset in the middle": (cut(3, how="reset"), InterruptedStreamError, lambda e: True),
    "closed in the middle, with ids": (
        raw(with_ids(events("量子", "纠缠", "是两", done=False)), end="close"),
        InterruptedStreamError, lambda e: e.last_event_id == "3"),
    "cut inside a line": (
        raw(events("量子", "纠缠", "是两", done=False) + b'data: {"choices":[{"delta":{"con'),
        InterruptedStreamError, lambda e: True),
    "an error event": (
        error_event(after_chunks=3), ServerError, lambda e: e.code == "internal_error"),
    "an error on a bare line": (
        error_event(after_chunks=3, bare=True), ServerError,
        lambda e: e.request_id.startswith("as-")),
    "an error event, then [DONE]": (
        raw(events("量子", "纠缠", "是两", done=False)
            + b'data: {"error":{"message":"no","code":null}}\n\ndata: [DONE]\n\n'),
        APIError, lambda e: e.status == 200),
    "a quota error in the stream": (
        error_event("rpm_rate_limit_exceeded", after_chunks=3), RateLimitError, lambda e: True),
    "an event that is no JSON": (
        raw(events("量子", "纠缠", "是两", done=False) + b"data: hello\n\n"),
        DecodeError, lambda e: e.body == b"hello"),
    "an event over the limit": (
        raw(events("量子", "纠缠", "是两", done=False) + b"data: " + b"x" * (9 * 1024 * 1024)),
        DecodeError, lambda e: "8,388,608" in str(e)),
    "a cut in gzip": (
        raw(flushed(events("量子", "纠缠", "是两", done=False)),
            headers={"Content-Encoding": "gzip"}, end="close"),
        InterruptedStreamError, lambda e: True),
    "a bomb of depth": (
        raw(events("量子", "纠缠", "是两", done=False) + b"data: " + b'{"a":' * 100_000 + b"\n\n"),
        DecodeError, lambda e: True),
    "silence": (stall(3), DeadlineError, lambda e: (e.clock, e.seconds) == ("idle", 0.7)),
    "heartbeats for ever": (
        heartbeats(5, after_chunks=3), DeadlineError, lambda e: e.clock == "idle"),
    "broken chunk framing, then silence": (
        raw([b"%x\r\n%s\r\n" % (len(part), part) for part in
             (events("量子", done=False), events("纠缠", done=False), events("是两", done=False))]
            + [b"\xff\xffzz\r\nxx\r\n"], framing=False, end="stall", pause_ms=10),
        ErnieError, lambda e: isinstance(e, DeadlineError | InterruptedStreamError)),
    "a missing CRLF in the framing, then the end": (
        raw([b"%x\r\n%s\r\n" % (len(part), part) for part in
             (events("量子", done=False), events("纠缠", done=False), events("是两", done=False))]
            + [b"9\r\n: 12345\n\nXX"], framing=False, end="close", pause_ms=10),
        ErnieError, lambda e: isinstance(e, DeadlineError | InterruptedStreamError)),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("row", BREAKS_LATE.values(), ids=BREAKS_LATE.keys())
async def test_a_break_after_text_says_so_and_has_the_text(
    server: MockErnie,
    client: AsyncClient,
    row: tuple[Step, type[ErnieError], Callable[[Any], bool]],
) -> None:
    step, kind, is_right = row
    server.script(step)
    text = ""
    with pytest.raises(kind) as caught:
        async for chunk in client.with_options(resume="never").stream("hi"):
            text += chunk.text
    assert text == "量子纠缠是两"
    assert is_right(caught.value)
    assert caught.value.partial.text == text  # type: ignore[attr-defined]
    assert caught.value.request_id
    assert len(server.requests) == 1, "nothing is asked again once text was handed over"


@pytest.mark.anyio
async def test_a_stream_with_ids_that_is_cut_is_resumed(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(cut(3, of=reply(TEXT, ids=True)), reply(TEXT, ids=True))
    async with client.stream("hi") as stream:
        assert await stream.text() == TEXT
    assert [resumed.how for resumed in stream.resumes] == ["server"]
    assert server.requests[1].headers["Last-Event-ID"] == "3"


FAILS_EARLY: dict[str, Step] = {
    "closed before the headers": cut(before_headers=True),
    "closed after the headers": cut(0),
    "a proper end after the headers": cut(0, how="end"),
    "only [DONE]": raw(b"data: [DONE]\n\n"),
    "an error as the first event": error_event(),
    "an error as the first event, on a bare line": error_event(bare=True),
    "a quota error as the first event": error_event("tpm_rate_limit_exceeded"),
    "an error as JSON with status 200": raw(
        b'{"error":{"code":"internal_error","message":"x"}}', content_type="application/json"
    ),
    "an HTML page with 502": raw(b"<html>Bad", status=502, content_type="text/html"),
    "an empty 503": raw(b"", status=503, content_type="text/plain"),
    "429": refuse(429, retry_after=0.01),
    "429 with Retry-After-Ms": refuse(429, headers={"Retry-After-Ms": "10"}),
    "429 with Retry-After as a date that is past": refuse(
        429, headers={"Retry-After": formatdate(0, usegmt=True)}
    ),
    "silence": stall(),
    "a large error page": refuse(503, body="<p>" * 50_000, content_type="text/html"),
    "silence before the headers": stall(before_headers=True),
    "heartbeats for ever": heartbeats(5),
}


@pytest.mark.anyio
@pytest.mark.parametrize("step", FAILS_EARLY.values(), ids=FAILS_EARLY.keys())
async def test_a_failure_before_any_text_is_retried_once_and_unseen(
    server: MockErnie, client: AsyncClient, step: Step
) -> None:
    server.script(step, reply(TEXT))
    async with client.stream("hi") as stream:
        assert await stream.text() == TEXT
        assert stream.timing.attempts == 2
    assert len(server.requests) == 2


IS_FINAL: dict[str, tuple[Step, type[ErnieError]]] = {
    "400": (refuse(400), APIError),
    "401": (refuse(401), APIError),
    "403": (refuse(403, "account_overdue"), APIError),
    "an HTML page with 200": (raw(b"<html>", content_type="text/html"), DecodeError),
    "JSON without an error": (raw(b'{"choices":[]}', content_type="application/json"), DecodeError),
    "Retry-After beyond the cap": (refuse(429, retry_after=100_000), RateLimitError),
    "Retry-After as a far date": (
        refuse(429, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}), RateLimitError),
    "a redirect": (refuse(307, headers={"Location": "http://127.0.0.1:9/"}), APIError),
}  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("row", IS_FINAL.values(), ids=IS_FINAL.keys())
async def test_a_final_refusal_is_raised_at_once(
    server: MockErnie, client: AsyncClient, row: tuple[Step, type[ErnieError]]
) -> None:
    step, kind = row
    server.script(step)
    with pytest.raises(kind):
        await client.stream("hi").text()
    assert len(server.requests) == 1


@pytest.mark.anyio
async def test_the_final_error_lists_its_attempts(server: MockErnie, client: AsyncClient) -> None:
    server.script(refuse(503), stall(), cut(before_headers=True))
    with pytest.raises(ConnectError) as caught:
        await client.stream("hi").text()
    assert [attempt.error.partition(":")[0] for attempt in caught.value.attempts] == [
        "ServerError",
        "DeadlineError",
        "ConnectError",
    ]
    assert "3 attempts" in str(caught.value)


@pytest.mark.anyio
async def test_ten_streams_make_one_connection(server: MockErnie, client: AsyncClient) -> None:
    for _ in range(10):
        assert await client.stream("hi").text()
    assert server.connections_made == 1


@pytest.mark.anyio
async def test_chat_is_retried_and_reads_errors_inside_a_200(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(error_event(), cut(5), refuse(500))
    with pytest.raises(ServerError) as caught:
        await client.chat("hi")
    assert len(caught.value.attempts) == 3
    server.script(refuse(429, retry_after=0.01), reply(TEXT))
    assert (await client.chat("hi")).text == TEXT


@pytest.mark.anyio
async def test_429_waits_until_the_date_it_names(server: MockErnie, client: AsyncClient) -> None:
    until = int(time.time()) + 2
    server.script(refuse(429, headers={"Retry-After": formatdate(until, usegmt=True)}), reply(TEXT))
    assert await client.stream("hi").text() == TEXT
    assert until <= time.time() < until + 2


@pytest.mark.anyio
async def test_a_consumer_that_leaves_early_frees_the_socket_within_50_ms(
    server: MockErnie, client: AsyncClient
) -> None:
    server.script(reply("字" * 100, chunk_ms=20))
    async with client.stream("hi") as stream:
        async for _ in stream:
            break
    await wait_freed(server)
    assert server.requests[0].ended == "client_gone"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "step",
    [
        stall(before_headers=True),
        stall(),
        stall(3),
        refuse(503, retry_after=5),
        cut(3, of=reply(TEXT, ids=True)),
    ],
    ids=["headers", "first event", "next event", "backoff", "resume"],
)
async def test_cancelled_at_any_await_all_is_as_before(server: MockErnie, step: Step) -> None:
    leaves_a_connection = step == refuse(503, retry_after=5)  # which the next one in line takes
    server.script(step)
    server.default(stall(before_headers=True))
    async with AsyncClient("k", base_url=server.base_url, limits=Limits(concurrency=1)) as client:
        before = asyncio.all_tasks()
        ahead, in_line = (asyncio.create_task(client.stream("hi").text()) for _ in range(2))
        await asyncio.sleep(0.1)
        with anyio.fail_after(5):
            while leaves_a_connection and len(server.requests) < 2:
                await asyncio.sleep(0.01)
        for task in (in_line, ahead):
            task.cancel()
        await asyncio.gather(ahead, in_line, return_exceptions=True)
        assert ahead.cancelled()
        assert in_line.cancelled()
        await server.wait_idle(connections=True)
        assert client.limiter is not None
        assert (client.limiter.in_flight, client.limiter.waiting) == (0, 0)
        assert asyncio.all_tasks() == before
