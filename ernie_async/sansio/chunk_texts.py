"""The texts in the chunks of a stream, each led through a function and put back in its place.

A text ends with the finish reason of its answer, and what the function still holds then is put into
that same chunk. Thinking text ends when the answer begins, unless it is wanted whole. A chunk of
which nothing is left is left out. Knows nothing of what the function does.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ernie_async.sansio.filter_values import Channel
from ernie_async.sansio.tool_calls import call_index
from ernie_async.types.chunk import ChatChunk, ChunkChoice, Delta
from ernie_async.types.tools import FunctionCallDelta, ToolCallDelta
from ernie_async.types.wire import AnswerModel

__all__ = ["ChunkTexts", "TextKey"]

M = TypeVar("M", bound=AnswerModel)


class TextKey(NamedTuple):
    """Which text: each of them is filtered by itself.

    Attributes:
        choice: The answer's index.
        channel: What of it.
        call: Which call of a tool; 0 for text.
    """

    choice: int
    channel: Channel
    call: int = 0


class ChunkTexts:
    """Rewrites the texts of one stream. Serves one stream.

    Args:
        channels: Which texts; the others stay as they are.
        change: Takes a text's key, more of it, and whether that is its end; returns what to put
            there.
        is_thinking_kept: Whether thinking text goes on until the answer is finished.
    """

    __slots__ = (
        "_calls",
        "_change",
        "_channels",
        "_has_content",
        "_is_thinking_kept",
        "_last",
        "_open",
        "_thinking",
    )

    def __init__(
        self,
        channels: frozenset[Channel],
        change: Callable[[TextKey, str, bool], str],
        *,
        is_thinking_kept: bool,
    ) -> None:
        self._channels = channels
        self._change = change
        self._has_content = "content" in channels
        self._is_thinking_kept = is_thinking_kept
        self._thinking: set[int] = set()  # answers whose thinking text is not over
        self._open: dict[TextKey, None] = {}  # in the order in which they began
        self._calls: dict[int, tuple[int, str | None]] = {}  # of each answer the last one, its id
        self._last: ChatChunk | None = None

    def feed(self, chunk: ChatChunk) -> ChatChunk | None:
        """Take the next chunk; return it, or another in its place, or `None`."""
        self._last = chunk
        choices = chunk.choices
        # The usual chunk: some text of an answer, nothing else.
        if len(choices) == 1 and self._has_content:
            choice = choices[0]
            delta = choice.delta
            if (
                delta.content
                and choice.finish_reason is None
                and choice.logprobs is None
                and not delta.reasoning_content
                and not delta.reasoning
                and not delta.tool_calls
                and choice.index not in self._thinking
            ):
                key = TextKey(choice.index, "content")
                self._open[key] = None
                shown = self._change(key, delta.content, False)
                if shown == delta.content:
                    return chunk
                delta = _copy(delta, content=shown)
                chunk = _copy(chunk, choices=[_copy(choice, delta=delta)])
                return chunk if shown or _says_something(chunk) else None
        new = [self._rewrite(choice) for choice in choices]
        if all(after is before for after, before in zip(new, choices, strict=True)):
            return chunk
        chunk = _copy(chunk, choices=new)
        return chunk if _says_something(chunk) else None

    def close(self) -> ChatChunk | None:
        """The stream is over: return what was held of texts that had no finish reason."""
        indices = dict.fromkeys(key.choice for key in self._open)
        if self._last is None or not indices:
            return None
        # A choice that says nothing but that it is over.
        ends = [self._rewrite(ChunkChoice(index=index), is_over=True) for index in indices]
        news = {"choices": ends, "usage": None, "search_results": None}
        chunk = _copy(self._last, **news)
        return chunk if _says_something(chunk) else None

    def _rewrite(self, choice: ChunkChoice, *, is_over: bool = False) -> ChunkChoice:
        delta, index = choice.delta, choice.index
        # What the service itself stopped is not released.
        is_over = is_over or choice.finish_reason not in {None, "", "content_filter"}
        news: dict[str, Any] = {}
        name = (
            "reasoning" if delta.reasoning and not delta.reasoning_content else "reasoning_content"
        )
        thought: str = getattr(delta, name) or ""
        ends_thought = is_over or (bool(delta.content) and not self._is_thinking_kept)
        shown = self._put(TextKey(index, "reasoning"), thought, is_over=ends_thought)
        if ends_thought or self._is_thinking_kept:
            self._thinking.discard(index)
        elif thought:
            self._thinking.add(index)
        if shown != thought:
            news[name] = shown
        content = delta.content or ""
        shown = self._put(TextKey(index, "content"), content, is_over=is_over)
        if shown != content:
            news["content"] = shown
        if "tool_arguments" in self._channels and (delta.tool_calls or is_over):
            news |= self._rewrite_calls(index, delta, is_over=is_over)
        extra: dict[str, Any] = {}
        if choice.logprobs is not None and not self._channels.isdisjoint(SPOKEN):
            extra["logprobs"] = None  # they tell every token as it was
        if news:
            extra["delta"] = _copy(delta, **news)
        return _copy(choice, **extra) if extra else choice

    def _put(self, key: TextKey, text: str, *, is_over: bool) -> str:
        if key.channel not in self._channels or not (text or (is_over and key in self._open)):
            return text
        self._open[key] = None
        shown = self._change(key, text, is_over)
        if is_over:
            del self._open[key]
        return shown

    def _rewrite_calls(self, index: int, delta: Delta, *, is_over: bool) -> dict[str, Any]:
        before = delta.tool_calls or []
        fragments = [self._rewrite_call(index, fragment) for fragment in before]
        if is_over:
            for key in [key for key in self._open if key[:2] == (index, "tool_arguments")]:
                rest = self._put(key, "", is_over=True)
                function = FunctionCallDelta(arguments=rest)
                fragments += [ToolCallDelta(index=key.call, function=function)] if rest else []
        kept = [fragment for fragment in fragments if fragment is not None]
        is_same = len(kept) == len(before) and all(map(lambda a, b: a is b, kept, before))
        return {} if is_same else {"tool_calls": kept or None}

    def _rewrite_call(self, index: int, fragment: ToolCallDelta) -> ToolCallDelta | None:
        last, last_id = self._calls.get(index, (None, None))
        call = call_index(fragment, last, last_id)
        self._calls[index] = (call, fragment.id or (last_id if call == last else None))
        function = fragment.function
        if function is None or not function.arguments:
            return fragment
        shown = self._put(TextKey(index, "tool_arguments", call), function.arguments, is_over=False)
        if shown == function.arguments:
            return fragment
        if not (shown or fragment.id or function.name):
            return None
        function = _copy(function, arguments=shown)
        return _copy(fragment, function=function)


def _copy(model: M, **news: Any) -> M:
    """What `model_copy` makes of a frozen answer, in a third of the time, once for each token."""
    new = model.__class__.__new__(model.__class__)
    put = object.__setattr__
    put(new, "__dict__", {**model.__dict__, **news})
    put(new, "__pydantic_extra__", model.__pydantic_extra__)
    put(new, "__pydantic_fields_set__", model.__pydantic_fields_set__ | news.keys())
    put(new, "__pydantic_private__", None)
    return new


# What logprobs are about.
SPOKEN = frozenset({"content", "reasoning"})


def _says_something(chunk: ChatChunk) -> bool:
    return bool(
        chunk.usage
        or chunk.search_results is not None
        or any(
            choice.finish_reason
            or choice.flag is not None
            or choice.delta.content
            or choice.delta.reasoning_content
            or choice.delta.reasoning
            or choice.delta.tool_calls
            for choice in chunk.choices
        )
    )
