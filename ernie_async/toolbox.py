"""Functions that a model may call, and the loop that calls them until there is an answer.

Knows the client as everybody else does: by its verbs.
"""

import asyncio
import inspect
import logging
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Self, TypeVar, Unpack, overload

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError, ToolLoopError
from ernie_async.net.stream import ChatStream
from ernie_async.sansio.chat_request import Prompt, chat_request
from ernie_async.sansio.output import explain_invalid
from ernie_async.settings import CHAT_CALL_OPTIONS, ChatOptions
from ernie_async.types.chunk import ChatChunk
from ernie_async.types.completion import ChatCompletion
from ernie_async.types.functions import FunctionShape, shape_of_function
from ernie_async.types.messages import Message, tool_result
from ernie_async.types.request import ChatRequest
from ernie_async.types.tools import FunctionSpec, Tool, ToolCall
from ernie_async.types.usage import Usage

__all__ = ["ToolEnded", "ToolRun", "ToolStarted", "ToolStream", "Toolbox"]

F = TypeVar("F", bound=Callable[..., Any])

logger: logging.Logger = logging.getLogger("ernie_async")

TOOL_SECONDS = 60.0
MOST_ROUNDS = 8
CONCURRENCY = 8

# Of an error, as the model is told.
MOST_CHARACTERS = 500


class ToolStarted(NamedTuple):
    """A function is about to be called.

    Attributes:
        call: What the model asks for.
        round: Which request asked for it, from 1.
    """

    call: ToolCall
    round: int


class ToolEnded(NamedTuple):
    """A function is done.

    Attributes:
        call: What the model asked for.
        round: Which request asked for it, from 1.
        seconds: How long it took.
        error: What went wrong, as the model is told; `None` if nothing did.
    """

    call: ToolCall
    round: int
    seconds: float
    error: str | None


ToolHook = Callable[[ToolStarted | ToolEnded], None]


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


class _Function(NamedTuple):
    """A function of a toolbox."""

    function: Callable[..., Any]
    shape: FunctionShape
    timeout: float | None


class _ToolError(Exception):
    """What the model is told in place of a result."""


class Toolbox:
    """Functions offered to a model. Serves any number of conversations at the same time.

    ```python
    box = Toolbox()

    @box.tool
    async def weather(city: str) -> str:
        '''The weather in a city.'''
        return "晴"

    run = await box.run(client, "北京天气怎么样？")
    ```

    A coroutine function is awaited; any other runs in a worker thread, which goes on until it
    returns even if nobody waits any more. An exception is no end: the model is told and decides.

    Args:
        functions: To begin with; see `add`.
        timeout: Seconds for one call of a function; `None` for no limit.
        max_rounds: Requests that may be made before there has to be an answer.
        deadline: Seconds for all of a conversation; `None` for no limit besides the others.
        concurrency: Calls of functions under way at a time, in one conversation.
        hooks: Told of every call of a function.

    Raises:
        ConfigError: A number makes no sense.
    """

    def __init__(
        self,
        functions: Iterable[Callable[..., Any]] = (),
        *,
        timeout: float | None = TOOL_SECONDS,
        max_rounds: int = MOST_ROUNDS,
        deadline: float | None = None,
        concurrency: int = CONCURRENCY,
        hooks: Iterable[ToolHook] = (),
    ) -> None:
        for name, number in (("max_rounds", max_rounds), ("concurrency", concurrency)):
            if not isinstance(number, int) or number < 1:
                raise ConfigError(f"{name}: expected a whole number, at least 1, got {number!r}")
        _check_seconds("timeout", timeout)
        _check_seconds("deadline", deadline)
        self.max_rounds = max_rounds
        self.deadline = deadline
        self._timeout = timeout
        self._concurrency = concurrency
        self._hooks = tuple(hooks)
        self._functions: dict[str, _Function] = {}
        for function in functions:
            self.add(function)

    def add(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Offer one more function.

        Args:
            function: Its arguments are validated before it is called; see `Tool.from_function`.
            name: Instead of its own.
            description: Instead of its docstring's.
            timeout: Instead of the toolbox's.

        Raises:
            ConfigError: There is one of this name, or the timeout makes no sense.
            TypeError: It cannot be described.
        """
        _check_seconds("timeout", timeout)
        shape = shape_of_function(function, name=name, description=description)
        if shape.name in self._functions:
            raise ConfigError(f"{shape.name}: there is a tool of this name; pass name=...")
        self._functions[shape.name] = _Function(function, shape, timeout or self._timeout)

    @overload
    def tool(self, function: F) -> F: ...
    @overload
    def tool(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float | None = None,
    ) -> Callable[[F], F]: ...
    def tool(self, function: Any = None, **options: Any) -> Any:
        """`add` as a decorator, with or without its options."""
        if function is None:
            return partial(self.tool, **options)
        self.add(function, **options)
        return function

    @property
    def tools(self) -> list[Tool]:
        """What the model is told of the functions."""
        return [
            Tool(
                function=FunctionSpec(
                    name=held.shape.name,
                    description=held.shape.description,
                    parameters=held.shape.schema,
                )
            )
            for held in self._functions.values()
        ]

    async def run(
        self, client: AsyncClient, messages: Prompt, **options: Unpack[ChatOptions]
    ) -> ToolRun:
        """Ask, call what the model wants called, ask again, until it answers.

        Args:
            client: Whom to ask.
            messages: Text, a conversation, or a `ChatRequest`.
            **options: See `ChatOptions`. A `tool_choice` that makes the model call a tool is for
                the first request only.

        Raises:
            ToolLoopError: Rounds or time were used up before there was an answer.
            ErnieError: As for `AsyncClient.chat`.
        """
        conversation = _Conversation(self, messages, options)
        async with conversation.in_time():
            while True:
                request, call_options = conversation.next_request()
                answer = await client.chat(request, **call_options)
                conversation.note(answer)
                if not await conversation.go_on():
                    return conversation.run(answer)

    def stream(
        self, client: AsyncClient, messages: Prompt, **options: Unpack[ChatOptions]
    ) -> "ToolStream":
        """The same as `run`, with every chunk as it comes. Not awaited.

        Args:
            client: Whom to ask.
            messages: Text, a conversation, or a `ChatRequest`.
            **options: As for `run`.
        """
        return ToolStream(client, _Conversation(self, messages, options))

    async def answer(self, calls: Iterable[ToolCall], *, round: int = 1) -> list[Message]:  # noqa: A002
        """Call the functions, several at a time; return the results as messages, in order.

        Args:
            calls: What the model asks for.
            round: For the hooks.

        Raises:
            ConfigError: A call has no id, so that no result can belong to it.
        """
        calls = list(calls)
        for n, call in enumerate(calls):
            if not call.id:
                raise ConfigError(
                    f"calls.{n}: expected an id, got ''; give it one, there and in the message "
                    "that asks for it"
                )
        room = asyncio.Semaphore(self._concurrency)

        async def one(call: ToolCall) -> Message:
            async with room:
                return tool_result(call.id, await self._call(call, round))

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(call)) for call in calls]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # callers look for an error, not for a group
        return [task.result() for task in tasks]

    async def _call(self, call: ToolCall, round: int) -> str:  # noqa: A002
        """What the model is told. Only a cancellation gets out."""
        self._tell(ToolStarted(call, round))
        started = monotonic()
        error: str | None = None
        try:
            return await self._result(call)
        except _ToolError as failure:
            error = _whole_characters(str(failure))
            return to_json({"error": error}).decode()
        except asyncio.CancelledError:
            error = "cancelled"
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # The function was cancelled from within, which is its own affair.
            return to_json({"error": error}).decode()
        finally:
            self._tell(ToolEnded(call, round, monotonic() - started, error))

    async def _result(self, call: ToolCall) -> str:
        name = call.function.name
        held = self._functions.get(name)
        if held is None:
            raise _ToolError(f"there is no tool {name!r}, only {', '.join(self._functions)}")
        timer = asyncio.timeout(held.timeout)
        try:
            arguments = _arguments(held.shape, call)
            async with timer:
                value = await _called(held.function, arguments)
        except _ToolError:
            raise
        except TimeoutError as error:
            if not timer.expired():
                raise _ToolError(_brief(error)) from None
            raise _ToolError(f"no result within {held.timeout:g} s") from None
        except Exception as error:
            logger.warning("tool %s failed", name, exc_info=True)
            raise _ToolError(_brief(error)) from None
        return _as_text(value)

    def _tell(self, record: ToolStarted | ToolEnded) -> None:
        for hook in self._hooks:
            try:
                hook(record)
            except Exception:  # whatever it is, the caller's answer is worth more
                logger.exception("a hook failed on %s", type(record).__name__)


class _Conversation:
    """One conversation while it runs: its messages, its rounds, its time."""

    def __init__(self, box: Toolbox, prompt: Prompt, options: ChatOptions) -> None:
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

    def __init__(self, client: AsyncClient, conversation: _Conversation) -> None:
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


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"{name}: expected seconds above 0, or None, got {seconds!r}")


def _arguments(shape: FunctionShape, call: ToolCall) -> dict[str, Any]:
    try:
        given = shape.arguments.model_validate_json(call.function.arguments or "{}")
    except ValidationError as error:
        raise _ToolError(f"wrong arguments: {explain_invalid(error)}") from None
    return {
        field.removeprefix("argument_"): getattr(given, field) for field in type(given).model_fields
    }


async def _called(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    own_call = getattr(type(function), "__call__", None)  # noqa: B004 - not whether there is one
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(own_call):
        return await function(**arguments)
    value = await anyio.to_thread.run_sync(partial(function, **arguments), abandon_on_cancel=True)
    return await value if isinstance(value, Awaitable) else value


def _as_text(value: Any) -> str:
    try:
        if isinstance(value, str) and value:
            value.encode()  # half a character could not be sent
            return value
        if isinstance(value, BaseModel):
            return value.model_dump_json()
        return to_json(value).decode()
    except Exception as error:  # noqa: BLE001 - whatever the code of the value raises
        raise _ToolError(f"the result cannot be written as JSON: {_text_of(error)}") from None


def _brief(error: BaseException) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {_text_of(error)}", MOST_CHARACTERS)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - its own code; a traceback says the same
        return "<exception str() failed>"


def _whole_characters(text: str) -> str:
    """The text with halves of characters written out, which could not be sent."""
    return text.encode(errors="backslashreplace").decode()
