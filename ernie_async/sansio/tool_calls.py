"""Tool calls put together from their fragments, as events."""

from dataclasses import dataclass
from typing import Literal

from ernie_async.types.chunk import ChatChunk
from ernie_async.types.tools import FunctionCall, ToolCall, ToolCallDelta

__all__ = ["ToolCallAssembler", "ToolCallEvent", "call_index"]


@dataclass(frozen=True, slots=True)
class ToolCallEvent:
    """Something happened to one of the calls that the model is writing.

    Attributes:
        kind: `"delta"`: there is more of it. `"done"`: it is complete.
        index: Which one, from 0.
        name: The function.
        delta: What was added to the arguments, JSON in pieces; empty when it is done.
        call: The whole call, when it is done.
    """

    kind: Literal["delta", "done"]
    index: int
    name: str
    delta: str = ""
    call: ToolCall | None = None


def call_index(fragment: ToolCallDelta, last: int | None, last_id: str | None) -> int:
    """Which call a fragment belongs to, also where the server does not number them.

    Args:
        fragment: What came.
        last: The highest index so far; `None` before the first fragment.
        last_id: The id of that call.
    """
    if fragment.index is not None:
        return fragment.index
    if last is None:
        return 0
    return last + 1 if fragment.id and last_id != fragment.id else last


class _Open:
    """A call that may go on."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = self.name = ""
        self.arguments: list[str] = []


class ToolCallAssembler:
    """Turns the chunks of one stream into events. Only the first answer is looked at.

    A call is done when the answer is: before that, fragments of several may come in turns.
    """

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._last: int | None = None
        self._last_id: str | None = None

    def feed(self, chunk: ChatChunk) -> list[ToolCallEvent]:
        """Take the next chunk."""
        events: list[ToolCallEvent] = []
        for choice in chunk.choices:
            if choice.index:
                continue
            for fragment in choice.delta.tool_calls or ():
                events.append(self._take(fragment))
            if choice.finish_reason:
                events += self._finish()
        return events

    def _take(self, fragment: ToolCallDelta) -> ToolCallEvent:
        index = call_index(fragment, self._last, self._last_id)
        held = self._open.setdefault(index, _Open())
        held.id = fragment.id or held.id
        function = fragment.function
        held.name = (function and function.name) or held.name
        delta = (function and function.arguments) or ""
        held.arguments.append(delta)
        self._last, self._last_id = index, held.id
        return ToolCallEvent("delta", index, held.name, delta)

    def _finish(self) -> list[ToolCallEvent]:
        events = []
        for index, held in sorted(self._open.items()):
            function = FunctionCall(name=held.name, arguments="".join(held.arguments))
            call = ToolCall(id=held.id, function=function)
            events.append(ToolCallEvent("done", index, held.name, call=call))
        self._open.clear()
        return events
