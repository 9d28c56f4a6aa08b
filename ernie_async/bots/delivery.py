"""What a chat shows of a text so far, and the call that brings it closer to what it should show.

Each `step` makes one call, for the text as it is at that moment, so newer text replaces older text
that was not sent. Nothing here waits or knows a pace: `sender` asks for the steps.
"""

import random
from dataclasses import dataclass
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
    shown: State = ("", None)
    since: float = 0.0
    is_plain: bool = False  # its formatting was refused
    is_closed: bool = False


class Messages:
    """For every mode but "append": messages of full text, each of them a part of the answer.

    Args:
        transport: Where to.
        mode: One that it can do.
        cursor: Shown behind unfinished text.
    """

    def __init__(self, transport: Transport, mode: Mode, cursor: str = "") -> None:
        self._to = transport
        self._caps = transport.caps
        self._limits = transport.caps.platform
        self._mode = mode
        self._cursor = cursor
        self._edits = mode in {"edit", "card"}
        self._messages: list[_Message] = []
        self._n_sent = 0
        self._n_edits = 0
        self._first_at: float | None = None
        self._draft_id = random.randrange(1, 2**31)
        self._renew_at: float | None = None  # of the draft
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
        if self._is_aged(now) and (part := self._splitter.seal_now()) is not None:
            self._parts.append(part)
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
        if self._is_fresh:
            is_enough = self._messages or self._length >= FIRST_CHARACTERS
            return 0.0 if is_enough else max(self._first_at + FIRST_SECONDS - now, 0.0)
        return None if self._renew_at is None else max(self._renew_at - now, 0.0)

    async def step(self, now: float) -> bool:
        """Make one call; say whether there was one to make.

        Raises:
            PlatformError: It failed; unless it makes no sense, the next step makes up for it.
            UndeliveredError: The platform takes no more messages.
        """
        self._settle()
        if self.is_over:
            return False
        is_final = self._n_final < len(self._parts)
        is_surplus = self.is_closed and not is_final
        message = self._surplus[-1] if is_surplus else self._message()
        was_sent = message.is_sent
        try:
            if is_final:
                await self._complete(message, self._parts[self._n_final].text, now)
            elif is_surplus:
                await self._to.attempt(self._to.delete(message.handle))
                message.is_sent = False
            elif not await self._preview(message, now):
                return False
        except PlatformError as error:
            self._is_fresh = True
            if isinstance(error, MessageGoneError) and was_sent:
                message.is_sent, message.shown = False, ("", None)
            elif isinstance(error, MarkupError) and not message.is_plain:
                message.is_plain = True
            else:
                raise
        self._settle()
        return True

    def _message(self) -> _Message:
        """The one that is being written."""
        while len(self._messages) <= self._n_final:
            self._messages.append(_Message())
        return self._messages[self._n_final]

    def _is_aged(self, now: float) -> bool:
        """Whether the message that is being written should not be edited any more."""
        seconds = self._limits.edit_seconds
        if seconds is None or self._n_final < len(self._parts):
            return False
        message = self._message()
        return message.is_sent and now > message.since + seconds

    def _settle(self) -> None:
        """Pass over the parts that are shown as they should be."""
        while self._n_final < len(self._parts):
            message, text = self._message(), self._parts[self._n_final].text
            if not message.is_sent:
                is_settled = not text.strip()
            else:
                is_edited = self._edits and message.shown != (text, self._format(message))
                is_settled = not is_edited and (self._mode != "card" or message.is_closed)
            if not is_settled:
                return
            self._n_final += 1

    def _format(self, message: _Message) -> Format | None:
        return "markdown" if self._caps.markup == "final" and not message.is_plain else None

    async def _complete(self, message: _Message, text: str, now: float) -> None:
        final = text, self._format(message)
        if not message.is_sent:
            await self._send(message, final, now)
        elif message.shown != final:
            await self._edit(message, final)
        else:
            await self._to.attempt(self._to.finish(message.handle, text))
            message.is_closed = True

    async def _preview(self, message: _Message, now: float) -> bool:
        self._is_fresh = False
        part = self._splitter.rest
        if not part.body.strip() or (not message.is_sent and self._is_full):
            return False
        text = part.text
        if self._caps.markup == "always" and not part.closing:
            text = self._if_fits(close_emphasis(text), text)
        preview = self._if_fits(text + self._cursor, text), None
        is_due = self._renew_at is not None and now >= self._renew_at
        if message.shown == preview and not is_due:
            return False
        if self._mode == "draft":
            draft_id = self._draft_id + self._n_sent
            await self._to.attempt(self._to.draft(draft_id, preview[0]))
            message.shown = preview
            self._renew_at = now + (self._limits.draft_seconds or inf)
        elif message.is_sent:
            await self._edit(message, preview)
        else:
            await self._send(message, preview, now)
        return True

    def _if_fits(self, text: str, other: str) -> str:
        return text if measure(text, self._limits.unit) <= self._limits.limit else other

    @property
    def _is_full(self) -> bool:
        return self._limits.max_messages is not None and self._n_sent >= self._limits.max_messages

    async def _send(self, message: _Message, state: State, now: float) -> None:
        if self._is_full:
            most = self._limits.max_messages
            raise UndeliveredError(f"the platform takes {most} messages at most", rest=self.rest)
        text, form = state
        reply_to = None if self.is_visible else self._to.reply_to
        sending = self._to.send(text, reply_to=reply_to, format=form)
        message.handle = await self._to.attempt(sending)
        message.is_sent, message.shown, message.since = True, state, now
        self._n_sent += 1

    async def _edit(self, message: _Message, state: State) -> None:
        self._n_edits += 1
        text, form = state
        editing = self._to.edit(message.handle, text, format=form, sequence=self._n_edits)
        await self._to.attempt(editing)
        message.shown = state


class GrowingMessage:
    """For mode "append": one message that grows, and another one when it takes no more.

    Args:
        transport: Where to.
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
        """Whether the platform shows all that it should."""
        return self.is_closed and not self._is_open and not self.rest.strip()

    def feed(self, delta: str, now: float) -> None:
        """The model has said more."""
        self.text += delta
        self.rest += delta
        if self._waiting_since is None:
            self._waiting_since = now

    def replace(self, text: str, now: float) -> None:
        """Another text instead: it is appended, since nothing can be taken back."""
        self.feed(f"\n\n{text}", now)
        self.text = text

    def close(self) -> None:
        """The text is whole."""
        self.is_closed = True

    def wait(self, now: float) -> float | None:
        """Seconds until a step is worth it; `None` if only more text makes it so."""
        if self.is_closed or len(self.rest) >= APPEND_CHARACTERS:
            return 0.0
        if self._waiting_since is None or (not self._is_open and not self.rest.strip()):
            return None
        return max(self._waiting_since + APPEND_SECONDS - now, 0.0)

    async def step(self, now: float) -> bool:
        """Make one call; say whether there was one to make.

        Raises:
            PlatformError: It failed; unless it makes no sense, the next step makes up for it.
        """
        text = self.rest[: self._most]
        to = self._to
        try:
            if self._is_open and text:
                await to.attempt(to.append(self._handle, text))
            elif self._is_open and self.is_closed:
                await to.attempt(to.finish(self._handle, self._held))
                self._is_open = False
            elif text.strip():
                reply_to = None if self.is_visible else to.reply_to
                self._handle = await to.attempt(to.begin(text, reply_to=reply_to))
                self._held = ""
                self._is_open = self.is_visible = True
            else:
                return False
        except MessageGoneError:
            if not self._is_open:
                raise
            self._is_open = False
            return True
        self._held += text
        self.rest = self.rest[len(text) :]
        self._waiting_since = now if self.rest else None
        return True
