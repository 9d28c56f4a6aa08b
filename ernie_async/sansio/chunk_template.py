"""Chunks that differ in one text only, read by what they have in common.

Nearly all events of a stream are the same bytes around another piece of text. Once one of them was
read as JSON, those like it need no parser: the bytes around the text are compared, and what they
mean is known. It is known from the parser, which has read the event with a text of our own in its
place, and found that text where the answer's belongs.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel

from ernie_async.types.chunk import ChatChunk, ChunkChoice, Delta
from ernie_async.types.wire import read_json

__all__ = ["ChunkTemplate", "PlainChunks", "is_plain"]

# Where the text of an event is. One without any is most likely the last one, and worth no template.
TEXT = re.compile(rb'"content": ?"((?:[^"\\]|\\.)+)"')

# What a text in JSON does not hold as it is.
SPECIAL = b'"\\' + bytes(range(0x20))

# Up to so many bytes, three short searches cost less than the one that finds all that is special.
SHORT = 256

Chunks = TypeVar("Chunks", bound=list[ChatChunk])

_new = object.__new__
_fields = BaseModel.__dict__
_set_dict = _fields["__dict__"].__set__
_set_names = _fields["__pydantic_fields_set__"].__set__
_set_extra = _fields["__pydantic_extra__"].__set__
_set_private = _fields["__pydantic_private__"].__set__


# The sets of field names that plain chunks have, each kept once for all streams. All of them are
# names of ours, so there are not many.
_known_names: dict[frozenset[str], set[str]] = {}


def is_plain(chunk: ChatChunk) -> bool:
    """Whether a chunk holds some text of the first answer, and nothing else that is news."""
    choices = chunk.choices
    if len(choices) != 1 or chunk.usage is not None or chunk.search_results is not None:
        return False
    choice = choices[0]
    delta = choice.delta
    return bool(
        delta.content
        and choice.finish_reason is None
        and not choice.index
        and not choice.flag
        and choice.ban_round is None
        and not delta.reasoning_content
        and not delta.reasoning
        and not delta.tool_calls
        and choice.logprobs is None
        and not chunk.__pydantic_extra__
        and not choice.__pydantic_extra__
        and not delta.__pydantic_extra__
    )


class PlainChunks(list[ChatChunk]):
    """Plain chunks that came at once, and what they say, which is known without asking them.

    Made empty, with the texts that its chunks will have, and filled by its template alone: what
    adds to it later makes a list of its own.

    Attributes:
        texts: The text of each.
    """

    __slots__ = ("texts",)

    def __init__(self, texts: Sequence[str] = ()) -> None:
        super().__init__()
        self.texts: Sequence[str] = texts


def _shared_names(part: BaseModel) -> set[str]:
    names = part.__pydantic_fields_set__
    return _known_names.setdefault(frozenset(names), names)


def _read_text(written: bytes) -> str:
    """What is written with escapes between two quotation marks.

    Raises:
        ValueError: It is not one text.
    """
    text: str = read_json(b'"%b"' % written)
    return text


class ChunkTemplate:
    """Plain events that are alike but for their text. Serves one stream.

    The chunks it makes share one set of field names, by which they are known for plain ones.
    """

    __slots__ = ("_after", "_before", "_choice", "_chunk", "_delta", "_first", "_last")

    def __init__(self, before: bytes, after: bytes, chunk: ChatChunk) -> None:
        choice = chunk.choices[0]
        self._before = b"data: " + before
        self._after = after + b"\n\n"
        self._first, self._last = len(self._before), -len(self._after)  # where a text is
        # Without what each chunk has of its own; the probe may be long.
        self._chunk = {**chunk.__dict__, "choices": None}, _shared_names(chunk)
        self._choice = {**choice.__dict__, "delta": None}, _shared_names(choice)
        self._delta = {**choice.delta.__dict__, "content": ""}, _shared_names(choice.delta)

    @classmethod
    def of(cls, data: bytes) -> "ChunkTemplate | None":
        """The template of an event; `None` if it is not plain, or its text cannot be told apart."""
        found = TEXT.search(data)
        if found is None or b"\n" in data:
            return None
        before, after = data[: found.start(1)], data[found.end(1) :]
        # As long as the event, so that no other text of it can be the same, however it is written.
        probe = b"x" * len(data)
        try:
            chunk = ChatChunk.__pydantic_validator__.validate_json(before + probe + after)
        except ValueError:
            return None
        if not is_plain(chunk) or chunk.choices[0].delta.content != probe.decode():
            return None
        return cls(before, after, chunk)

    def fits(self, events: bytes) -> bool:
        """Whether the first of whole events is like this but for a text."""
        end = events.find(b"\n\n") + 2
        return events.startswith(self._before) and events.endswith(self._after, 0, end)

    def read_one(self, event: bytes) -> list[ChatChunk] | None:
        """Read one whole event as it came; `None` if these bytes are not one that is like this."""
        if not (event.startswith(self._before) and event.endswith(self._after)):
            return None
        first, last = self._first, self._last
        # Where what stands before and after the text overlaps, it is too short. What is long is for
        # `read`: most likely several events.
        if not 0 <= len(event) - first + last <= SHORT:
            return None
        raw = event[first:last]
        try:
            if b"\\" in raw:
                return self._make([_read_text(raw)], [])
            text = raw.decode()
        except ValueError:
            return None
        # A wide space is not printable either, and is left to `read`.
        return None if '"' in text or not text.isprintable() else self._make([text], [])

    def read(self, events: bytes) -> tuple[PlainChunks, int]:
        """Read whole events as they came, `data: ` and the empty line with each.

        Returns:
            The chunks of all events up to the last one that is like this, and the bytes that they
            took; none if there is another one among them.
        """
        if not events.startswith(self._before):
            return PlainChunks(), 0
        if not events.endswith(self._after):
            events = events[: events.rfind(self._after) + len(self._after)]
        size, first, last = len(events), self._first, self._last
        texts = events[first:last]
        cut = [texts]
        if b"\n" in texts:
            # Cut at the empty lines, which are found faster than all that stands between two texts.
            cut = [event[first : last + 2] for event in events[:-2].split(b"\n\n")]
            texts = b"\n".join(cut)
            between = self._after + self._before
            if self._before + between.join(cut) + self._after != events:
                return PlainChunks(), 0
        elif len(texts) != size - first + last:
            return PlainChunks(), 0  # what stands before and after the text overlaps
        is_literal = len(texts.translate(None, SPECIAL)) == len(texts) - len(cut) + 1
        try:
            said = texts.decode().split("\n") if is_literal else [*map(_read_text, cut)]
        except ValueError:
            return PlainChunks(), 0
        return self._make(said, PlainChunks(said)), size

    def _make(self, texts: Sequence[str], chunks: Chunks) -> Chunks:
        # What pydantic's `model_construct` does, without asking what is known here.
        new, set_dict, set_names = _new, _set_dict, _set_names
        set_extra, set_private = _set_extra, _set_private
        delta_values, delta_names = self._delta
        choice_values, choice_names = self._choice
        chunk_values, chunk_names = self._chunk
        for text in texts:
            # A copy that is changed is made faster than a dict with all of another one in it.
            delta, values = new(Delta), delta_values.copy()
            values["content"] = text
            set_dict(delta, values)
            set_names(delta, delta_names)
            set_extra(delta, {})
            set_private(delta, None)
            choice, values = new(ChunkChoice), choice_values.copy()
            values["delta"] = delta
            set_dict(choice, values)
            set_names(choice, choice_names)
            set_extra(choice, {})
            set_private(choice, None)
            chunk, values = new(ChatChunk), chunk_values.copy()
            values["choices"] = [choice]
            set_dict(chunk, values)
            set_names(chunk, chunk_names)
            set_extra(chunk, {})
            set_private(chunk, None)
            chunks.append(chunk)
        return chunks
