"""What a chat shows of a text so far, and the call that brings it closer to what it should show.

Each `step` makes one call, for the text as it is at that moment, so newer text replaces older text
that was not sent. Nothing here waits or knows a pace: `sender` asks for the steps.
"""

import random
from dataclasses import dataclass
from itertools import count
from math import inf
from typing import Any

from ernie_async.bots.markup import close_emphasis
from ernie_async.bots.splitter import Part, Splitter, measure
from ernie_async.bots.transport import (
    Format,
    MarkupError,
    MessageGoneError,
    Mode,
    PlatformError,
    Transport,
    UndeliveredError,
)

__all__ = ["GrowingMessage", "Messages"]

# The first message is sent when so much is there, or so many seconds after the first text.
FIRST_CHARACTERS = 20
FIRST_SECONDS = 0.8

# What is appended is kept together up to this length, or for this long.
APPEND_CHARACTERS = 256
APPEND_SECONDS = 1.0

# Of mode "sentence", where the platform does not say.
MOST_PARAGRAPHS = 5

State = tuple[str, Format | None]


@dataclass(slots=True)
class _Message:
    """What the platform shows."""

    is_sent: bool = False
    handle: Any = None  # which may be None for a message that was sent, too
    shown: State | None = None  # None if that is not known, or nothing
    edit_until: float = inf
    is_plain: bool = False  # its formatting was refused
    is_closed: bool = False


class Messages:
    """For every mode but "append": messages of full text, each of them a part of the answer."""

    def __init__(self, transport: Transport, mode: Mode, cursor: str = "") -> None:
        self._to = transport
        self._limits = transport.caps.platform
        self._mode = mode
        self._cursor = cursor
        self._edits = mode in {"edit", "card"}
        self._messages: list[_Message] = []
        self._n_sent = 0
        self._sequence = count(1)
        self._first_at: float | None = None
        self._draft_id = random.randrange(1, 2**31)
        self._renew_at = inf  # the draft
        self._start()

    def _start(self) -> None:
        self._splitter = Splitter(self._limits.limit, self._limits.unit)
        self._pieces: list[str] = []
        self._length = 0
        self._parts: list[Part] = []
        self._n_final = 0  # of the parts: shown as they should be
        self._is_fresh = False  # something was fed since the last preview
        self.is_closed = False

    @property
    def text(self) -> str:
        """All that was fed."""
        return "".join(self._pieces)

    @property
    def rest(self) -> str:
        """The text from the first message on that is not delivered in its final state."""
        return self.text[sum(len(part.body) for part in self._parts[: self._n_final]) :]

    @property
    def is_visible(self) -> bool:
        """Whether there is a message yet."""
        return self._n_sent > 0

    @property
    def is_over(self) -> bool:
        """Whether the platform shows all that it should."""
        return self.is_closed and self._n_final == len(self._parts) and not self._surplus

    @property
    def _surplus(self) -> list[_Message]:
        """What was sent for a longer text, which was replaced."""
        return [message for message in self._messages[len(self._parts) :] if message.is_sent]

    def feed(self, delta: str, now: float) -> None:
        """The model has said more."""
        self._pieces.append(delta)
        self._length += len(delta)
        self._is_fresh = True
        if self._first_at is None and not delta.isspace():
            self._first_at = now
        if self._n_final == len(self._parts) and now > self._message().edit_until:
            self._parts += filter(None, [self._splitter.seal_now()])
        self._parts += self._splitter.feed(delta)
        if self._mode == "sentence":
            most = (self._limits.max_messages or MOST_PARAGRAPHS) - 1  # the last takes the rest
            while len(self._parts) < most and (part := self._splitter.seal_block()) is not None:
                self._parts.append(part)

    def replace(self, text: str, now: float) -> None:
        """Another text instead: in the same messages, or behind those that cannot be edited."""
        if not self._edits:
            self._messages.clear()
        self._start()
        self.feed(text, now)

    def close(self) -> None:
        """The text is whole."""
        self._parts += self._splitter.close()
        self.is_closed = True
        self._settle()

    def wait(self, now: float) -> float | None:
        """Seconds until a step is worth it; `None` if only more text makes it so."""
        if self.is_closed or (self._n_final < len(self._parts) and self._mode != "final"):
            return 0.0
        if self._first_at is None or not (self._edits or self._mode == "draft"):
            return None
        at = self._renew_at
        if self._is_fresh:
            is_enough = self._length >= FIRST_CHARACTERS
            at = now if is_enough else self._first_at + FIRST_SECONDS
        return None if at == inf else max(at - now, 0.0)

    async def step(self, now: float) -> bool:
        """Make one call; say whether there was one to make. The next makes up for a failure."""
        self._settle()
        if self.is_over:
            return False
        if self._n_final < len(self._parts):
            message = self._message()
            state = self._parts[self._n_final].text, self._format(message)
            call = self._show(message, state, now)
        elif self.is_closed:
            message = self._surplus[-1]
            call = self._remove(message)
        else:
            message = self._message()
            preview = self._preview(message, now)
            self._is_fresh = False
            if preview is None:
                return False
            call = self._show(message, (preview, None), now, is_final=False)
        was_sent = message.is_sent
        try:
            await self._to.attempt(call)
        except PlatformError as error:
            is_gone = was_sent and isinstance(error, MessageGoneError)
            message.is_sent = was_sent and not is_gone
            message.shown, message.is_closed = None, False
            self._is_fresh = True
            if isinstance(error, MarkupError) and not message.is_plain:
                message.is_plain = True
            elif not is_gone:
                raise
        self._settle()
        return True

    async def _show(
        self, message: _Message, state: State, now: float, *, is_final: bool = True
    ) -> None:
        """Bring a message closer to a state, by one call."""
        to, (text, form) = self._to, state
        # What is so afterwards is noted before, since "not modified" is no error but ends the call.
        if self._mode == "draft" and not is_final:
            self._renew_at = now + (self._limits.draft_seconds or inf)
            message.shown = state
            await to.draft(self._draft_id + self._n_sent, text)
        elif not message.is_sent:
            if self._is_full:
                told = f"the platform takes {self._limits.max_messages} messages at most"
                raise UndeliveredError(told, rest=self.rest)
            reply_to = None if self.is_visible else to.reply_to
            message.handle = await to.send(text, reply_to=reply_to, format=form)
            message.is_sent, message.shown = True, state
            message.edit_until = now + (self._limits.edit_seconds or inf)
            self._n_sent += 1
        elif message.shown != state:
            message.shown = state
            await to.edit(message.handle, text, format=form, sequence=next(self._sequence))
        else:
            message.is_closed = True
            await to.finish(message.handle, text)

    async def _remove(self, message: _Message) -> None:
        message.is_sent = False
        await self._to.delete(message.handle)

    def _preview(self, message: _Message, now: float) -> str | None:
        """What to show of a message that is being written; `None` if that is nothing new."""
        part = self._splitter.rest
        if not part.body.strip() or (not message.is_sent and self._is_full):
            return None
        text = part.text
        if self._to.caps.markup == "always" and not part.closing:
            text = self._if_fits(close_emphasis(text), text)
        text = self._if_fits(text + self._cursor, text)
        return None if message.shown == (text, None) and now < self._renew_at else text

    def _if_fits(self, text: str, other: str) -> str:
        return text if measure(text, self._limits.unit) <= self._limits.limit else other

    @property
    def _is_full(self) -> bool:
        return self._limits.max_messages is not None and self._n_sent >= self._limits.max_messages

    def _message(self) -> _Message:
        """The one that is being written."""
        while len(self._messages) <= self._n_final:
            self._messages.append(_Message())
        return self._messages[self._n_final]

    def _settle(self) -> None:
        """Pass over the parts that are shown as they should be."""
        while self._n_final < len(self._parts) and self._is_settled(self._message()):
            self._n_final += 1

    def _is_settled(self, message: _Message) -> bool:
        text = self._parts[self._n_final].text
        if not message.is_sent:
            return not text.strip()
        if self._edits and message.shown != (text, self._format(message)):
            return False
        return self._mode != "card" or message.is_closed

    def _format(self, message: _Message) -> Format | None:
        wants = self._to.caps.markup == "final" and not message.is_plain
        return "markdown" if wants else None


class GrowingMessage:
    """For mode "append": one message that grows, and another one when it takes no more.

    Its methods are those of `Messages`.
    """

    def __init__(self, transport: Transport) -> None:
        self._to = transport
        limits = transport.caps.platform
        self._most = limits.append_limit or limits.limit
        self._handle: Any = None
        self._is_open = False
        self._held = ""  # of the message that is open
        self._waiting_since: float | None = None
        self.text = ""
        self.rest = ""  # what was not appended
        self.is_visible = False
        self.is_closed = False

    @property
    def is_over(self) -> bool:
        return self.is_closed and not self._is_open and not self.rest.strip()

    def feed(self, delta: str, now: float) -> None:
        self.text += delta
        self.rest += delta
        if self._waiting_since is None:
            self._waiting_since = now

    def replace(self, text: str, now: float) -> None:
        """Another text instead: it is appended, since nothing can be taken back."""
        self.feed(f"\n\n{text}", now)
        self.text = text

    def close(self) -> None:
        self.is_closed = True

    def wait(self, now: float) -> float | None:
        if self.is_closed or len(self.rest) >= APPEND_CHARACTERS:
            return 0.0
        if self._waiting_since is None or (not self._is_open and not self.rest.strip()):
            return None
        return max(self._waiting_since + APPEND_SECONDS - now, 0.0)

    async def step(self, now: float) -> bool:
        text = self.rest[: self._most]
        if not text.strip() and not (self._is_open and (text or self.is_closed)):
            return False
        was_open = self._is_open
        try:
            await self._to.attempt(self._grow(text))
        except MessageGoneError:
            if not was_open:
                raise
            self._is_open = False
            return True
        self.rest = self.rest[len(text) :]
        self._waiting_since = now if self.rest else None
        return True

    async def _grow(self, text: str) -> None:
        if not self._is_open:
            reply_to = None if self.is_visible else self._to.reply_to
            self._handle = await self._to.begin(text, reply_to=reply_to)
            self._held = text
            self._is_open = self.is_visible = True
        elif text:
            await self._to.append(self._handle, text)
            self._held += text
        else:
            await self._to.finish(self._handle, self._held)
            self._is_open = False
