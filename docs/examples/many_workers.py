"""Four workers, one quota: `REDIS_URL=redis://localhost python many_workers.py`."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from answers import question_in
from draining import drain_at_sigterm
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from ernie_async import AsyncClient, Limits
from ernie_async.redis import RedisLimiter

WORKERS = int(os.environ.get("WEB_CONCURRENCY", "4"))
LIMITS = Limits(requests_per_minute=600, tokens_per_minute=300_000, burst=10)  # of all together


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, AsyncClient]]:
    """Each worker runs this for itself."""
    async with (
        RedisLimiter(os.environ["REDIS_URL"], LIMITS, share=1 / WORKERS) as limiter,
        AsyncClient(limits=limiter) as client,
    ):
        with drain_at_sigterm(client):
            yield {"client": client}


async def chat(request: Request) -> JSONResponse:
    try:
        question = question_in(await request.body())
    except ValueError as error:
        raise HTTPException(400, str(error)) from None
    answer = await request.state.client.chat(question)
    return JSONResponse({"text": answer.text, "worker": os.getpid()})


app = Starlette(routes=[Route("/chat", chat, methods=["POST"])], lifespan=lifespan)

if __name__ == "__main__":
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run("many_workers:app", port=port, workers=WORKERS, timeout_graceful_shutdown=25)
