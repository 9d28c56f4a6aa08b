"""What a bot remembers of its conversations: turns that are stored whole, or not at all.

Knows messages, stores and turns; knows no client and no platform.
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Protocol

from ernie_async.bots.history import StoredTurn, messages_of, stored, trim
from ernie_async.bots.turns import QUEUED, OnBusy, Turns
from ernie_async.errors import ConfigError, ErnieError
from ernie_async.sansio.ledger import PromptCorrection
from ernie_async.sansio.tokens import estimate_prompt
from ernie_async.types.content import ContentPart, TextPart
from ernie_async.types.messages import Message, assistant, system, user
from ernie_async.types.usage import Usage

__all__ = ["Content", "Key", "Memory", "Store", "Turn"]

logger: logging.Logger = logging.getLogger("ernie_async")

# Enough for a long talk. Every token of history is paid for with every message, so this is less
# than what today's models take.
WINDOW = 16_000
MAX_TOKENS = 2_000

# Of the window: for what the estimate misses.
RESERVE = 0.05

# The estimate is corrected by what was learnt, within these bounds.
LEAST_RATIO, MOST_RATIO = 0.5, 2.0

# Of the turns, when the service says that the prompt is too long after all.
SHORTENED_BY = 0.25

IMAGE_MARK = "[图片]"

Key = str | int | Sequence[str | int | None]
Content = str | Sequence[ContentPart]
Summarise = Callable[[list[Message]], Awaitable[str]]


class Store(Protocol):
    """Where conversations are kept, each as a text under its key."""

    async def load(self, key: str) -> str | None:
        """A conversation; `None` if there is none, or if it is too old."""
        ...

    async def save(self, key: str, text: str) -> None:
        """Put a conversation in the place of what was there."""

    async def delete(self, key: str) -> None:
        """Forget a conversation."""


class Turn:
    """One message and its answer, while that is being written. Made by `Memory.turn`.

    Attributes:
        messages: What to ask the model.
    """

    def __init__(self, memory: "Memory", new: Message, model: str | None) -> None:
        self._memory = memory
        self._model = model
        self._new = new
        self._history: list[StoredTurn] = []
        self._committed: list[StoredTurn] | None = None
        self.messages: list[Message] = []

    async def _use(self, kept: list[StoredTurn], dropped: list[StoredTurn]) -> None:
        if dropped and (summary := await self._memory._summary_of(dropped)):
            kept = [stored([system(summary)]), *kept]
        self._history = kept
        past = messages_of(kept)
        summaries = [str(message.content) for message in past if message.role == "system"]
        past = [message for message in past if message.role != "system"]
        self.messages = [*self._memory._instructions(*summaries), *past, self._new]

    async def shorten(self) -> bool:
        """Leave out a quarter more of the oldest turns; say whether there was one."""
        loose = [n for n, turn in enumerate(self._history) if not turn.get("pinned")]
        gone = loose[: ceil(len(loose) * SHORTENED_BY)]
        kept = [turn for n, turn in enumerate(self._history) if n not in gone]
        await self._use(kept, [self._history[n] for n in gone])
        return bool(gone)

    def commit(
        self,
        answer: str | Sequence[Message],
        *,
        usage: Usage | None = None,
        model: str | None = None,
    ) -> None:
        """Say what came of it: it is stored when the block of `Memory.turn` ends without error.

        Args:
            answer: The text, or, with tools, all messages behind the user's.
            usage: Of this one request, if known: later estimates learn from it.
            model: Whose usage it is, if another one than the turn was for has answered.
        """
        said = [assistant(answer)] if isinstance(answer, str) else answer
        self._committed = [*self._history, stored([_remembered(self._new), *said])]
        if usage is not None and not usage.is_estimate:
            self._memory._correction.note(
                model or self._model or "",
                estimated=estimate_prompt(self.messages),
                real=usage.prompt_tokens,
            )


class Memory:
    """Conversations, each under a key such as `("discord", channel, user)`. Serves one event loop.

    ```python
    async with memory.turn(key, text) as turn:
        answer = await client.chat(turn.messages)
        turn.commit(answer.text, usage=answer.usage)
    ```

    Args:
        store: Where they are kept; `None` to remember nothing.
        system: Instructions, always sent.
        window: Tokens of prompt and answer together.
        max_tokens: Of these, kept free for the answer.
        on_busy: What becomes of a message whose conversation waits for an answer already: it waits
            (`"queue"`), cancels the answer under way (`"replace"`), or is refused (`"reject"`).
        queue: How many messages of one conversation may wait.
        summarise: Makes a summary of turns that are left out, which then stands for them.

    Attributes:
        turns: Who is being answered.

    Raises:
        ConfigError: The answer leaves no room for a prompt; there is no such behaviour.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        system: str | None = None,
        window: int = WINDOW,
        max_tokens: int = MAX_TOKENS,
        on_busy: OnBusy = "queue",
        queue: int = QUEUED,
        summarise: Summarise | None = None,
    ) -> None:
        self._budget = window - max_tokens - int(window * RESERVE)
        if self._budget <= 0:
            raise ConfigError(f"window: expected more than max_tokens ({max_tokens}), got {window}")
        self.turns: Turns = Turns(on_busy, queue=queue)
        self._store = store
        self._system = system
        self._summarise = summarise
        self._correction = PromptCorrection()

    @asynccontextmanager
    async def turn(
        self, key: Key, content: Content, *, model: str | None = None
    ) -> AsyncIterator[Turn]:
        """One message and its answer. Nothing is stored unless the block ends well.

        Args:
            key: Whose conversation it is.
            content: What the user says: text, or parts.
            model: Who will be asked, since models count differently; `None` where it is always the
                same one.

        Raises:
            ConfigError: It says nothing.
            MessageTooLongError: It does not fit even without any history; nothing was asked.
            BusyError: There is an answer under way, and no waiting for it.
            StoppedError: The answer was stopped, or is not wanted any more.
        """
        if not content or (isinstance(content, str) and content.isspace()):
            raise ConfigError(
                f"content: expected text or parts, got {content!r}; leave out such messages"
            )
        async with self.turns.one(_text(key)):
            turn = Turn(self, new := user(content), model)
            fixed = [*self._instructions(), new]
            ratio = min(max(self._correction.ratio(model), LEAST_RATIO), MOST_RATIO)
            history = await self._load(key)
            await turn._use(
                *trim(
                    history, fixed, self._budget, lambda said: ceil(estimate_prompt(said) * ratio)
                )
            )
            yield turn
            if turn._committed is not None:
                await self._save(key, turn._committed)

    def stop(self, key: Key) -> bool:
        """Stop the answer under way; say whether there was one."""
        return self.turns.stop(_text(key))

    async def reset(self, key: Key) -> None:
        """Forget a conversation."""
        if self._store is not None:
            await self._store.delete(_text(key))

    async def export(self, key: Key) -> list[Message]:
        """All that is remembered of a conversation."""
        return messages_of(await self._load(key))

    async def pin(self, key: Key) -> None:
        """Keep the newest turn of a conversation whatever else is left out."""
        if turns := await self._load(key):
            turns[-1]["pinned"] = True
            await self._save(key, turns)

    async def _load(self, key: Key) -> list[StoredTurn]:
        text = None if self._store is None else await self._store.load(_text(key))
        turns: list[StoredTurn] = json.loads(text or "[]")
        return turns

    async def _save(self, key: Key, turns: list[StoredTurn]) -> None:
        if self._store is not None:
            await self._store.save(_text(key), json.dumps(turns, ensure_ascii=False))

    def _instructions(self, *summaries: str) -> list[Message]:
        text = "\n\n".join(part for part in (self._system, *summaries) if part)
        return [system(text)] if text else []

    async def _summary_of(self, turns: list[StoredTurn]) -> str | None:
        if self._summarise is None:
            return None
        try:
            return await self._summarise(messages_of(turns))
        except ErnieError:
            logger.warning("no summary of older messages could be made", exc_info=True)
            return None


def _text(key: Key) -> str:
    return key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)


def _remembered(message: Message) -> Message:
    """A message as it is stored: pictures would be paid for again with every turn."""
    if message.content is None or isinstance(message.content, str):
        return message
    texts = [part.text if isinstance(part, TextPart) else IMAGE_MARK for part in message.content]
    return user("\n".join(texts))
