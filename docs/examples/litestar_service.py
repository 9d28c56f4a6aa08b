"""A service with Litestar: `uvicorn litestar_service:app --timeout-graceful-shutdown 25`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from answers import LIMITS, UNBUFFERED, events, pieces, summarize
from draining import drain_at_sigterm
from litestar import Litestar, Response, post
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import State
from litestar.response import Stream
from msgspec import Meta, Struct

from ernie_async import AsyncClient


class Ask(Struct):
    question: Annotated[str, Meta(pattern=r"\S")]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with AsyncClient(limits=LIMITS) as app.state.client:
        with drain_at_sigterm(app.state.client):
            yield


@post("/sse", status_code=200)
async def sse(data: Ask, state: State) -> Stream:
    body = events(state.client, data.question)
    return Stream(body, headers=UNBUFFERED, media_type="text/event-stream")


@post("/text", status_code=200)
async def text(data: Ask, state: State) -> Stream:
    body = pieces(state.client, data.question)
    return Stream(body, headers=UNBUFFERED, media_type="text/plain")


@post("/summary", status_code=202)
async def summary(data: Ask, state: State) -> Response[None]:
    return Response(None, background=BackgroundTask(summarize, state.client, data.question))


app = Litestar([sse, text, summary], lifespan=[lifespan])
