"""Chunks to one answer: what a stream has said so far.

Runs once for every token, so it keeps text in short lists and looks closer only at what is not
plain text. Knows nothing of where chunks come from.
"""

from typing import Any

from ernie_async.sansio.chunk_template import PlainChunks, is_plain
from ernie_async.sansio.tool_calls import call_index
from ernie_async.types.chunk import ChatChunk, ChunkChoice
from ernie_async.types.completion import AnswerHead, ChatCompletion, SearchResult
from ernie_async.types.tools import ToolCallDelta
from ernie_async.types.usage import Usage

__all__ = ["Accumulator"]

# Pieces of text are joined when so many have come: a list of a hundred thousand two-character
# strings takes 7 MB, the joined text 0.4 MB.
JOIN_AFTER = 256


class _Text:
    """Text that grows by small pieces."""

    __slots__ = ("joined", "pieces")

    def __init__(self) -> None:
        self.joined: list[str] = []
        self.pieces: list[str] = []

    def add(self, piece: str) -> None:
        self.pieces.append(piece)
        if len(self.pieces) >= JOIN_AFTER:
            self.join()

    def join(self) -> None:
        self.joined.append("".join(self.pieces))
        self.pieces.clear()

    def get(self) -> str:
        return "".join(self.joined) + "".join(self.pieces)


class _ToolCall:
    """One tool call, put together from its fragments."""

    __slots__ = ("arguments", "id", "name", "type")

    def __init__(self) -> None:
        self.id = ""
        self.type = "function"
        self.name = ""
        self.arguments = _Text()

    def add(self, fragment: ToolCallDelta) -> None:
        self.id = fragment.id or self.id
        self.type = fragment.type or self.type
        if fragment.function is not None:
            # Some servers repeat the name in every fragment, none sends it in parts.
            self.name = fragment.function.name or self.name
            if fragment.function.arguments:
                self.arguments.add(fragment.function.arguments)

    def get(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments.get()}
        return {"id": self.id, "type": self.type, "function": function}


class _Choice:
    """One of the answers so far."""

    __slots__ = ("content", "fields", "message_fields", "reasoning", "role", "tool_calls")

    def __init__(self) -> None:
        self.role = "assistant"
        self.content = _Text()
        self.reasoning = _Text()
        self.tool_calls: dict[int, _ToolCall] = {}
        self.fields: dict[str, Any] = {}
        self.message_fields: dict[str, Any] = {}

    def add(self, choice: ChunkChoice) -> None:
        delta = choice.delta
        if content := delta.content:
            self.content.add(content)
        if thought := delta.reasoning_content or delta.reasoning:
            self.reasoning.add(thought)
        self.role = delta.role or self.role
        if delta.tool_calls:
            for fragment in delta.tool_calls:
                self.tool_calls.setdefault(self._index_of(fragment), _ToolCall()).add(fragment)
        if finish_reason := choice.finish_reason:
            self.fields["finish_reason"] = finish_reason
        # A verdict stands: once text is flagged, a later and milder one does not clear it.
        if (flag := choice.flag) is not None:
            self.fields["flag"] = max(flag, self.fields.get("flag") or 0)
        if (ban_round := choice.ban_round) is not None:
            self.fields["ban_round"] = ban_round
        if logprobs := choice.logprobs:
            for name, entries in logprobs.items():
                if isinstance(entries, list):  # one entry for each token
                    held = self.fields.setdefault("logprobs", {}).setdefault(name, [])
                    held.extend(entries)
        if extra := choice.__pydantic_extra__:
            self.fields.update(extra)
        if extra := delta.__pydantic_extra__:
            self.message_fields.update(extra)

    def _index_of(self, fragment: ToolCallDelta) -> int:
        """Which call a fragment belongs to, also where the server does not number them."""
        last = max(self.tool_calls, default=None)
        return call_index(fragment, last, None if last is None else self.tool_calls[last].id)

    def get(self, index: int) -> dict[str, Any]:
        message = {**self.message_fields, "role": self.role, "content": self.content.get()}
        if reasoning := self.reasoning.get():
            message["reasoning_content"] = reasoning
        if self.tool_calls:
            message["tool_calls"] = [self.tool_calls[at].get() for at in sorted(self.tool_calls)]
        # Ours last: a server may send fields of these names besides the delta.
        return {**self.fields, "index": index, "message": message}


class Accumulator:
    """The answer so far. Serves one stream.

    Args:
        n: How many answers were asked for.

    Attributes:
        chunks: How many came.
        finished: Whether every answer has its finish reason, of those asked for and those that
            came.
    """

    __slots__ = (
        "_choices",
        "_earlier_usage",
        "_fields",
        "_first",
        "_handed_over",
        "_has_begun",
        "_n",
        "_n_finished",
        "_pieces",
        "_plain_names",
        "_search_results",
        "_usage",
        "chunks",
        "finished",
    )

    def __init__(self, n: int = 1) -> None:
        self._n = n
        self._n_finished = 0
        self._has_begun = False
        self._first = _Choice()
        self._pieces = self._first.content.pieces
        self._plain_names: set[str] | None = None
        self._choices: dict[int, _Choice] = {}
        self._fields: dict[str, Any] = {}
        self._search_results: list[SearchResult] | dict[str, Any] | None = None
        self._usage: Usage | None = None
        self._earlier_usage: Usage | None = None
        self._handed_over: Usage | None = None  # of this, what other models used
        self.chunks: int = 0
        self.finished: bool = False

    def feed(self, *chunks: ChatChunk) -> None:
        """Take the next chunks."""
        self.chunks += len(chunks)
        pieces = self._pieces
        for chunk in chunks:
            # Templates make nothing but plain chunks, and give this set to no other.
            if chunk.__pydantic_fields_set__ is self._plain_names:
                pieces.append(chunk.choices[0].delta.content or "")
            # The very first one, which brings the id and the model, is never taken for plain text.
            elif self._has_begun and is_plain(chunk):
                self._plain_names = chunk.__pydantic_fields_set__
                pieces.append(chunk.choices[0].delta.content or "")
            else:
                self._feed_slowly(chunk)
        if len(pieces) >= JOIN_AFTER:
            self._first.content.join()

    def feed_packet(self, chunks: list[ChatChunk]) -> None:
        """Take chunks that came at once.

        As `feed`, but what `PlainChunks` say is taken from their texts, without a look at each.
        """
        if self._has_begun and type(chunks) is PlainChunks:
            self.chunks += len(chunks)
            pieces = self._pieces
            pieces += chunks.texts
            if len(pieces) >= JOIN_AFTER:
                self._first.content.join()
        else:
            self.feed(*chunks)

    def _feed_slowly(self, chunk: ChatChunk) -> None:
        for choice in chunk.choices:
            index = choice.index
            held = self._choices.get(index)
            self._has_begun = self._has_begun or not index
            if held is None:
                held = self._choices[index] = _Choice() if index else self._first
            was_finished = "finish_reason" in held.fields
            held.add(choice)
            self._n_finished += not was_finished and "finish_reason" in held.fields
        self.finished = self._n_finished >= max(self._n, len(self._choices))
        self._usage = chunk.usage or self._usage
        found = chunk.search_results
        if isinstance(found, list) and isinstance(self._search_results, list):
            # A new list: the old one belongs to a chunk that the caller has.
            known = self._search_results
            self._search_results = [*known, *(new for new in found if new not in known)]
        elif found is not None:
            self._search_results = found
        for name, value in (("id", chunk.id), ("created", chunk.created), ("model", chunk.model)):
            if value is not None:
                self._fields[name] = value
        if extra := chunk.__pydantic_extra__:
            self._fields.update(extra)

    def begin_part(self, estimate: Usage) -> None:
        """What comes next answers a request of its own: its usage adds to what was used so far.

        Args:
            estimate: What the request before used, if its usage never came.
        """
        self._earlier_usage = self.own_usage_or(estimate)
        self._usage = None

    def hand_over(self, estimate: Usage) -> Usage:
        """What comes next is another model's; returns what this one used.

        Args:
            estimate: What its last request used, if its usage never came.
        """
        used = self.own_usage_or(estimate)
        self._handed_over = self._handed_over.plus(used) if self._handed_over else used
        self._usage = self._earlier_usage = None
        return used

    def own_usage_or(self, estimate: Usage) -> Usage:
        """What all parts of the model at hand used; `estimate` as for `usage_or`."""
        used = self._usage or estimate
        return self._earlier_usage.plus(used) if self._earlier_usage else used

    def usage_or(self, estimate: Usage) -> Usage:
        """What all parts used; `estimate` stands in for the last one, if its usage never came."""
        used = self.own_usage_or(estimate)
        return self._handed_over.plus(used) if self._handed_over else used

    @property
    def usage(self) -> Usage | None:
        """The newest usage; servers that send it with every chunk send running totals."""
        return None if self._usage is None else self.usage_or(self._usage)

    @property
    def has_tool_calls(self) -> bool:
        """Whether the model began to call a tool."""
        return any(choice.tool_calls for choice in self._choices.values())

    @property
    def id(self) -> str | None:
        """The service's id of the answer; `None` if none came yet."""
        answer_id: str | None = self._fields.get("id")
        return answer_id

    @property
    def head(self) -> AnswerHead:
        """What may be known of the answer without reading it."""
        chosen = [self._choices[at].fields.get("finish_reason") for at in sorted(self._choices)]
        reasons = tuple(reason for reason in chosen if reason)
        return AnswerHead(self.id, self._fields.get("model"), reasons)

    @property
    def text(self) -> str:
        """The text of the first answer so far."""
        return self._first.content.get()

    @property
    def reasoning(self) -> str:
        """The thinking text of the first answer so far."""
        return self._first.reasoning.get()

    def completion(self, usage: Usage | None = None) -> ChatCompletion:
        """The answer so far, as if it had come in one piece.

        Args:
            usage: What is known better than by what came.
        """
        usage = usage or self.usage
        return ChatCompletion.model_validate(
            {
                **self._fields,
                "object": "chat.completion",
                "choices": [self._choices[at].get(at) for at in sorted(self._choices)],
                **({} if usage is None else {"usage": usage}),
                "search_results": self._search_results,
            }
        )
