"""A service with Starlette: `uvicorn starlette_service:app --timeout-graceful-shutdown 25`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from answers import LIMITS, UNBUFFERED, events, pieces, question_in, summarize
from draining import drain_at_sigterm
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from ernie_async import AsyncClient


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, AsyncClient]]:
    async with AsyncClient(limits=LIMITS) as client:
        with drain_at_sigterm(client):
            yield {"client": client}


async def question_of(request: Request) -> str:
    try:
        return question_in(await request.body())
    except ValueError as error:
        raise HTTPException(400, str(error)) from None


async def sse(request: Request) -> StreamingResponse:
    body = events(request.state.client, await question_of(request))
    return StreamingResponse(body, headers=UNBUFFERED, media_type="text/event-stream")


async def text(request: Request) -> StreamingResponse:
    body = pieces(request.state.client, await question_of(request))
    return StreamingResponse(body, headers=UNBUFFERED, media_type="text/plain")


async def summary(request: Request) -> Response:
    task = BackgroundTask(summarize, request.state.client, await question_of(request))
    return Response(status_code=202, background=task)


app = Starlette(
    routes=[
        Route("/sse", sse, methods=["POST"]),
        Route("/text", text, methods=["POST"]),
        Route("/summary", summary, methods=["POST"]),
    ],
    lifespan=lifespan,
)
