"""A Telegram bot: streams ERNIE's answers, remembers, looks at photos, stops on /stop.

pip install 'ernie-async[aiogram]'
BOT_TOKEN=... QIANFAN_API_KEY=... python aiogram_bot.py
"""

import asyncio
import logging
import os

from aiogram import Bot, Dispatcher, F, Router
from aiogram.types import Message

from ernie_async import AsyncClient
from ernie_async.bots import ChatResponder, MemoryStore, UndeliveredError, UserLimiter
from ernie_async.bots.aiogram import AiogramTransport

logger = logging.getLogger(__name__)
router = Router()
responder = ChatResponder(
    AsyncClient,  # made at start-up, from the environment
    memory=MemoryStore(ttl="30m"),
    limiter=UserLimiter(messages="20/10m", tokens="200k/1d", group="60/10m"),
    system="你是一个乐于助人的助手。",
    cursor=" ▌",
)


@router.message(F.text | F.photo)
async def on_message(message: Message) -> None:
    if message.from_user is None:
        return
    try:
        await responder.reply(
            AiogramTransport(message),
            user=message.from_user.id,
            chat=message.chat.id,
            text=message.text or message.caption or "",
        )
    except UndeliveredError as error:
        logger.warning("chat %s: %s", message.chat.id, error)


def make_dispatcher() -> Dispatcher:
    dispatcher = Dispatcher()
    dispatcher.include_router(router)
    dispatcher.startup.register(responder.start)
    dispatcher.shutdown.register(responder.aclose)
    return dispatcher


if __name__ == "__main__":
    asyncio.run(make_dispatcher().start_polling(Bot(os.environ["BOT_TOKEN"])))
