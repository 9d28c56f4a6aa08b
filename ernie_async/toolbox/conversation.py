"""A conversation with tools: ask, have the functions called, ask again, until there is an answer.

Knows a toolbox by what a `Toolset` has.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol, Self

from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError, ToolLoopError
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.chat_request import Prompt, chat_request
from ernie_async.settings import CHAT_CALL_OPTIONS, ChatOptions
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.messages import Message
from ernie_async.types.request import ChatRequest
from ernie_async.types.tools import Tool, ToolCall
from ernie_async.types.usage import Usage

__all__ = ["Conversation", "ToolRun", "ToolStream", "Toolset"]


class Toolset(Protocol):
    """What a conversation needs of a toolbox."""

    max_rounds: int
    deadline: float | None

    @property
    def tools(self) -> list[Tool]:
        """What the model is told of the functions."""
        ...

    async def answer(self, calls: Iterable[ToolCall], *, round: int) -> list[Message]:  # noqa: A002
        """Call the functions; return the results as messages, in order."""
        ...


@dataclass(frozen=True, slots=True)
class ToolRun:
    """What came of a conversation with tools.

    Attributes:
        answer: The last one, which calls no tool.
        messages: The whole conversation, ready to be gone on with.
        rounds: How many requests it took.
        usage: Tokens of all of them.
    """

    answer: ChatCompletion
    messages: list[Message]
    rounds: int
    usage: Usage

    @property
    def text(self) -> str:
        """What the model says in the end."""
        return self.answer.text


class Conversation:
    """One conversation while it runs: its messages, its rounds, its time."""

    def __init__(self, box: Toolset, prompt: Prompt, options: ChatOptions) -> None:
        fields = {name: value for name, value in options.items() if name not in CHAT_CALL_OPTIONS}
        if "tools" in fields:
            raise ConfigError("tools: those of the toolbox are sent; add others to it")
        self._box = box
        self._call_options: Any = {
            name: value for name, value in options.items() if name in CHAT_CALL_OPTIONS
        }
        self._request = chat_request(prompt, {**fields, "tools": box.tools or None})
        if (self._request.n or 1) > 1:
            raise ConfigError("n: expected 1, since one conversation is gone on with")
        self.messages: list[Message] = list(self._request.messages)
        self.rounds: int = 0
        self.usage: Usage | None = None
        self._calls: list[ToolCall] = []  # of the last answer
        self._started: float | None = None

    def next_request(self) -> tuple[ChatRequest, ChatOptions]:
        """What to ask next.

        Raises:
            ToolLoopError: There were as many rounds as there may be.
        """
        if self.rounds == self._box.max_rounds:
            raise ToolLoopError(
                f"no answer within {self.rounds} rounds of calling tools (max_rounds)",
                messages=self.messages,
            )
        changes: dict[str, Any] = {"messages": list(self.messages)}
        if self.rounds and self._request.tool_choice not in {None, "none", "auto"}:
            changes["tool_choice"] = None  # else there would never be an answer
        self.rounds += 1
        options: Any = dict(self._call_options)
        if self.rounds > 1 and "request_id" in options:
            options["request_id"] = f"{options['request_id']}-{self.rounds}"
        return self._request.model_copy(update=changes), options

    def note(self, answer: ChatCompletion) -> None:
        """Add an answer, once; a call that came without an id gets one."""
        self.usage = answer.usage if self.usage is None else self.usage.plus(answer.usage)
        message, self._calls = answer.message, answer.tool_calls
        if not all(call.id for call in self._calls):
            self._calls = [
                call if call.id else call.model_copy(update={"id": f"call_{self.rounds}_{n}"})
                for n, call in enumerate(self._calls)
            ]
            message = message.model_copy(update={"tool_calls": self._calls})
        if message.content or message.tool_calls:
            self.messages.append(Message.model_validate(message))

    async def go_on(self) -> bool:
        """Call what the last answer wants called; say whether there is something to ask."""
        self.messages += await self._box.answer(self._calls, round=self.rounds)
        return bool(self._calls)

    def run(self, answer: ChatCompletion) -> ToolRun:
        """What came of it, with the answer that calls no tool."""
        return ToolRun(answer, self.messages, self.rounds, self.usage or answer.usage)

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Within it, nothing takes longer than the deadline."""
        now = monotonic()
        self._started = now if self._started is None else self._started
        deadline = self._box.deadline
        left = None if deadline is None else self._started + deadline - now
        timer = asyncio.timeout(left)
        try:
            async with timer:
                yield
        except TimeoutError:
            if not timer.expired():
                raise
        else:
            return
        raise ToolLoopError(f"no answer within {deadline:g} s (deadline)", messages=self.messages)


class ToolStream:
    """A conversation with tools as it comes, from `Toolbox.stream`: the chunks of all answers.

    The functions are called between two steps of the iteration. A step that is cancelled while they
    run calls them again. Raises what `Toolbox.run` does.
    """

    def __init__(self, client: AsyncClient, conversation: Conversation) -> None:
        self._client = client
        self._conversation = conversation
        self._stream: ChatStream | None = None
        self._answer: ChatCompletion | None = None  # of the stream, while its calls are made
        self._run: ToolRun | None = None

    @property
    def usage(self) -> Usage | None:
        """Tokens so far, of all rounds. Of the one under way: see `ChatStream.usage`."""
        told = self._conversation.usage
        is_noted = self._answer is not None
        left = None if is_noted or self._stream is None else self._stream.usage
        return told if left is None else left if told is None else told.plus(left)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatChunk:
        conversation = self._conversation
        async with conversation.in_time():
            while self._run is None:
                if self._stream is None:
                    request, options = conversation.next_request()
                    self._stream = self._client.stream(request, **options)
                async for chunk in self._stream:
                    return chunk
                if self._answer is None:
                    self._answer = await self._stream.final()
                    conversation.note(self._answer)
                if await conversation.go_on():
                    self._stream = self._answer = None
                else:
                    self._run = conversation.run(self._answer)
        raise StopAsyncIteration

    async def final(self) -> ToolRun:
        """Read the rest and return what came of it."""
        async for _ in self:
            pass
        assert self._run is not None
        return self._run

    async def aclose(self) -> None:
        """Leave it: the connection is closed at once. Does nothing after the end."""
        if self._stream is not None:
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
