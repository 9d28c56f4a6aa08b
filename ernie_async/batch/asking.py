"""One attempt at one line: what it will take, the call, and what came of it.

Knows the client, and sends the body of the line as it is. Whether to try again is decided in
`flow`.
"""

from dataclasses import replace
from time import monotonic, time
from typing import NamedTuple

from ernie_async.batch.answers import Answer, AnyAnswer, read_body_of, readable
from ernie_async.batch.lines import CHAT_PATH, IMAGES_PATH, Line
from ernie_async.calling import ask
from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError, DeadlineError, ErnieError
from ernie_async.net.answer import fetch
from ernie_async.net.desk import Desk
from ernie_async.net.reply import Reply
from ernie_async.sansio.chat_request import json_body
from ernie_async.sansio.images import generation_path
from ernie_async.sansio.rate_headers import read_rate_headers
from ernie_async.sansio.retry import RetryPolicy
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.prices import Prices
from ernie_async.types.usage import Usage

__all__ = ["Asker", "Need"]

ONE_ATTEMPT = RetryPolicy(attempts=1)


class Need(NamedTuple):
    """What a call will take, roughly: tokens of the prompt and of the answer, and CNY."""

    prompt: int = 0
    answer: int = 0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt + self.answer


class Asker:
    """Makes attempts through a client. Serves one run.

    Args:
        client: Whose connections, key, timeouts and hooks are used.
        prices: What tokens cost; `None` for the client's.
        is_once: See below.

    Attributes:
        account: Whose quota is used.
        is_once: Nothing is ever sent a second time.

    Raises:
        ConfigError: The client filters prompts, and a batch sends them as they are.
    """

    def __init__(self, client: AsyncClient, prices: Prices | None, *, is_once: bool) -> None:
        desk = client._desk
        shown = desk.content_filter
        if shown is not None and "prompt" in shown.channels:
            raise ConfigError(
                "content_filter: a batch sends prompts as they are; give it a client whose filter "
                "has no channel 'prompt'"
            )
        self.account: str = desk.account
        # The limiter is asked beforehand, so that the call's own clock begins when it is sent. What
        # is sent again, and when, has rules of its own here.
        self._desk = replace(desk, limiter=None, retry=ONE_ATTEMPT, breaker=None, retry_budget=None)
        self._prices = desk.ledger.prices if prices is None else prices
        self.is_once = is_once

    def need(self, line: Line) -> Need:
        """Estimate what a line will take."""
        text = prompt_text(line)
        prompt = self._desk.ledger.correction.corrected(line.model, estimate_tokens(text))
        answer = 0
        if line.path == CHAT_PATH:
            told = line.body.get("max_completion_tokens") or line.body.get("max_tokens")
            n = line.body.get("n")
            answer = told if isinstance(told, int) else self._desk.output.usual()
            answer *= n if isinstance(n, int) else 1
        usage = Usage(prompt_tokens=prompt, completion_tokens=answer)
        return Need(prompt, answer, self._prices.cost(line.model, usage) or 0.0)

    def has_price(self, line: Line) -> bool:
        """Whether it is known what the line costs."""
        return self._prices.price(line.model, 0) is not None

    async def ask(self, line: Line) -> Answer:
        """Make one attempt. What goes wrong is in the answer, and not raised."""
        answer = Answer()
        started = monotonic()
        try:
            await self._ask(line, answer)
        except ErnieError as error:
            if isinstance(error, DeadlineError) and error.clock == "total":
                # Of this attempt, whose answer never came; the line as a whole has no clock.
                error.clock = "first_event"
            # Its frames hold it, and with them all that was read.
            answer.error = error.with_traceback(None)
            answer.request_id = error.request_id or answer.request_id
        answer.seconds = monotonic() - started
        if answer.usage is not None:
            answer.cost = self._prices.cost(line.model, answer.usage)
        return answer

    async def _ask(self, line: Line, answer: Answer) -> None:
        path = line.path
        if path == IMAGES_PATH:
            path = generation_path(line.model or "")

        def read(reply: Reply, raw: bytes) -> AnyAnswer:
            answer.status = reply.status
            answer.request_id = reply.headers.get("X-Request-Id")
            answer.body = readable(raw)
            answer.limits = read_rate_headers(reply.headers, utc_now=time())
            return read_body_of(line.path, answer, raw, reply.headers)

        desk, request = ask(
            self._desk,
            "POST",
            path,
            json_body(line.body),
            {},
            model=line.model,
            is_once=self.is_once,
        )
        found = await fetch(desk, request, read)
        if desk.content_filter is not None and isinstance(found, ChatCompletion):
            found = await _screened(desk, found, answer)
        if answer.usage is None and isinstance(found, ChatCompletion):
            # The service did not tell, so the client has estimated the answer, and we the prompt.
            prompt = estimate_tokens(prompt_text(line))
            answer.usage = Usage.estimated(
                prompt_tokens=prompt, completion_tokens=found.usage.completion_tokens
            )
        answer.request_id = getattr(found, "id", None) or answer.request_id


async def _screened(desk: Desk, found: ChatCompletion, answer: Answer) -> ChatCompletion:
    """What the client's filter leaves of an answer.

    Raises:
        BlockedError: It may not be shown.
    """
    from ernie_async.net.screening import screen_completion  # few need it

    assert desk.content_filter is not None
    status, answer.status, answer.body = answer.status, None, None  # not to be written as it came
    found = await screen_completion(desk.content_filter, found, desk.hooks)
    answer.status, answer.body = status, found.model_dump(mode="json", exclude_unset=True)
    return found


def prompt_text(line: Line) -> str:
    """All text that a line sends."""
    body = line.body
    if line.path != CHAT_PATH:
        given = body.get("input", body.get("prompt", ""))
        items = given if isinstance(given, list) else [given]
        return "\n".join(item for item in items if isinstance(item, str))
    pieces: list[str] = []
    messages = body.get("messages")
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, str):
            pieces.append(content)
        elif isinstance(content, list):
            pieces += [
                part["text"]
                for part in content
                if isinstance(part, dict) and isinstance(part.get("text"), str)
            ]
    return "\n".join(pieces)
