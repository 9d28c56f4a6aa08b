"""A toolbox: which functions there are, and who is told when one of them is called.

Knows the client as everybody else does: by its verbs.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeVar, Unpack, overload

from pydantic_core import to_json

from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError
from ernie_async.sansio.chat_request import Prompt
from ernie_async.settings import ChatOptions
from ernie_async.toolbox.conversation import Conversation, ToolRun, ToolStream
from ernie_async.toolbox.function import ToolError, ToolFunction
from ernie_async.types.functions import shape_of_function
from ernie_async.types.messages import Message, tool_result
from ernie_async.types.tools import FunctionSpec, Tool, ToolCall

__all__ = ["ToolEnded", "ToolHook", "ToolStarted", "Toolbox"]

F = TypeVar("F", bound=Callable[..., Any])

logger: logging.Logger = logging.getLogger("ernie_async")

TOOL_SECONDS = 60.0
MOST_ROUNDS = 8
CONCURRENCY = 8


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
        self._functions: dict[str, ToolFunction] = {}
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
        self._functions[shape.name] = ToolFunction(function, shape, timeout or self._timeout)

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
        conversation = Conversation(self, messages, options)
        async with conversation.in_time():
            while True:
                request, call_options = conversation.next_request()
                answer = await client.chat(request, **call_options)
                conversation.note(answer)
                if not await conversation.go_on():
                    return conversation.run(answer)

    def stream(
        self, client: AsyncClient, messages: Prompt, **options: Unpack[ChatOptions]
    ) -> ToolStream:
        """The same as `run`, with every chunk as it comes. Not awaited.

        Args:
            client: Whom to ask.
            messages: Text, a conversation, or a `ChatRequest`.
            **options: As for `run`.
        """
        return ToolStream(client, Conversation(self, messages, options))

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
        except ToolError as failure:
            error = str(failure)
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
        function = self._functions.get(name)
        if function is None:
            raise ToolError(f"there is no tool {name!r}, only {', '.join(self._functions)}")
        return await function.result(call)

    def _tell(self, record: ToolStarted | ToolEnded) -> None:
        for hook in self._hooks:
            try:
                hook(record)
            except Exception:  # whatever it is, the caller's answer is worth more
                logger.exception("a hook failed on %s", type(record).__name__)


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not seconds > 0:
        raise ConfigError(f"{name}: expected seconds above 0, or None, got {seconds!r}")
