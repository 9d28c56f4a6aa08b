"""A plugin for nonebot2: talk to ERNIE by mentioning the bot.

Put this file into your plugin folder; `ernie_chat_api_key` in `.env` is the key, else the
environment variable `QIANFAN_API_KEY` is.
"""

from nonebot import get_driver, get_plugin_config, on_message
from nonebot.adapters import Bot, Event
from nonebot.plugin import PluginMetadata
from nonebot.rule import to_me
from pydantic import BaseModel

from ernie_async import AsyncClient
from ernie_async.bots import ChatResponder, MemoryStore, UndeliveredError, UserLimiter
from ernie_async.bots.nonebot import NonebotTransport


class Config(BaseModel):
    """Settings, all with this prefix."""

    ernie_chat_api_key: str | None = None
    ernie_chat_model: str | None = None
    ernie_chat_system: str = "你是一个乐于助人的助手。"
    ernie_chat_messages: str = "20/10m"


__plugin_meta__ = PluginMetadata(
    name="文心一言",
    description="和文心一言聊天",
    usage="@机器人 加上你的问题；/stop 停止回答，/reset 重新开始",
    type="application",
    config=Config,
)

config = get_plugin_config(Config)
responder = ChatResponder(
    # Made at start-up: without a key there is one warning then, and a friendly answer later.
    lambda: AsyncClient(config.ernie_chat_api_key, model=config.ernie_chat_model),
    memory=MemoryStore(ttl="30m"),
    limiter=UserLimiter(messages=config.ernie_chat_messages, group="60/10m"),
    system=config.ernie_chat_system,
)
driver = get_driver()
driver.on_startup(responder.start)
driver.on_shutdown(responder.aclose)

chat = on_message(rule=to_me(), priority=98, block=True)


@chat.handle()
async def _(bot: Bot, event: Event) -> None:
    user, text = event.get_user_id(), event.get_plaintext()
    try:
        await responder.reply(NonebotTransport(bot, event), user=user, text=text)
    except UndeliveredError as error:
        await chat.finish(f"没有发送成功：{error}"[:100])
