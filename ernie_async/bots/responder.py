"""One call for each message of a chat: limits, memory, the model's stream, and its way back.

Knows the client by its verbs and the platform as a `Transport`.
"""

import asyncio
import logging
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from math import ceil
from types import TracebackType
from typing import NamedTuple, Self

from ernie_async.bots.limits import UserLimiter
from ernie_async.bots.memory import Content, Key, Memory, Store, Turn
from ernie_async.bots.sender import StreamSender
from ernie_async.bots.traffic import Traffic
from ernie_async.bots.transport import Mode, PlatformError, Transport, UndeliveredError
from ernie_async.bots.trim import MessageTooLongError
from ernie_async.bots.turns import BusyError, StoppedError
from ernie_async.bots.wording import CHINESE, Wording
from ernie_async.client import AsyncClient
from ernie_async.errors import BadRequestError, BlockedError, ConfigError, ErnieError
from ernie_async.media import image
from ernie_async.settings import ChatOptions
from ernie_async.toolbox import Toolbox
from ernie_async.types.content import TextPart
from ernie_async.types.messages import Message, assistant
from ernie_async.types.usage import Usage

__all__ = ["ChatResponder"]

logger: logging.Logger = logging.getLogger("ernie_async")

STOP_WORDS = frozenset({"/stop", "停止"})
RESET_WORDS = frozenset({"/reset", "/new", "重新开始"})

# For running answers, when the bot shuts down.
CLOSING_SECONDS = 12.0

TOO_LONG_CODES = frozenset({"tokens_too_long", "characters_too_long", "336007", "336103"})

PICTURE_QUESTION = "请描述这张图片。"


class _Said(NamedTuple):
    """What the model answered: its text, all messages, and the usage if it was one request."""

    text: str
    messages: list[Message]
    usage: Usage | None


class ChatResponder:
    """Answers messages of a chat. Serves any number of chats, in one event loop.

    ```python
    responder = ChatResponder(client, memory=MemoryStore(ttl="30m"), system="你是一个助手。")
    await responder.reply(transport, user=user_id, text=text)
    ```

    Args:
        client: Whom to ask. A function makes one at `start`, and `aclose` closes it; a missing key
            is then one warning, and a friendly sentence for whoever asks.
        memory: A store, or a `Memory` with settings of its own; `None` to remember nothing.
        limiter: What users may ask.
        system: Instructions for the model; not with a `Memory`, which has its own.
        tools: Functions that the model may call.
        options: For every request, such as `ChatOptions(model="ernie-5.1", temperature=0.5)`.
        mode: How answers are shown, instead of the best that a transport can do.
        cursor: Shown behind unfinished text.
        wording: What the bot says itself.
        stop_words: Messages that stop the answer under way.
        reset_words: Messages that make the bot forget the conversation.

    Raises:
        ConfigError: `system` is given twice.
    """

    def __init__(
        self,
        client: AsyncClient | Callable[[], AsyncClient],
        *,
        memory: Memory | Store | None = None,
        limiter: UserLimiter | None = None,
        system: str | None = None,
        tools: Toolbox | None = None,
        options: ChatOptions | None = None,
        mode: Mode | None = None,
        cursor: str = "",
        wording: Wording = CHINESE,
        stop_words: frozenset[str] = STOP_WORDS,
        reset_words: frozenset[str] = RESET_WORDS,
    ) -> None:
        if isinstance(memory, Memory):
            if system is not None:
                raise ConfigError("system: this Memory has its own; give it there")
            self.memory: Memory = memory
        else:
            self.memory = Memory(memory, system=system)
        self._make_client = client if not isinstance(client, AsyncClient) else None
        self._client = client if isinstance(client, AsyncClient) else None
        self._limiter = limiter
        self._tools = tools
        self._options: ChatOptions = options or {}
        self._mode: Mode | None = mode
        self._cursor = cursor
        self._wording = wording
        self._stop_words = stop_words
        self._reset_words = reset_words
        self._traffic = Traffic()
        self._has_warned = False

    async def start(self) -> None:
        """Make the client, if that was left to us. A missing key is a warning."""
        if self._client is None and self._make_client is not None:
            try:
                self._client = self._make_client()
            except ConfigError as error:
                if not self._has_warned:
                    logger.warning("the bot cannot answer: %s", error)
                self._has_warned = True

    async def aclose(self) -> None:
        """Stop all answers, deliver their last state (for up to 10 s), close what we opened."""
        await self.memory.turns.shut(CLOSING_SECONDS)
        if self._make_client is not None and self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def reply(
        self,
        transport: Transport,
        *,
        user: str | int,
        text: str,
        chat: str | int | None = None,
        key: Key | None = None,
        images: Sequence[bytes | str] | None = None,
    ) -> str | None:
        """Answer one message; return when the answer is delivered.

        Args:
            transport: Where the message came from.
            user: Who asks.
            text: What.
            chat: Where, for the memory and the limits of a group; `None` for what the transport
                says.
            key: Of the conversation; `None` for platform, chat and user.
            images: Pictures to look at; `None` to ask the transport for those of the message.

        Returns:
            The model's answer; `None` if there is none: a word of command, a limit, a failure that
            the user was told of, an answer that was stopped.

        Raises:
            UndeliveredError: The platform did not take it, or not all of it.
        """
        caps = transport.caps
        chat = caps.chat if chat is None else chat
        key = (caps.platform.name, chat, user) if key is None else key
        told = text.strip()
        word = told.partition("@")[0] if told.startswith("/") else told  # /stop@my_bot, in groups
        if word in self._stop_words:
            if not self.memory.stop(key):
                await self._say(transport, self._wording.nothing_to_stop)
            return None
        if word in self._reset_words:
            self.memory.stop(key)
            await self.memory.reset(key)
            await self._say(transport, self._wording.forgotten)
            return None
        await self.start()
        if self._client is None:
            await self._say(transport, self._wording.no_key)
            return None
        group = None if caps.is_private else chat
        if not await self._is_allowed(transport, user, group):
            return None
        spent: list[int] = []  # tokens, also those of an answer that is stopped or fails
        try:
            content = await self._content(transport, told, images)
            async with self.memory.turn(key, content) as turn:
                async with self._sender(transport) as sender:
                    said = await self._answer(self._client, turn, sender, spent)
                    await sender.finish()
                if said is not None:
                    turn.commit(said.messages, usage=said.usage)
                    return said.text
        except MessageTooLongError:
            await self._say(transport, self._wording.too_long)
        except BusyError:
            await self._say(transport, self._wording.busy)
        except StoppedError as error:
            logger.debug("an answer was %s", error.reason)
        except (ConfigError, PlatformError) as error:
            logger.warning("a picture cannot be shown to the model: %s", error)
            await self._say(transport, self._wording.bad_picture)
        finally:
            if self._limiter is not None:
                self._limiter.charge(user, sum(spent))
        return None

    async def _is_allowed(self, transport: Transport, user: Hashable, group: Hashable) -> bool:
        if self._limiter is None:
            return True
        verdict = self._limiter.check(user, group)
        if not verdict.allowed:
            seconds = ceil(verdict.retry_after)
            await self._say(transport, self._wording.limited.format(seconds=seconds))
        return verdict.allowed

    async def _content(
        self, transport: Transport, text: str, images: Sequence[bytes | str] | None
    ) -> Content:
        sources = await transport.images() if images is None else images
        if not sources:
            return text
        parts = [await image(source) for source in sources]
        return [*parts, TextPart(text=text or PICTURE_QUESTION)]

    def _sender(self, transport: Transport) -> StreamSender:
        return StreamSender(
            transport,
            traffic=self._traffic,
            mode=self._mode,
            cursor=self._cursor,
            notice=self._wording.failed.format(request_id="-"),
        )

    async def _answer(
        self, client: AsyncClient, turn: Turn, sender: StreamSender, spent: list[int]
    ) -> _Said | None:
        """Have the answer written; `None` if it failed, and the user is told."""
        try:
            try:
                return await self._stream(client, turn, sender, spent)
            except BadRequestError as error:
                if error.code not in TOO_LONG_CODES or not await turn.shorten():
                    raise
                said = await self._stream(client, turn, sender, spent)
                sender.add(self._wording.left_out)
                return said
        except UndeliveredError:
            raise
        except asyncio.CancelledError:
            with suppress(UndeliveredError):
                sender.add(self._wording.stopped)
            raise
        except BlockedError as error:
            logger.warning("an answer was blocked: %s", error)
            if error.is_retracted:
                sender.set(self._wording.blocked)
            else:
                sender.add(self._wording.blocked)
        except ErnieError as error:
            logger.warning("an answer failed: %s", error)
            sender.add(self._wording.failed.format(request_id=error.request_id or "-"))
        return None

    async def _stream(
        self, client: AsyncClient, turn: Turn, sender: StreamSender, spent: list[int]
    ) -> _Said:
        if self._tools is not None:
            async with self._tools.stream(client, turn.messages, **self._options) as rounds:
                async for chunk in rounds:
                    sender.push(chunk.text)
                run = await rounds.final()
            spent.append(run.usage.total_tokens)
            usage = run.usage if run.rounds == 1 else None
            said = _Said(run.text, run.messages[len(turn.messages) :], usage)
        else:
            stream = client.stream(turn.messages, **self._options)
            try:
                async with stream:
                    async for chunk in stream:
                        sender.push(chunk.text)
                    answer = await stream.final()
            finally:
                spent.append(0 if stream.usage is None else stream.usage.total_tokens)
            said = _Said(answer.text, [], answer.usage)
        if not said.text:
            raise ErnieError("the model has said nothing")
        return said if said.messages else said._replace(messages=[assistant(said.text)])

    async def _say(self, transport: Transport, text: str) -> None:
        """A sentence of the bot's own."""
        async with StreamSender(transport, traffic=self._traffic, mode="final") as sender:
            sender.push(text)
            await sender.finish()
