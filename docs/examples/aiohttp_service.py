"""A service with aiohttp.web: `PORT=8000 python aiohttp_service.py`."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress

from aiohttp import web
from answers import LIMITS, UNBUFFERED, events, pieces, question_in, summarize

from ernie_async import AsyncClient

CLIENT = web.AppKey("client", AsyncClient)
routes = web.RouteTableDef()
tasks: set[asyncio.Task[None]] = set()


async def open_client(app: web.Application) -> AsyncIterator[None]:
    async with AsyncClient(limits=LIMITS) as app[CLIENT]:
        yield


async def drain(app: web.Application) -> None:
    print(await app[CLIENT].drain(timeout=20), flush=True)


async def question_of(request: web.Request) -> str:
    try:
        return question_in(await request.read())
    except ValueError as error:
        raise web.HTTPBadRequest(text=str(error)) from None


async def send(
    request: web.Request, body: AsyncGenerator[str], content_type: str
) -> web.StreamResponse:
    response = web.StreamResponse(headers=UNBUFFERED)
    response.content_type, response.charset = content_type, "utf-8"
    with suppress(ConnectionResetError):  # the reader has gone
        await response.prepare(request)
        async with aclosing(body):
            async for piece in body:
                await response.write(piece.encode())
    return response


@routes.post("/sse")
async def sse(request: web.Request) -> web.StreamResponse:
    body = events(request.app[CLIENT], await question_of(request))
    return await send(request, body, "text/event-stream")


@routes.post("/text")
async def text(request: web.Request) -> web.StreamResponse:
    body = pieces(request.app[CLIENT], await question_of(request))
    return await send(request, body, "text/plain")


@routes.post("/summary")
async def summary(request: web.Request) -> web.Response:
    task = asyncio.create_task(summarize(request.app[CLIENT], await question_of(request)))
    tasks.add(task)  # the loop alone would not keep it
    task.add_done_callback(tasks.discard)
    return web.Response(status=202)


app = web.Application()
app.add_routes(routes)
app.cleanup_ctx.append(open_client)
app.on_shutdown.append(drain)  # at SIGTERM, when nobody can connect any more

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=True, shutdown_timeout=5)
