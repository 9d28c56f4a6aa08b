"""A service with FastAPI: `uvicorn fastapi_service:app --timeout-graceful-shutdown 25`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from draining import drain_at_sigterm
from fastapi import BackgroundTasks, Body, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

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


@app.post("/sse", response_class=EventSourceResponse)
async def sse(question: Question, client: Ernie) -> AsyncIterator[ServerSentEvent]:
    try:
        async with client.stream(question) as stream:
            async for text in stream.text_deltas():
                yield ServerSentEvent(data={"text": text})
            answer = await stream.final()
        yield ServerSentEvent(event="done", data={"tokens": answer.usage.total_tokens})
    except ErnieError as error:
        data = {"code": type(error).__name__, "request_id": error.request_id}
        yield ServerSentEvent(event="error", data=data)


@app.post("/text", response_class=StreamingResponse)
async def text(question: Question, client: Ernie) -> AsyncIterator[str]:
    async with client.stream(question) as stream:
        async for piece in stream.text_deltas():
            yield piece


async def summarize(client: AsyncClient, text: str) -> None:
    try:
        answer = await client.chat(f"用一句话概括：{text}", priority="batch")
        print("summary:", answer.text, flush=True)
    except ErnieError as error:  # nobody else will see it
        print("no summary:", error, flush=True)


@app.post("/summary", status_code=202)
async def summary(question: Question, client: Ernie, tasks: BackgroundTasks) -> None:
    tasks.add_task(summarize, client, question)
