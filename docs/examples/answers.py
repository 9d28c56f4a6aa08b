"""What a service does with its client, whatever its framework."""

import json
from collections.abc import AsyncGenerator

from ernie_async import AsyncClient, ErnieError, Limits

LIMITS = Limits(requests_per_minute=3_000, concurrency=64)
UNBUFFERED = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def event(name: str, **data: object) -> str:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def question_in(body: bytes) -> str:
    """The question in a request's body; `ValueError` if there is none."""
    match json.loads(body):
        case {"question": str(question)} if question.strip():
            return question
    raise ValueError('expected {"question": "..."}')


async def events(client: AsyncClient, question: str) -> AsyncGenerator[str]:
    """An answer as server-sent events: `message`s, then one `done` or one `error`."""
    try:
        async with client.stream(question) as stream:
            async for text in stream.text_deltas():
                yield event("message", text=text)
            answer = await stream.final()
        yield event("done", tokens=answer.usage.total_tokens)
    except ErnieError as error:
        yield event("error", code=type(error).__name__, request_id=error.request_id)


async def pieces(client: AsyncClient, question: str) -> AsyncGenerator[str]:
    """An answer as plain text. An error is raised, so that the connection breaks, too."""
    async with client.stream(question) as stream:
        async for text in stream.text_deltas():
            yield text


async def summarize(client: AsyncClient, text: str) -> None:
    """A task in the background: it lets those go first who wait for an answer."""
    try:
        answer = await client.chat(f"用一句话概括：{text}", priority="batch")
        print("summary:", answer.text, flush=True)
    except ErnieError as error:  # nobody else will see it
        print("no summary:", error, flush=True)
