"""One function that a model may call: its arguments validated, its result written as text."""

import asyncio
import inspect
import logging
import textwrap
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

import anyio.to_thread
from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from ernie_async.sansio.output import explain_invalid
from ernie_async.types.functions import FunctionShape
from ernie_async.types.tools import ToolCall

__all__ = ["ToolError", "ToolFunction"]

logger: logging.Logger = logging.getLogger("ernie_async")

# Of an error, as the model is told.
MOST_CHARACTERS = 500


class ToolError(Exception):
    """What the model is told in place of a result."""

    def __init__(self, message: str) -> None:
        # Halves of characters could not be sent.
        super().__init__(message.encode(errors="backslashreplace").decode())


class ToolFunction(NamedTuple):
    """A function of a toolbox.

    Attributes:
        function: Itself.
        shape: How it is described, and what it takes.
        timeout: Seconds for one call; `None` for no limit.
    """

    function: Callable[..., Any]
    shape: FunctionShape
    timeout: float | None

    async def result(self, call: ToolCall) -> str:
        """Call it as the model asks; return what the model is told.

        Raises:
            ToolError: There is no result.
        """
        timer = asyncio.timeout(self.timeout)
        try:
            arguments = _arguments(self.shape, call)
            async with timer:
                value = await _called(self.function, arguments)
        except ToolError:
            raise
        except TimeoutError as error:
            if not timer.expired():
                raise ToolError(_brief(error)) from None
            raise ToolError(f"no result within {self.timeout:g} s") from None
        except Exception as error:
            logger.warning("tool %s failed", self.shape.name, exc_info=True)
            raise ToolError(_brief(error)) from None
        return _as_text(value)


def _arguments(shape: FunctionShape, call: ToolCall) -> dict[str, Any]:
    try:
        given = shape.arguments.model_validate_json(call.function.arguments or "{}")
    except ValidationError as error:
        raise ToolError(f"wrong arguments: {explain_invalid(error)}") from None
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
        raise ToolError(f"the result cannot be written as JSON: {_text_of(error)}") from None


def _brief(error: BaseException) -> str:
    return textwrap.shorten(f"{type(error).__name__}: {_text_of(error)}", MOST_CHARACTERS)


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - its own code; a traceback says the same
        return "<exception str() failed>"
