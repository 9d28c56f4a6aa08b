"""A service with FastAPI: `uvicorn fastapi_service:app --timeout-graceful-shutdown 25`."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from draining import drain_at_sigterm
from fastapi import BackgroundTasks, Body, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from ernie_async import AsyncClient, ErnieError, Limits


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, AsyncClient]]:
    limits = Limits(requests_per_minute=3_000, concurrency=64)
    async with AsyncClient(limits=limits) as client:
        with drain_at_sigterm(client):
            yield {"client": client}


async def client_of(request: Request) -> AsyncClient:
    return request.state.client


app = FastAPI(lifespan=lifespan)
Ernie = Annotated[AsyncClient, Depends(client_of)]
Question = Annotated[str, Body(embed=True)]
SSE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


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


@app.post("/sse")
async def sse(question: Question, client: Ernie) -> StreamingResponse:
    return StreamingResponse(events(client, question), 200, SSE, "text/event-stream")


async def pieces(client: AsyncClient, question: str) -> AsyncIterator[str]:
    async with client.stream(question) as stream:
        async for text in stream.text_deltas():
            yield text


@app.post("/text")
async def text(question: Question, client: Ernie) -> StreamingResponse:
    return StreamingResponse(pieces(client, question), media_type="text/plain")


async def summarize(client: AsyncClient, text: str) -> None:
    try:
        answer = await client.chat(f"用一句话概括：{text}", priority="batch")
        print("summary:", answer.text, flush=True)
    except ErnieError as error:  # nobody else will see it
        print("no summary:", error, flush=True)


@app.post("/summary", status_code=202)
async def summary(question: Question, client: Ernie, tasks: BackgroundTasks) -> None:
    tasks.add_task(summarize, client, question)
