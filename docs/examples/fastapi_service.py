"""A service with FastAPI: `uvicorn fastapi_service:app --timeout-graceful-shutdown 25`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from answers import LIMITS, UNBUFFERED, events, pieces, summarize
from draining import drain_at_sigterm
from fastapi import BackgroundTasks, Body, Depends, FastAPI, Request
from fastapi.responses import StreamingResponse

from ernie_async import AsyncClient


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, AsyncClient]]:
    async with AsyncClient(limits=LIMITS) as client:
        with drain_at_sigterm(client):
            yield {"client": client}


async def client_of(request: Request) -> AsyncClient:
    return request.state.client


app = FastAPI(lifespan=lifespan)
Ernie = Annotated[AsyncClient, Depends(client_of)]
Question = Annotated[str, Body(embed=True, pattern=r"\S")]


@app.post("/sse")
async def sse(question: Question, client: Ernie) -> StreamingResponse:
    body = events(client, question)
    return StreamingResponse(body, headers=UNBUFFERED, media_type="text/event-stream")


@app.post("/text")
async def text(question: Question, client: Ernie) -> StreamingResponse:
    body = pieces(client, question)
    return StreamingResponse(body, headers=UNBUFFERED, media_type="text/plain")


@app.post("/summary", status_code=202)
async def summary(question: Question, client: Ernie, tasks: BackgroundTasks) -> None:
    tasks.add_task(summarize, client, question)
