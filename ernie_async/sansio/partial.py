"""Read JSON of a known type while it is being written.

What is complete is scanned by the scanner of `json`, which is C, and runs of list items that begin
alike are validated together without a scan; only containers that are still open are walked through
here. No part is read again once it was complete. What is shown has passed its validation; what has
not come is missing, and a number or a word that may go on is held back. Text is shown as far as it
came.
"""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from ernie_async.sansio.shapes import Shape

__all__ = ["MISSING", "JSONReader", "NotJSONError"]

MISSING: Any = object()

# There is something new to show when there is so much more of it: one part in so many. The first
# five thousand characters are read with every piece, a megabyte in steps of sixteen thousand.
GROWTH = 64

_SPACE = re.compile(r"[ \t\n\r]*")
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_OPENING = re.compile(r'\{[ \t\n\r]*"[^"\\]*"[ \t\n\r]*:')
_WORD = re.compile(r"[^\s,\]}]*")
_OPEN_TEXT = re.compile(r'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*')
_HIGH = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}$")


def _refuse_constant(name: str) -> Any:
    raise NotJSONError(f"{name} is no JSON")


# Where it ends, and what it is. Not in the annotations of `json`, though its own subclasses use it.
_scan: Callable[[str, int], tuple[Any, int]] = vars(
    json.JSONDecoder(strict=False, parse_constant=_refuse_constant)
)["scan_once"]
_TEXT = json.JSONDecoder(strict=False)


class NotJSONError(ValueError):
    """What came cannot become JSON any more."""


class _Frame:
    """A container that is still open.

    Attributes:
        shape: What it has to be; `None` if nothing of it is shown.
        raw: What came, complete values only; stays empty if `keeps` is false.
        keeps: Whether the raw values are needed: to validate this whole, or what it is part of.
        shown: What may be shown.
        key: Of the member that comes; `None` in a list, or before the key.
        is_even: Whether the items of this list have begun alike so far.
    """

    __slots__ = ("is_even", "keeps", "key", "raw", "shape", "shown")

    def __init__(self, shape: Shape | None, raw: Any, *, keeps: bool) -> None:
        self.shape = shape
        self.raw = raw
        self.keeps = keeps
        self.shown = MISSING if shape is None else shape.empty()
        self.key: str | None = None
        self.is_even = True

    def child_shape(self) -> Shape | None:
        if self.shape is None:
            return None
        if self.shape.kind != "model":
            return self.shape.item
        found = self.shape.field(self.key or "")
        return found and found[1]

    def show(self, value: Any, *, is_new: bool = True) -> None:
        """Put what may be shown of the member at hand into its place."""
        if self.shape is None or value is MISSING:
            return
        if self.shape.kind == "list":
            if is_new:
                self.shown.append(value)
            else:
                self.shown[-1] = value
        elif self.shape.kind == "dict":
            self.shown[self.key] = value
        else:
            name = self._attribute()
            self.shown.__dict__[name] = value
            self.shown.__pydantic_fields_set__.add(name)

    def hide(self) -> None:
        """Take back what was shown of the member at hand: it turned out to be wrong."""
        assert self.shape is not None  # or nothing was shown
        if self.shape.kind == "list":
            self.shown.pop()
        elif self.shape.kind == "dict":
            self.shown.pop(self.key, None)
        else:
            name = self._attribute()
            self.shown.__dict__.pop(name, None)
            self.shown.__pydantic_fields_set__.discard(name)

    def _attribute(self) -> str:
        """What the member at hand is called in a model; one that has no name is not shown."""
        assert self.shape is not None
        found = self.shape.field(self.key or "")
        assert found is not None
        return found[0]


class JSONReader:
    """Reads one JSON value of a type, piece by piece.

    Args:
        shape: The type.
        on_item: Given each item of the outermost list once it is complete, as JSON; nothing is
            kept of such a list then, and nothing of it is shown.

    Attributes:
        value: What can be shown so far, `MISSING` before anything can. The same object grows.
        is_over: Whether the outermost value is complete.
    """

    def __init__(self, shape: Shape, *, on_item: Callable[[bytes], None] | None = None) -> None:
        self.value: Any = MISSING
        self.is_over: bool = False
        self._shape = shape
        self._on_item = on_item
        self._frames: list[_Frame] = []
        self._text = ""  # what is not read yet
        self._waiting: list[str] = []  # what came after it
        self._n_read = self._n_waiting = 0
        self._expects = "value"
        self._pieces: list[str] | None = None  # of the text that is still open
        self._n_open = self._n_shown = 0

    def feed(self, text: str, *, is_last: bool = False) -> bool:
        """Take the next piece; say whether there is more to show.

        Args:
            text: The piece.
            is_last: Whether no other follows, so that it is read however short it is.

        Raises:
            NotJSONError: It cannot become JSON any more.
        """
        self._waiting.append(text)
        self._n_waiting += len(text)
        if self._n_waiting < self._n_read // GROWTH and not is_last:
            return False
        self._text += "".join(self._waiting)
        self._n_read += self._n_waiting
        self._waiting, self._n_waiting = [], 0
        changed = False
        place = 0
        try:
            while not self.is_over:
                after, shows = self._step(self._text, place)
                changed |= shows
                if after < 0:
                    break
                place = after
        finally:
            self._text = self._text[place:]
        return changed

    def _step(self, text: str, place: int) -> tuple[int, bool]:
        """Read one thing; return the place behind it, -1 if it is not complete."""
        if self._pieces is not None:
            return self._go_on_with_text(text, place)
        place = _SPACE.match(text, place).end()  # type: ignore[union-attr]
        if place == len(text):
            return -1, False
        mark = text[place]
        expects = self._expects
        if expects == "value" or (expects == "value or end" and mark != "]"):
            if mark == "{" and self._is_in_list():
                after = self._run_of_items(text, place)
                if after != place:
                    return after, True
            return self._value(text, place, mark)
        if mark == '"' and expects in {"key", "key or end"}:
            try:
                self._frames[-1].key, place = _TEXT.raw_decode(text, place)
            except json.JSONDecodeError:
                return -1, False
            self._expects = "colon"
        elif mark == ":" and expects == "colon":
            self._expects, place = "value", place + 1
        elif mark == "," and expects == "next":
            self._expects = "value" if isinstance(self._frames[-1].raw, list) else "key"
            place += 1
        elif mark in "]}" and expects in {"next", "key or end", "value or end"}:
            if (mark == "]") is not isinstance(self._frames[-1].raw, list):
                raise NotJSONError(f"a {mark} in the wrong place")
            return place + 1, self._close()
        else:
            raise NotJSONError(f"expected {expects}, got {mark!r}")
        return place, False

    def _value(self, text: str, place: int, mark: str) -> tuple[int, bool]:
        if mark not in '"[{':
            end = _WORD.match(text, place).end()  # type: ignore[union-attr]
            if end == len(text) and self._frames:
                return -1, False  # a number may go on
            if end == place:
                raise NotJSONError(f"expected a value, got {mark!r}")
        try:
            raw, end = _scan(text, place)
        except (StopIteration, json.JSONDecodeError):
            return self._open(mark, place)
        except RecursionError:
            raise NotJSONError("it is nested too deeply") from None
        return end, self._complete(raw, text[place:end])

    def _is_in_list(self) -> bool:
        frames = self._frames
        if not frames or not isinstance(frames[-1].raw, list):
            return False
        return frames[-1].shape is not None or (len(frames) == 1 and self._on_item is not None)

    def _run_of_items(self, text: str, place: int) -> int:
        """Take all objects that are complete, each with a comma behind it, together."""
        frame = self._frames[-1]
        if frame.shape is not None and frame.is_even and not frame.keeps:
            after = _take_even_items(frame.shape, frame.shown, text, place)
            if after > place:
                self._expects = "value"
                return after
            frame.is_even = after == place
        found: list[Any] = []
        after = end = place
        try:
            while text.startswith("{", after):
                raw, end_of_item = _scan(text, after)
                comma = _COMMA.match(text, end_of_item)
                if comma is None:
                    break
                found.append(raw)
                end, after = end_of_item, comma.end()
        except (StopIteration, json.JSONDecodeError, RecursionError):
            pass  # the last one is not complete: it is looked at by itself
        if not found:
            return place
        self._expects = "value"
        if frame.shape is None:
            assert self._on_item is not None
            for raw in found:
                self._on_item(_as_json(raw))
            return after
        if frame.keeps:
            frame.raw += found
        run = text[place:end].encode("utf-8", "surrogatepass")
        frame.shown += _valid_items(frame.shape, b"[%s]" % run, found)
        return after

    def _open(self, mark: str, place: int) -> tuple[int, bool]:
        """Begin something that is not complete yet."""
        parent = self._frames[-1] if self._frames else None
        shape = self._shape if parent is None else parent.child_shape()
        if mark == '"':
            self._pieces, self._n_open, self._n_shown = [], 0, -1
            return place + 1, False
        if mark not in "[{":
            raise NotJSONError(f"expected a value, got {mark!r}")
        fits = shape is not None and shape.kind in ({"list"} if mark == "[" else {"dict", "model"})
        is_part = shape is not None and shape.kind in {"model", "whole"}
        keeps = parent is not None and (parent.keeps or is_part or self._on_item is not None)
        is_stream = parent is None and self._on_item is not None
        shape = shape if fits and not is_stream else None
        frame = _Frame(shape, [] if mark == "[" else {}, keeps=keeps)
        self._show(frame.shown)
        self._frames.append(frame)
        self._expects = "value or end" if mark == "[" else "key or end"
        return place + 1, shape is not None

    def _go_on_with_text(self, text: str, place: int) -> tuple[int, bool]:
        """Take more of a text that is still open."""
        assert self._pieces is not None
        found = _OPEN_TEXT.match(text, place)
        assert found is not None
        end = found.end()
        if end < len(text) and text[end] == '"':
            self._take_text(text[place:end])
            whole = "".join(self._pieces)
            self._pieces = None
            return end + 1, self._complete(whole, None, was_shown=self._n_shown >= 0)
        # The first half of a pair is of no use without the other.
        piece = _HIGH.sub("", text[place:end])
        self._take_text(piece)
        return -1 if not piece else place + len(piece), self._show_open_text()

    def _take_text(self, piece: str) -> None:
        assert self._pieces is not None
        if not piece:
            return
        try:
            told = _TEXT.decode(f'"{piece}"') if "\\" in piece else piece
        except json.JSONDecodeError as error:
            raise NotJSONError(f"a text with {error.msg}") from None
        self._pieces.append(told)
        self._n_open += len(told)

    def _show_open_text(self) -> bool:
        shape = self._frames[-1].child_shape() if self._frames else self._shape
        if shape is None or shape.kind != "text" or not self._pieces:
            return False
        if self._n_shown >= 0 and self._n_open - self._n_shown <= self._n_shown // GROWTH:
            return False
        self._pieces = ["".join(self._pieces)]
        self._show(self._pieces[0], is_new=self._n_shown < 0)
        self._n_shown = self._n_open
        return True

    def _show(self, value: Any, *, is_new: bool = True) -> None:
        if self._frames:
            self._frames[-1].show(value, is_new=is_new)
        elif value is not MISSING:
            self.value = value

    def _close(self) -> bool:
        frame = self._frames.pop()
        return self._complete(frame.raw, None, frame=frame)

    def _complete(
        self, raw: Any, text: str | None, *, was_shown: bool = False, frame: _Frame | None = None
    ) -> bool:
        """Put a complete value into its place."""
        parent = self._frames[-1] if self._frames else None
        self._expects = "next"
        if parent is None:
            return self._complete_all(raw, text, frame)
        if self._on_item is not None and len(self._frames) == 1 and isinstance(parent.raw, list):
            self._on_item(_as_json(raw))
            return False
        if parent.keeps and isinstance(parent.raw, list):
            parent.raw.append(raw)
        elif parent.keeps:
            parent.raw[parent.key] = raw
        was_shown = was_shown or (frame is not None and frame.shown is not MISSING)
        shape = parent.child_shape()
        if shape is None or (was_shown and frame is not None and shape.kind != "model"):
            return False  # of a list or dict, each member was validated by itself
        try:
            value = shape.adapter.validate_json(_as_json(raw) if text is None else text)
        except ValidationError:
            if was_shown:
                parent.hide()
            return was_shown
        self._show(value, is_new=not was_shown)
        return True

    def _complete_all(self, raw: Any, text: str | None, frame: _Frame | None) -> bool:
        """The outermost value is there. Whoever has the whole text validates all of it."""
        self.is_over = True
        if frame is not None:
            return False
        if self._on_item is not None and isinstance(raw, list):
            for item in raw:
                self._on_item(_as_json(item))
        elif self._on_item is None:
            with suppress(ValidationError):
                self.value = self._shape.adapter.validate_json(
                    _as_json(raw) if text is None else text
                )
                return True
        return False


def _as_json(raw: Any) -> bytes:
    try:
        return to_json(raw)
    except PydanticSerializationError:  # half a surrogate pair, which no validation accepts
        return json.dumps(raw).encode()


def _take_even_items(shape: Shape, shown: list[Any], text: str, place: int) -> int:
    """Take the items up to the last one that begins like the first, without a scan of their ends.

    They are whole if they are JSON: whatever was cut in the middle is not.

    Returns:
        The place of the last one; `place` if there is only one; -1 if they are not what they seem.
    """
    opening = _OPENING.match(text, place)
    if opening is None:
        return place
    last = text.rfind(opening[0], opening.end())
    if last < 0:
        return place
    comma = text.rfind(",", place, last)
    if comma < 0 or text[comma + 1 : last].strip(" \t\n\r"):
        return -1
    run = text[place:comma].encode("utf-8", "surrogatepass")
    try:
        shown += shape.items.validate_json(b"[%s]" % run)
    except ValidationError:
        return -1
    return last


def _valid_items(shape: Shape, together: bytes, items: list[Any]) -> list[Any]:
    """The items that are valid; the final validation tells what is wrong with the others."""
    try:
        return shape.items.validate_json(together)
    except ValidationError:
        pass
    valid = []
    for item in items:
        with suppress(ValidationError):
            valid.append(shape.item.adapter.validate_json(_as_json(item)))
    return valid
