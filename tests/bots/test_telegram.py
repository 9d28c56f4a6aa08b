"""The adapters of Telegram against the real frameworks and a Bot API on loopback."""

import runpy
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bot_servers import FakeTelegram

from ernie_async import AsyncClient
from ernie_async.bots import (
    ChatClosedError,
    ChatResponder,
    FloodError,
    MemoryStore,
    PlatformError,
    UndeliveredError,
    platform,
)
from ernie_async.testing import MockErnie, reply

pytestmark = pytest.mark.anyio

QUICK = replace(platform("telegram"), interval=0.06, group_interval=0.06)
TOKEN = "42:token"
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000010000000100802000000")
ANSWER = "**量子**纠缠：`a < b`。" * 10
SHOWN = "<b>量子</b>纠缠：<code>a &lt; b</code>。" * 10

Tell = Callable[..., Awaitable[Any]]


@pytest.fixture
async def telegram() -> AsyncIterator[FakeTelegram]:
    async with FakeTelegram() as server:
        yield server


def told(text: str | None, kind: str, **more: Any) -> dict[str, Any]:
    sender = {"id": 9, "is_bot": False, "first_name": "u"}
    chat = {"id": -5 if kind == "group" else 9, "type": kind, "title": "x", "first_name": "u"}
    message = {"message_id": 7, "date": 1, "chat": chat, "from": sender, **more}
    return {"update_id": 1, "message": {**message, "text": text} if text else message}


@pytest.fixture(params=["aiogram", "telegram"])
async def tell(
    request: Any, telegram: FakeTelegram, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Tell]:
    """Has a user of a real bot say something; returns what `reply` did."""
    results: list[Any] = []
    responder = ChatResponder(client, memory=MemoryStore())

    async def answer(transport: Any, message: Any, text: str) -> None:
        try:
            sender = message.from_user.id
            results.append(
                await responder.reply(transport, user=sender, chat=message.chat.id, text=text)
            )
        except UndeliveredError as error:
            results.append(error)

    if request.param == "aiogram":
        aiogram = pytest.importorskip("aiogram", reason="aiogram is not installed")
        from aiogram.client.session.aiohttp import AiohttpSession
        from aiogram.client.telegram import TelegramAPIServer
        from aiogram.types import Message, Update

        from ernie_async.bots.aiogram import AiogramTransport

        session = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
        bot = aiogram.Bot(TOKEN, session=session)
        dispatcher = aiogram.Dispatcher()

        @dispatcher.message()
        async def on_message(message: Message) -> None:
            await answer(AiogramTransport(message, limits=QUICK), message, message.text or "")

        async def say(text: str | None, kind: str = "private", **more: Any) -> Any:
            await dispatcher.feed_update(bot, Update.model_validate(told(text, kind, **more)))
            return results.pop()

        yield say
        await session.close()
        return
    library = pytest.importorskip("telegram", reason="python-telegram-bot is not installed")
    from telegram.ext import Application, MessageHandler, filters

    from ernie_async.bots.telegram import TelegramTransport

    # Else the library warns of its own use of its own attribute, and warnings are errors here.
    monkeypatch.setenv("PTB_TIMEDELTA", "1")
    builder = Application.builder().token(TOKEN).updater(None)
    builder = builder.base_url(f"{telegram.url}/bot").base_file_url(f"{telegram.url}/file/bot")
    application = builder.concurrent_updates(True).build()

    async def handle(update: Any, context: Any) -> None:
        message = update.effective_message
        await answer(TelegramTransport(message, limits=QUICK), message, message.text or "")

    application.add_handler(MessageHandler(filters.ALL, handle))

    async def say_ptb(text: str | None, kind: str = "private", **more: Any) -> Any:
        await application.process_update(
            library.Update.de_json(told(text, kind, **more), application.bot)
        )
        return results.pop()

    async with application:
        yield say_ptb


async def test_an_answer_is_streamed_into_edits(
    tell: Tell, telegram: FakeTelegram, server: MockErnie
) -> None:
    telegram.is_private = False
    server.script(reply(ANSWER, chunk_ms=10))
    assert await tell("讲讲", "group") == ANSWER
    assert telegram.n_violations == 0
    assert list(telegram.shown.values()) == [SHOWN]
    (states,) = telegram.states.values()
    assert len(states) > 4
    assert all(ANSWER.startswith(state) for state in states[:-1])
    first = next(arguments for method, arguments in telegram.calls if method == "sendMessage")
    assert '"message_id":7' in str(first["reply_parameters"]).replace(" ", "").replace("'", '"')


async def test_private_chats_see_drafts(
    tell: Tell, telegram: FakeTelegram, server: MockErnie
) -> None:
    server.script(reply(ANSWER, chunk_ms=10))
    assert await tell("讲讲") == ANSWER
    assert telegram.n_violations == 0
    assert len(telegram.drafts) > 4
    assert list(telegram.shown.values()) == [SHOWN]
    assert {"sendMessage", "sendMessageDraft"} <= {method for method, _ in telegram.calls}


async def test_refusals_are_understood(
    tell: Tell, telegram: FakeTelegram, server: MockErnie
) -> None:
    telegram.is_private = False
    server.script(reply("**好**"))
    telegram.faults = [telegram.refuse(400, "Bad Request: can't parse entities: byte 3")]
    assert isinstance(await tell("**你好**", "group"), str)
    assert [a.get("parse_mode") for m, a in telegram.calls if m == "sendMessage"] == ["HTML", None]
    telegram.faults = [telegram.refuse(500, "Internal Server Error")]
    assert isinstance(await tell("又", "group"), str)
    assert telegram.n_violations == 0


@pytest.mark.parametrize(
    ("status", "description", "cause"),
    [
        (403, "Forbidden: bot was blocked by the user", ChatClosedError),
        (400, "Bad Request: chat not found", ChatClosedError),
        (400, "Bad Request: message is too long", Exception),
    ],
)
async def test_what_cannot_be_helped_is_raised(
    tell: Tell, telegram: FakeTelegram, status: int, description: str, cause: type
) -> None:
    telegram.faults = [telegram.refuse(status, description)]
    error = await tell("你好")
    assert isinstance(error, UndeliveredError)
    assert isinstance(error.__cause__, cause)
    assert not isinstance(error.__cause__, FloodError)
    assert isinstance(error.__cause__, PlatformError) == (cause is ChatClosedError)


async def test_a_flood_answer_is_waited_out(tell: Tell, telegram: FakeTelegram) -> None:
    telegram.faults = [telegram.refuse(429, "Too Many Requests: retry after 1", retry_after=1)]
    assert isinstance(await tell("你好", "group"), str)
    assert len(telegram.shown) == 1


async def test_photos_are_shown_to_the_model(
    tell: Tell, telegram: FakeTelegram, server: MockErnie
) -> None:
    telegram.picture = PNG
    photo = {"file_id": "f", "file_unique_id": "u", "width": 16, "height": 16}
    assert await tell(None, photo=[photo, photo])
    parts = server.requests[0].json["messages"][0]["content"]
    assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")


async def test_the_example_is_a_bot(
    telegram: FakeTelegram, server: MockErnie, monkeypatch: pytest.MonkeyPatch
) -> None:
    aiogram = pytest.importorskip("aiogram", reason="aiogram is not installed")
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TelegramAPIServer
    from aiogram.types import Update

    path = Path(__file__).parents[2] / "docs" / "examples" / "aiogram_bot.py"
    assert len(path.read_text("utf-8").splitlines()) < 60
    monkeypatch.setenv("QIANFAN_API_KEY", "k")
    monkeypatch.setenv("QIANFAN_BASE_URL", server.base_url)
    example = runpy.run_path(str(path))
    dispatcher = example["make_dispatcher"]()
    session = AiohttpSession(api=TelegramAPIServer.from_base(telegram.url))
    bot = aiogram.Bot(TOKEN, session=session)
    await dispatcher.emit_startup(bot=bot)
    server.script(reply("你好！" * 20, chunk_ms=20), reply("再见。"))
    for text in ("你好", "再见"):
        await dispatcher.feed_update(bot, Update.model_validate(told(text, "private")))
    await dispatcher.emit_shutdown(bot=bot)
    await session.close()
    assert list(telegram.shown.values()) == ["你好！" * 20, "再见。"]
    assert any(draft.endswith(" ▌") for draft in telegram.drafts)
    assert [m["role"] for m in server.requests[1].json["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
