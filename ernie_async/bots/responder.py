"""One call for each message of a chat: limits, memory, the model's stream, and its way back.

Knows the client by its verbs and the platform as a `Transport`.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil
from typing import Self

from ernie_async.bots.history import MessageTooLongError
from ernie_async.bots.limits import AnyUserLimiter, UserLimiter
from ernie_async.bots.memory import Content, Key, Memory, Store, Turn
from ernie_async.bots.pace import Traffic
from ernie_async.bots.sender import StreamSender
from ernie_async.bots.transport import Mode, PlatformError, Transport, UndeliveredError
from ernie_async.bots.turns import BusyError, StoppedError
from ernie_async.bots.wording import CHINESE, Wording
from ernie_async.client import AsyncClient
from ernie_async.errors import BadRequestError, BlockedError, ConfigError, ErnieError, LimiterError
from ernie_async.media import image
from ernie_async.settings import ChatOptions
from ernie_async.toolbox import Toolbox, ToolRun
from ernie_async.types.content import TextPart
from ernie_async.types.request import StreamOptions
from ernie_async.types.usage import Usage

__all__ = ["ChatResponder"]

logger: logging.Logger = logging.getLogger("ernie_async")

STOP_WORDS = {"/stop", "停止"}
RESET_WORDS = {"/reset", "/new", "重新开始"}

# For running answers, when the bot shuts down.
CLOSING_SECONDS = 12.0

TOO_LONG_CODES = {"tokens_too_long", "characters_too_long", "336007", "336103"}

COUNTED = StreamOptions(include_usage=True)

PICTURE_QUESTION = "请描述这张图片。"

KeyOf = Callable[[str, str | int, str | int], Key]


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
        key: Makes the key of a conversation of the platform's name, the chat and the user.
        limiter: What users may ask: a `UserLimiter`, or a `RedisUserLimiter` for all processes.
        system: Instructions for the model; not with a `Memory`, which has its own.
        tools: Functions that the model may call.
        options: For every request, such as `ChatOptions(model="ernie-5.1", temperature=0.5)`. The
            service is asked for the usage of a stream, unless `stream_options` are among them.
        mode: How answers are shown, instead of the best that a transport can do.
        cursor: Shown behind unfinished text.
        wording: What the bot says itself.

    Raises:
        ConfigError: `system` is given twice.
    """

    def __init__(
        self,
        client: AsyncClient | Callable[[], AsyncClient],
        *,
        memory: Memory | Store | None = None,
        key: KeyOf = lambda platform, chat, user: (platform, chat, user),
        limiter: AnyUserLimiter | None = None,
        system: str | None = None,
        tools: Toolbox | None = None,
        options: ChatOptions | None = None,
        mode: Mode | None = None,
        cursor: str = "",
        wording: Wording = CHINESE,
    ) -> None:
        if not isinstance(memory, Memory):
            memory = Memory(memory, system=system)
        elif system is not None:
            raise ConfigError("system: this Memory has its own; give it there")
        self.memory = memory
        self._client = client if isinstance(client, AsyncClient) else None
        self._make_client = None if isinstance(client, AsyncClient) else client
        self._own_client: AsyncClient | None = None
        self._key = key
        self._limiter = UserLimiter() if limiter is None else limiter
        self._tools = Toolbox() if tools is None else tools
        # Users are charged, and estimates learn, by what the service counted.
        self._options: ChatOptions = {"stream_options": COUNTED, **(options or {})}
        self._mode: Mode | None = mode
        self._cursor = cursor
        self._wording = wording
        self._traffic = Traffic()

    async def start(self) -> None:
        """Make the client, if that was left to us. A missing key is a warning."""
        make, self._make_client = self._make_client, None
        if make is not None:
            try:
                self._client = self._own_client = make()
            except ConfigError as error:
                logger.warning("the bot cannot answer: %s", error)

    async def aclose(self) -> None:
        """Stop all answers, deliver their last state (for up to 10 s), close what we opened."""
        await self.memory.turns.shut(CLOSING_SECONDS)
        if self._own_client is not None:
            await self._own_client.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def reply(
        self,
        transport: Transport,
        *,
        user: str | int,
        text: str,
        chat: str | int | None = None,
        images: Sequence[bytes | str] | None = None,
    ) -> str | None:
        """Answer one message; return when the answer is delivered.

        Args:
            transport: Where the message came from.
            user: Who asks.
            text: What.
            chat: Where, or in which thread, for the memory and the limits of a group; `None` for
                what the transport says.
            images: Pictures to look at; `None` to ask the transport for those of the message.

        Returns:
            The model's answer; `None` if there is none: a word of command, a limit, a failure that
            the user was told of, an answer that was stopped, a message with neither text nor
            picture, such as a sticker.

        Raises:
            UndeliveredError: The platform did not take it, or not all of it.
        """
        await self.start()
        caps = transport.caps
        chat = caps.chat if chat is None else chat
        key = self._key(caps.platform.name, chat, user)
        text = text.strip()
        word = text.partition("@")[0] if text.startswith("/") else text  # /stop@my_bot, in groups
        if word in STOP_WORDS:
            if not self.memory.stop(key):
                await self._say(transport, self._wording.nothing_to_stop)
        elif word in RESET_WORDS:
            self.memory.stop(key)
            await self.memory.reset(key)
            await self._say(transport, self._wording.forgotten)
        elif self._client is None:
            await self._say(transport, self._wording.no_key)
        elif await self._may_ask(transport, user, None if caps.is_private else chat):
            return await self._converse(transport, key, user, text, images)
        return None

    async def _may_ask(
        self, transport: Transport, user: str | int, group: str | int | None
    ) -> bool:
        """Whether a message may be answered; if not, the user is told."""
        try:
            verdict = await self._limiter.check(user, group)
        except LimiterError as error:
            logger.warning("a message is not answered: %s", error)
            await self._say(transport, self._wording.failed.format(request_id="-"))
            return False
        if not verdict.allowed:
            seconds = ceil(verdict.retry_after)
            await self._say(transport, self._wording.limited.format(seconds=seconds))
        return verdict.allowed

    async def _converse(
        self,
        transport: Transport,
        key: Key,
        user: str | int,
        text: str,
        images: Sequence[bytes | str] | None,
    ) -> str | None:
        assert self._client is not None
        model = self._options.get("model") or self._client.model
        spent: list[Usage] = []  # also of answers that are stopped or fail
        try:
            content = await self._content(transport, text, images)
            if content is None:
                return None
            async with self.memory.turn(key, content, model=model) as turn:
                async with self._sender(transport) as sender:
                    run = await self._answer(turn, sender, spent)
                if run is not None:
                    # The name that was asked for is the one that is known before the next turn.
                    turn.commit(
                        run.messages[len(turn.messages) :],
                        usage=run.usage if run.rounds == 1 else None,
                        model=run.answer.model if run.answer.fell_back_from else model,
                    )
                    return run.text
        except MessageTooLongError:
            await self._say(transport, self._wording.too_long)
        except BusyError:
            await self._say(transport, self._wording.busy)
        except StoppedError as error:
            logger.debug("%s", error)
        finally:
            self._limiter.charge(user, sum(usage.total_tokens for usage in spent))
        return None

    async def _content(
        self, transport: Transport, text: str, images: Sequence[bytes | str] | None
    ) -> Content | None:
        """What the user says; `None` if that is nothing, or cannot be seen, which is told."""
        try:
            if images is None:
                images = await transport.attempt(transport.images())
            parts = [await image(source) for source in images or ()]
        except (ConfigError, PlatformError) as error:
            logger.warning("a picture cannot be shown to the model: %s", error)
            await self._say(transport, self._wording.bad_picture)
            return None
        return [*parts, TextPart(text=text or PICTURE_QUESTION)] if parts else text or None

    def _sender(self, transport: Transport) -> StreamSender:
        return StreamSender(
            transport,
            traffic=self._traffic,
            mode=self._mode,
            cursor=self._cursor,
            notice=self._wording.failed.format(request_id="-"),
        )

    async def _answer(self, turn: Turn, sender: StreamSender, spent: list[Usage]) -> ToolRun | None:
        """Have the answer written; `None` if it failed, and the user is told."""
        try:
            try:
                return await self._stream(turn, sender, spent)
            except BadRequestError as error:
                if error.code not in TOO_LONG_CODES or not await turn.shorten():
                    raise
                run = await self._stream(turn, sender, spent)
                sender.add(self._wording.left_out)
                return run
        except UndeliveredError:
            raise
        except asyncio.CancelledError:
            with suppress(UndeliveredError):
                sender.add(self._wording.stopped)
            raise
        except BlockedError as error:
            logger.warning("an answer was blocked: %s", error)
            (sender.set if error.is_retracted else sender.add)(self._wording.blocked)
        except ErnieError as error:
            logger.warning("an answer failed: %s", error)
            sender.add(self._wording.failed.format(request_id=error.request_id or "-"))
        return None

    async def _stream(self, turn: Turn, sender: StreamSender, spent: list[Usage]) -> ToolRun:
        assert self._client is not None
        rounds = self._tools.stream(self._client, turn.messages, **self._options)
        try:
            async with rounds:
                async for chunk in rounds:
                    sender.push(chunk.text)
                run = await rounds.final()
        finally:
            spent += [rounds.usage] if rounds.usage else []
        if not run.text:
            raise ErnieError("the model has said nothing")
        return run

    async def _say(self, transport: Transport, text: str) -> None:
        """A sentence of the bot's own."""
        async with StreamSender(transport, traffic=self._traffic, mode="final") as sender:
            sender.push(text)
