"""What a bot remembers of its conversations: turns that are stored whole, or not at all.

Knows messages, stores and turns; knows no client and no platform.
"""

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from math import ceil
from typing import Protocol

from ernie_async.bots.trim import StoredTurn, Trimmed, budget_of, messages_of, trim
from ernie_async.bots.turns import OnBusy, Turns
from ernie_async.errors import ConfigError, ErnieError
from ernie_async.sansio.ledger import PromptCorrection
from ernie_async.sansio.tokens import estimate_prompt
from ernie_async.types.content import ContentPart, TextPart
from ernie_async.types.messages import Message, assistant, system, user
from ernie_async.types.usage import Usage

__all__ = ["Key", "Memory", "Store", "Turn", "key_text"]

logger: logging.Logger = logging.getLogger("ernie_async")

# Enough for a long talk. Every token of history is paid for with every message, so this is less
# than what today's models take.
WINDOW = 16_000
MAX_TOKENS = 2_000

# Of the turns, when the service says that the prompt is too long after all.
SHORTENED_BY = 0.25

IMAGE_MARK = "[图片]"

Key = str | int | Sequence[str | int | None]
Content = str | Sequence[ContentPart]
Summarise = Callable[[list[Message]], Awaitable[str]]


def key_text(key: Key) -> str:
    """A key as stores take it."""
    return key if isinstance(key, str) else json.dumps(key, ensure_ascii=False)


class Store(Protocol):
    """Where conversations are kept, each under its key, as JSON."""

    async def load(self, key: str) -> list[StoredTurn]:
        """A conversation; empty if there is none, or if it is too old."""
        ...

    async def save(self, key: str, turns: list[StoredTurn]) -> None:
        """Put a whole conversation in the place of what was there."""

    async def delete(self, key: str) -> None:
        """Forget a conversation."""


class Turn:
    """One message and its answer, while that is being written. Made by `Memory.turn`.

    Attributes:
        messages: What to ask the model.
        is_shortened: Whether the service found the prompt too long; see `shorten`.
    """

    def __init__(self, memory: "Memory", history: list[StoredTurn], new: Message) -> None:
        self._memory = memory
        self._new = new
        self._history = history
        self._dropped: list[StoredTurn] = []
        self.messages: list[Message] = []
        self.is_shortened: bool = False
        self.committed: list[StoredTurn] | None = None

    async def _fit(self) -> None:
        """Take as much of the history as fits."""
        memory = self._memory
        fixed = [*memory.instructions(""), self._new]
        found: Trimmed = trim(self._history, fixed, memory.budget, memory.estimate)
        await self._leave_out(found)

    async def _leave_out(self, found: Trimmed) -> None:
        kept = found.kept
        if found.dropped and (summary := await self._memory.summary_of(found.dropped)):
            kept = [{"messages": [], "summary": summary}, *kept]
        self._history = kept
        told = "\n\n".join(turn["summary"] for turn in kept if "summary" in turn)
        past = [message for turn in kept if "summary" not in turn for message in messages_of(turn)]
        self.messages = [*self._memory.instructions(told), *past, self._new]

    async def shorten(self) -> bool:
        """Leave out a quarter more of the oldest turns; say whether there was one."""
        loose = [turn for turn in self._history if not turn.get("pinned")]
        dropped = loose[: ceil(len(loose) * SHORTENED_BY)]
        gone = set(map(id, dropped))  # turns may be equal
        kept = [turn for turn in self._history if id(turn) not in gone]
        await self._leave_out(Trimmed(kept, dropped))
        self.is_shortened = self.is_shortened or bool(dropped)
        return bool(dropped)

    def commit(self, answer: str | Sequence[Message], *, usage: Usage | None = None) -> None:
        """Say what came of it: it is stored when the block of `Memory.turn` ends without error.

        Args:
            answer: The text, or, with tools, all messages behind the user's.
            usage: Of this one request, if known: later estimates learn from it.
        """
        said = [assistant(answer)] if isinstance(answer, str) else list(answer)
        messages = [_remembered(self._new), *said]
        stored = [message.model_dump(mode="json", exclude_none=True) for message in messages]
        self.committed = [*self._history, {"messages": stored}]
        if usage is not None and not usage.is_estimate:
            self._memory.learn(self.messages, usage)


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
        on_busy: What becomes of a message whose conversation waits for an answer already; see
            `Turns`.
        queue: How many messages of one conversation may wait.
        summarise: Makes a summary of turns that are left out, which then stands for them.

    Raises:
        ConfigError: The answer leaves no room for a prompt.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        system: str | None = None,
        window: int = WINDOW,
        max_tokens: int = MAX_TOKENS,
        on_busy: OnBusy = "queue",
        queue: int = 3,
        summarise: Summarise | None = None,
    ) -> None:
        self.budget: int = budget_of(window, max_tokens)
        if self.budget <= 0:
            raise ConfigError(f"window: expected more than max_tokens ({max_tokens}), got {window}")
        self.turns: Turns = Turns(on_busy, queue=queue)
        self._store = store
        self._system = system
        self._summarise = summarise
        self._correction = PromptCorrection()

    @asynccontextmanager
    async def turn(self, key: Key, content: Content) -> AsyncIterator[Turn]:
        """One message and its answer. Nothing is stored unless the block ends well.

        Args:
            key: Whose conversation it is.
            content: What the user says: text, or parts.

        Raises:
            MessageTooLongError: It does not fit even without any history; nothing was asked.
            BusyError: There is an answer under way, and no waiting for it.
            StoppedError: The answer was stopped, or is not wanted any more.
        """
        name = key_text(key)
        async with self.turns.one(name):
            history = [] if self._store is None else await self._store.load(name)
            turn = Turn(self, history, user(content))
            await turn._fit()
            yield turn
            if turn.committed is not None and self._store is not None:
                await self._store.save(name, turn.committed)

    def stop(self, key: Key) -> bool:
        """Stop the answer under way; say whether there was one."""
        return self.turns.stop(key_text(key))

    async def reset(self, key: Key) -> None:
        """Forget a conversation."""
        if self._store is not None:
            await self._store.delete(key_text(key))

    async def export(self, key: Key) -> list[Message]:
        """All that is remembered of a conversation."""
        turns = [] if self._store is None else await self._store.load(key_text(key))
        return [message for turn in turns for message in messages_of(turn)]

    async def pin(self, key: Key) -> None:
        """Keep the newest turn of a conversation whatever else is left out."""
        name = key_text(key)
        if self._store is not None and (turns := await self._store.load(name)):
            turns[-1]["pinned"] = True
            await self._store.save(name, turns)

    def instructions(self, summary: str) -> list[Message]:
        """The system message, if there is one."""
        text = "\n\n".join(part for part in (self._system, summary) if part)
        return [system(text)] if text else []

    def estimate(self, messages: Sequence[Message]) -> int:
        """Tokens of messages, roughly, corrected by what was learnt."""
        ratio = min(max(self._correction.ratio(""), 0.5), 2.0)
        return ceil(estimate_prompt(messages) * ratio)

    def learn(self, messages: Sequence[Message], usage: Usage) -> None:
        """Compare an estimate with what the service counted."""
        self._correction.note("", estimated=estimate_prompt(messages), real=usage.prompt_tokens)

    async def summary_of(self, turns: list[StoredTurn]) -> str | None:
        """What the hook makes of turns that are left out; `None` if there is no hook."""
        if self._summarise is None:
            return None
        try:
            return await self._summarise([m for turn in turns for m in messages_of(turn)])
        except ErnieError:
            logger.warning("no summary of older messages could be made", exc_info=True)
            return None


def _remembered(message: Message) -> Message:
    """A message as it is stored: pictures would be paid for again with every turn."""
    if message.content is None or isinstance(message.content, str):
        return message
    texts = [part.text if isinstance(part, TextPart) else IMAGE_MARK for part in message.content]
    return user("\n".join(texts))
