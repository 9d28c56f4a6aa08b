"""A service with Starlette: `uvicorn starlette_service:app --timeout-graceful-shutdown 25`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from draining import drain_at_sigterm
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ernie_async import AsyncClient, ErnieError, Limits

SSE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, AsyncClient]]:
    limits = Limits(requests_per_minute=3_000, concurrency=64)
    async with AsyncClient(limits=limits) as client:
        with drain_at_sigterm(client):
            yield {"client": client}


def event(name: str, **data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


async def events(client: AsyncClient, question: str) -> AsyncIterator[str]:
    try:
        async with client.stream(question) as stream:
            async for text in stream.text_deltas():
                yield event("message", text=text)
            answer = await stream.final()
        yield event("done", tokens=answer.usage.total_tokens)
    except ErnieError as error:
        yield event("error", code=type(error).__name__, request_id=error.request_id)


async def sse(request: Request) -> StreamingResponse:
    question = (await request.json())["question"]
    body = events(request.state.client, question)
    return StreamingResponse(body, 200, SSE, "text/event-stream")


async def pieces(client: AsyncClient, question: str) -> AsyncIterator[str]:
    async with client.stream(question) as stream:
        async for text in stream.text_deltas():
            yield text


async def text(request: Request) -> StreamingResponse:
    question = (await request.json())["question"]
    return StreamingResponse(pieces(request.state.client, question), media_type="text/plain")


async def summarize(client: AsyncClient, text: str) -> None:
    try:
        answer = await client.chat(f"用一句话概括：{text}", priority="batch")
        print("summary:", answer.text, flush=True)
    except ErnieError as error:  # nobody else will see it
        print("no summary:", error, flush=True)


async def summary(request: Request) -> Response:
    question = (await request.json())["question"]
    task = BackgroundTask(summarize, request.state.client, question)
    return Response(status_code=202, background=task)


routes = [Route(f"/{f.__name__}", f, methods=["POST"]) for f in (sse, text, summary)]
app = Starlette(routes=routes, lifespan=lifespan)
