"""What to tell the platform next, so that it shows what the model has said so far.

Pure: text comes in, calls go out, time is an argument. The plan holds the wanted text and what was
delivered of it; it is asked for one call at a time, so newer text replaces older unsent text.
`sender` waits and makes the calls.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ernie_async.bots.markup import close_emphasis
from ernie_async.bots.splitter import Part, Splitter
from ernie_async.bots.transport import (
    Caps,
    Format,
    MarkupError,
    MessageGoneError,
    Mode,
    PlatformError,
    UndeliveredError,
)
from ernie_async.bots.units import Unit, measure

__all__ = ["AppendPlan", "Call", "MessagePlan", "Plan"]

# The first message is sent when so much is there, or so many seconds after the first text.
FIRST_CHARACTERS = 20
FIRST_SECONDS = 0.8

# What is appended is kept together up to this length, or for this long.
APPEND_CHARACTERS = 256
APPEND_SECONDS = 1.0

# Of mode "sentence", where the platform does not say.
MOST_PARAGRAPHS = 5


class Call(NamedTuple):
    """One call to make.

    Attributes:
        kind: The method of the transport.
        place: Of the message, from 0.
        text: All of the message, or what is to be appended.
        handle: Of a message that exists.
        format: How the text is to be read.
        number: The id of a draft, the sequence number of an edit.
    """

    kind: Literal["send", "begin", "edit", "append", "draft", "finish", "delete"]
    place: int
    text: str = ""
    handle: Any = None
    format: Format | None = None
    number: int = 0


@dataclass(slots=True)
class _Message:
    """What the platform shows."""

    is_sent: bool = False
    handle: Any = None  # which may be None for a message that was sent, too
    text: str = ""
    format: Format | None = None
    since: float = 0.0
    is_plain: bool = False  # its formatting was refused
    is_closed: bool = False


class MessagePlan:
    """For every mode but "append": messages of full text, each of them a part of the answer.

    Args:
        caps: Of the transport.
        mode: One that the transport can do.
        cursor: Shown behind unfinished text.
        draft_id: Of the first draft; not 0.
    """

    def __init__(self, caps: Caps, mode: Mode, cursor: str = "", *, draft_id: int = 1) -> None:
        platform = caps.platform
        self._caps = caps
        self._mode = mode
        self._cursor = cursor
        self._limit = platform.limit
        self._unit: Unit = platform.unit
        self._edits = mode in {"edit", "card"}
        self._previews = self._edits or mode == "draft"
        most = platform.max_messages or (MOST_PARAGRAPHS if mode == "sentence" else None)
        self._most_blocks = most - 1 if most is not None and mode == "sentence" else 0
        self._calls = 0
        self._draft_id = draft_id
        self._messages: list[_Message] = []
        self._first_at: float | None = None
        self._drafted_at = 0.0
        self._start()

    def _start(self) -> None:
        self._splitter = Splitter(self._limit, self._unit)
        self._text: list[str] = []
        self._length = 0
        self._parts: list[Part] = []
        self._n_done = 0
        self._is_fresh = False  # something was fed since the last preview
        self.is_closed: bool = False

    @property
    def text(self) -> str:
        """All that was fed."""
        return "".join(self._text)

    @property
    def is_visible(self) -> bool:
        """Whether there is a message yet."""
        return any(message.is_sent for message in self._messages)

    @property
    def rest(self) -> str:
        """The text from the first message on that is not delivered in its final state."""
        return self.text[sum(len(part.body) for part in self._parts[: self._n_done]) :]

    def feed(self, delta: str, now: float) -> None:
        """The model has said more."""
        self._text.append(delta)
        self._length += len(delta)
        self._is_fresh = True
        if self._first_at is None and not delta.isspace():
            self._first_at = now
        self._parts += self._splitter.feed(delta)
        while len(self._parts) < self._most_blocks:
            part = self._splitter.seal_block()
            if part is None:
                break
            self._parts.append(part)

    def replace(self, text: str, now: float) -> None:
        """Another text instead. What cannot be edited any more stays as it is."""
        n_done = 0 if self._edits else self._n_done
        self._start()
        self.feed(text, now)
        self._n_done = n_done

    def close(self) -> None:
        """The text is whole."""
        if not self.is_closed:
            self._parts += self._splitter.close()
            self.is_closed = True

    def wait(self, now: float) -> float | None:
        """Seconds until `next` is worth asking; `None` if only more text makes it so."""
        if self.is_closed or (self._n_done < len(self._parts) and self._mode != "final"):
            return 0.0
        if not self._previews or self._first_at is None:
            return None
        if self._is_fresh:
            if self._messages or self._length >= FIRST_CHARACTERS:
                return 0.0
            return max(self._first_at + FIRST_SECONDS - now, 0.0)
        renewal = self._caps.platform.draft_seconds
        if self._mode == "draft" and renewal is not None and self._shown().text:
            return max(self._drafted_at + renewal - now, 0.0)
        return None

    def next(self, now: float) -> Call | None:
        """The next call; `None` if the platform shows what it should.

        Raises:
            UndeliveredError: The platform takes no more messages.
        """
        while self._n_done < len(self._parts):
            call = self._final(self._shown(), self._parts[self._n_done].text)
            if call is not None:
                return call
            self._n_done += 1
        if self.is_closed:
            return self._surplus()
        return self._preview(self._shown(), now) if self._previews else None

    def done(self, call: Call, result: Any, now: float) -> None:
        """A call was made."""
        message = self._messages[call.place]
        if call.kind == "send":
            message.is_sent, message.handle, message.since = True, result, now
        elif call.kind == "draft":
            self._drafted_at = now
        elif call.kind == "finish":
            message.is_closed = True
        elif call.kind == "delete":
            self._messages.pop()
        message.text, message.format = call.text, call.format

    def failed(self, call: Call, error: PlatformError) -> None:
        """A call was refused; `next` says what to do about it."""
        message = self._messages[call.place]
        self._is_fresh = True
        if isinstance(error, MessageGoneError):
            if call.kind == "delete":
                self._messages.pop()
            elif call.kind == "finish":
                message.is_closed = True
            else:
                message.is_sent, message.text = False, ""
        elif isinstance(error, MarkupError):
            message.is_plain = True

    def _shown(self) -> _Message:
        """The message that is being written."""
        while len(self._messages) <= self._n_done:
            self._messages.append(_Message())
        return self._messages[self._n_done]

    def _final(self, message: _Message, text: str) -> Call | None:
        wants_format = self._caps.markup == "final" and not message.is_plain
        form: Format | None = "markdown" if wants_format else None
        if not message.is_sent:
            return self._send(text, form) if text.strip() else None
        if (message.text, message.format) != (text, form) and self._edits:
            return self._edit(message, text, form)
        if self._mode == "card" and not message.is_closed:
            return Call("finish", self._n_done, text, message.handle, form)
        return None

    def _preview(self, message: _Message, now: float) -> Call | None:
        self._is_fresh = False
        lifetime = self._caps.platform.edit_seconds
        if message.is_sent and lifetime is not None and now > message.since + lifetime:
            part = self._splitter.seal_now()
            self._parts += [] if part is None else [part]
            return self.next(now) if part else None
        part = self._splitter.rest
        if not part.body.strip() or self._is_full(message):
            return None
        text = part.text
        if self._caps.markup == "always" and not part.closing:
            text = self._if_fits(close_emphasis(text), text)
        text = self._if_fits(text + self._cursor, text)
        if self._mode == "draft":
            renewal = self._caps.platform.draft_seconds
            is_due = renewal is not None and now >= self._drafted_at + renewal
            if text == message.text and not is_due:
                return None
            return Call("draft", self._n_done, text, number=self._draft_id + self._n_done)
        if not message.is_sent:
            return self._send(text, None)
        return None if text == message.text else self._edit(message, text, None)

    def _if_fits(self, text: str, other: str) -> str:
        return text if measure(text, self._unit) <= self._limit else other

    def _is_full(self, message: _Message) -> bool:
        most = self._caps.platform.max_messages
        held = sum(m.is_sent for m in self._messages)
        return not message.is_sent and most is not None and held >= most

    def _send(self, text: str, form: Format | None) -> Call:
        if self._is_full(self._messages[self._n_done]):
            most = self._caps.platform.max_messages
            raise UndeliveredError(f"the platform takes {most} messages at most", rest=self.rest)
        return Call("send", self._n_done, text, format=form)

    def _edit(self, message: _Message, text: str, form: Format | None) -> Call:
        self._calls += 1
        return Call("edit", self._n_done, text, message.handle, form, self._calls)

    def _surplus(self) -> Call | None:
        """Messages of a longer text that was replaced."""
        while len(self._messages) > len(self._parts):
            message = self._messages[-1]
            if message.is_sent and self._edits:
                return Call("delete", len(self._messages) - 1, "", message.handle)
            self._messages.pop()
        return None


class AppendPlan:
    """For mode "append": one message that grows, and another one when it takes no more.

    Args:
        caps: Of the transport.
    """

    def __init__(self, caps: Caps) -> None:
        self._most = caps.platform.append_limit or caps.platform.limit
        self._text: list[str] = []
        self._waiting = ""
        self._handle: Any = None
        self._is_open = False
        self._held: list[str] = []  # of the message that is open
        self._waiting_since: float | None = None
        self.is_visible: bool = False
        self.is_closed: bool = False

    @property
    def text(self) -> str:
        """All that was fed."""
        return "".join(self._text)

    @property
    def rest(self) -> str:
        """What was not appended."""
        return self._waiting

    def feed(self, delta: str, now: float) -> None:
        """The model has said more."""
        self._text.append(delta)
        self._waiting += delta
        if self._waiting_since is None:
            self._waiting_since = now

    def replace(self, text: str, now: float) -> None:
        """Another text instead: it is appended, since nothing can be taken back."""
        self.feed(f"\n\n{text}", now)
        self._text = [text]

    def close(self) -> None:
        """The text is whole."""
        self.is_closed = True

    def wait(self, now: float) -> float | None:
        """Seconds until `next` is worth asking; `None` if only more text makes it so."""
        if self.is_closed or len(self._waiting) >= APPEND_CHARACTERS:
            return 0.0
        if self._waiting_since is None or (not self._is_open and not self._waiting.strip()):
            return None
        return max(self._waiting_since + APPEND_SECONDS - now, 0.0)

    def next(self, now: float) -> Call | None:
        """The next call; `None` if the platform shows what it should."""
        text = self._waiting[: self._most]
        if not self._is_open:
            return Call("begin", 0, text) if text.strip() else None
        if text:
            return Call("append", 0, text, self._handle)
        return Call("finish", 0, "".join(self._held), self._handle) if self.is_closed else None

    def done(self, call: Call, result: Any, now: float) -> None:
        """A call was made."""
        if call.kind == "finish":
            self._is_open = False
            return
        if call.kind == "begin":
            self._handle, self._held = result, []
            self._is_open = self.is_visible = True
        self._held.append(call.text)
        self._waiting = self._waiting[len(call.text) :]
        self._waiting_since = now if self._waiting else None

    def failed(self, call: Call, error: PlatformError) -> None:
        """A call was refused; `next` says what to do about it."""
        if isinstance(error, MessageGoneError):
            self._is_open = False


Plan = MessagePlan | AppendPlan
