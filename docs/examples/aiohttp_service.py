"""A service with aiohttp.web: `PORT=8000 python aiohttp_service.py`."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import suppress

from aiohttp import web

from ernie_async import AsyncClient, ErnieError, Limits

CLIENT = web.AppKey("client", AsyncClient)
routes = web.RouteTableDef()
tasks: set[asyncio.Task[None]] = set()


async def open_client(app: web.Application) -> AsyncIterator[None]:
    limits = Limits(requests_per_minute=3_000, concurrency=64)
    async with AsyncClient(limits=limits) as app[CLIENT]:
        yield


async def drain(app: web.Application) -> None:
    print(await app[CLIENT].drain(timeout=20), flush=True)


async def begin(request: web.Request, content_type: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    response.content_type, response.charset = content_type, "utf-8"
    await response.prepare(request)
    return response


def event(name: str, **data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


@routes.post("/sse")
async def sse(request: web.Request) -> web.StreamResponse:
    question = (await request.json())["question"]
    response = await begin(request, "text/event-stream")
    with suppress(ConnectionResetError):  # the reader has gone
        try:
            async with request.app[CLIENT].stream(question) as stream:
                async for text in stream.text_deltas():
                    await response.write(event("message", text=text))
                answer = await stream.final()
            await response.write(event("done", tokens=answer.usage.total_tokens))
        except ErnieError as error:
            code = type(error).__name__
            await response.write(event("error", code=code, request_id=error.request_id))
    return response


@routes.post("/text")
async def text(request: web.Request) -> web.StreamResponse:
    question = (await request.json())["question"]
    response = await begin(request, "text/plain")
    with suppress(ConnectionResetError):
        async with request.app[CLIENT].stream(question) as stream:
            async for text in stream.text_deltas():
                await response.write(text.encode())
    return response


async def summarize(client: AsyncClient, text: str) -> None:
    try:
        answer = await client.chat(f"用一句话概括：{text}", priority="batch")
        print("summary:", answer.text, flush=True)
    except ErnieError as error:  # nobody else will see it
        print("no summary:", error, flush=True)


@routes.post("/summary")
async def summary(request: web.Request) -> web.Response:
    question = (await request.json())["question"]
    task = asyncio.create_task(summarize(request.app[CLIENT], question))
    tasks.add(task)  # the loop alone would not keep it
    task.add_done_callback(tasks.discard)
    return web.Response(status=202)


app = web.Application()
app.add_routes(routes)
app.cleanup_ctx.append(open_client)
app.on_shutdown.append(drain)

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=True, shutdown_timeout=5)
