"""A service with Litestar: `uvicorn litestar_service:app --timeout-graceful-shutdown 25`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from draining import drain_at_sigterm
from litestar import Litestar, Response, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State
from litestar.response import ServerSentEvent, ServerSentEventMessage, Stream

from ernie_async import AsyncClient, ErnieError, Limits


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    limits = Limits(requests_per_minute=3_000, concurrency=64)
    async with AsyncClient(limits=limits) as client:
        app.state.client = client
        with drain_at_sigterm(client):
            yield


async def events(client: AsyncClient, question: str) -> AsyncIterator[ServerSentEventMessage]:
    try:
        async with client.stream(question) as stream:
            async for text in stream.text_deltas():
                yield ServerSentEventMessage(json.dumps({"text": text}))
            answer = await stream.final()
        yield ServerSentEventMessage(json.dumps({"tokens": answer.usage.total_tokens}), "done")
    except ErnieError as error:
        data = {"code": type(error).__name__, "request_id": error.request_id}
        yield ServerSentEventMessage(json.dumps(data), "error")


@post("/sse", status_code=200)
async def sse(data: dict[str, str], state: State) -> ServerSentEvent:
    return ServerSentEvent(events(state.client, data["question"]))


async def pieces(client: AsyncClient, question: str) -> AsyncIterator[str]:
    async with client.stream(question) as stream:
        async for text in stream.text_deltas():
            yield text


@post("/text", status_code=200)
async def text(data: dict[str, str], state: State) -> Stream:
    return Stream(pieces(state.client, data["question"]), media_type="text/plain")


async def summarize(client: AsyncClient, text: str) -> None:
    try:
        answer = await client.chat(f"用一句话概括：{text}", priority="batch")
        print("summary:", answer.text, flush=True)
    except ErnieError as error:  # nobody else will see it
        print("no summary:", error, flush=True)


@post("/summary", status_code=202)
async def summary(data: dict[str, str], state: State) -> Response[None]:
    return Response(None, background=BackgroundTask(summarize, state.client, data["question"]))


app = Litestar([sse, text, summary], lifespan=[lifespan])
