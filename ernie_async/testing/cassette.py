"""`Cassette`: real answers, recorded once and played ever after.

    with Cassette("tests/cassettes/poem.json") as cassette:
        client = AsyncClient("any-key", base_url=cassette.base_url)

A server on 127.0.0.1, as `MockErnie` is, so that any client of any kind may talk to it. While it
records, it hands requests on to the real service and answers back as they come. What is kept of
them is for `redaction` and `tape` to know.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiohttp import web

from ernie_async.sansio.address import DEFAULT_BASE_URL
from ernie_async.testing.in_thread import InThread
from ernie_async.testing.play import break_off
from ernie_async.testing.redaction import Redaction
from ernie_async.testing.tape import (
    Answer,
    Asked,
    CassetteError,
    Exchange,
    Tape,
    asked,
    pack,
    pack_chunks,
    read_tape,
    write_tape,
)

__all__ = ["Cassette"]

# Seconds without a byte from the service, after which a recording is given up.
SILENCE_SECONDS = 300
CONNECT_SECONDS = 30
STOP_SECONDS = 5.0

# Of one connection only, or not true of what is handed on.
NOT_HANDED_ON = {
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
KEPT_HEADERS = re.compile(r"content-type|retry-after|x-ratelimit-.*", re.IGNORECASE)


class Cassette(InThread):
    """Records real traffic into a file, or plays what is in it.

    Enter it with `async with` or `with`, as `MockErnie`. A request is known by its method, path and
    body; equal ones are answered in the order in which they were recorded. No header of a request
    is kept, and no credential, wherever it stands.

    Args:
        path: The file.
        record: Whether to ask the real service, and to write the file anew.
        upstream: The base URL of the service.
        redact: Names of JSON fields, and patterns of text, that are to be left out as well.
        strict: Whether a request that was not recorded is an error, told to the client with status
            400 and raised at the end of the block. Else the most similar recording is played, if
            method and path are the same.
        pace: Whether the pauses between the chunks of a stream are recorded, and played.

    Raises:
        CassetteError: There is nothing to play, or at the end: a request was not recorded.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        record: bool = False,
        upstream: str = DEFAULT_BASE_URL,
        redact: Iterable[str | re.Pattern[str]] = (),
        strict: bool = True,
        pace: bool = False,
    ) -> None:
        self.path: Path = Path(path)
        self._is_recording = record
        self._upstream = upstream.rstrip("/")
        self._prefix = urlsplit(self._upstream).path
        self._redaction = Redaction(redact)
        self._is_strict = strict
        self._has_pace = pace
        self._tape = Tape([])
        self._recorded: dict[int, Exchange] = {}
        self._n_asked = 0
        self._unknown: list[CassetteError] = []
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.ServerRunner | None = None

    @property
    def base_url(self) -> str:
        """What to give a client as `base_url`."""
        if self._runner is None:
            raise RuntimeError("a cassette has no port before it is entered with `with`")
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}{self._prefix}"

    @property
    def unplayed(self) -> list[Asked]:
        """What was recorded and not asked for yet."""
        return self._tape.unplayed

    async def __aenter__(self) -> Self:
        if not self._is_recording:
            self._tape = read_tape(self.path)
        server = web.Server(self._answer, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        if self._is_recording:
            clocks = aiohttp.ClientTimeout(
                total=None, connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS
            )
            self._session = aiohttp.ClientSession(
                timeout=clocks, trust_env=True, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._runner is not None
        with anyio.move_on_after(STOP_SECONDS, shield=True):
            await self._runner.cleanup()
            if self._session is not None:
                await self._session.close()
        if self._recorded:
            write_tape(self.path, [self._recorded[n] for n in sorted(self._recorded)])
        if self._unknown and exc_type is None:
            raise self._unknown[0]

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        self._redaction.learn(request.headers)
        question = asked(
            request.method,
            request.path.removeprefix(self._prefix),
            query=request.query_string,
            content_type=request.headers.get("Content-Type", ""),
            body=body,
            redaction=self._redaction,
        )
        if self._session is not None:
            return await self._record(self._session, request, question, body)
        try:
            answer = self._tape.play(question, is_strict=self._is_strict)
        except CassetteError as error:
            self._unknown.append(error)
            return _refusal(400, "not_recorded", str(error))
        return await self._play(request, answer)

    async def _play(self, request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        pieces = answer.pieces()
        pauses = answer.pauses_ms if self._has_pace and answer.pauses_ms else [0] * len(pieces)
        for pause, piece in zip(pauses, pieces, strict=True):
            await anyio.sleep(pause / 1000)
            await response.write(piece)
        if answer.was_cut:
            await break_off(request)
        else:
            await response.write_eof()
        return response

    async def _record(
        self,
        session: aiohttp.ClientSession,
        request: web.BaseRequest,
        question: Asked,
        body: bytes,
    ) -> web.StreamResponse:
        number = self._n_asked
        self._n_asked += 1
        headers = {**_handed_on(request.headers), "Accept-Encoding": "identity"}
        url = f"{self._upstream}{request.path_qs.removeprefix(self._prefix)}"
        try:
            reply = await session.request(
                request.method, url, data=body or None, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            return _refusal(502, "internal_error", f"no answer of {self._upstream}: {error}")
        async with reply:
            response = web.StreamResponse(status=reply.status, headers=_handed_on(reply.headers))
            await response.prepare(request)
            chunks, pauses, was_cut = [], [], True
            began = monotonic()
            try:
                held = b""
                async for piece, is_end in reply.content.iter_chunks():
                    held += piece
                    if is_end and held:
                        pauses.append(round(1000 * (monotonic() - began)))
                        chunks.append(held)
                        await response.write(held)
                        held, began = b"", monotonic()
                if held:
                    pauses.append(0)
                    chunks.append(held)
                    await response.write(held)
                was_cut = False
            except (aiohttp.ClientError, TimeoutError):
                await break_off(request)
            finally:  # also if the client leaves, which is a cancellation here
                self._keep(number, question, reply, chunks, pauses, was_cut=was_cut)
            if not was_cut:
                await response.write_eof()
            return response

    def _keep(
        self,
        number: int,
        question: Asked,
        reply: aiohttp.ClientResponse,
        chunks: list[bytes],
        pauses: list[int],
        *,
        was_cut: bool,
    ) -> None:
        content_type = reply.headers.get("Content-Type", "")
        is_stream = "text/event-stream" in content_type
        if is_stream:
            body = pack_chunks(chunks, self._redaction)
        else:
            body = pack(b"".join(chunks), content_type, self._redaction)
        kept = {
            name: self._redaction.text(value)
            for name, value in reply.headers.items()
            if KEPT_HEADERS.fullmatch(name)
        }
        told = pauses if self._has_pace and is_stream else None
        answer = Answer(reply.status, kept, body, told, was_cut)
        self._recorded[number] = Exchange(question, answer)


def _handed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in NOT_HANDED_ON}


def _refusal(status: int, code: str, message: str) -> web.Response:
    error = {"code": code, "message": message, "type": "invalid_request_error"}
    body = json.dumps({"error": error, "id": "cassette"}, ensure_ascii=False)
    return web.Response(status=status, text=body, content_type="application/json")
