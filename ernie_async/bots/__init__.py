"""The code that every bot needs: streaming into chats, splitting, memory, limits.

    responder = ChatResponder(client, memory=MemoryStore(ttl="30m"), system="你是一个助手。")
    await responder.reply(transport, user=user_id, text=text)

No bot framework is known here. The adapters `aiogram`, `discord`, `nonebot`, `slack` and `telegram`
beside this file are each imported by their own name, and so are `memory_redis` and `limits_redis`.
"""

from ernie_async.bots.history import MessageTooLongError
from ernie_async.bots.limits import AnyUserLimiter, UserLimiter, Verdict
from ernie_async.bots.memory import Memory, Store, Turn
from ernie_async.bots.pace import Traffic
from ernie_async.bots.platforms import Platform, platform
from ernie_async.bots.responder import ChatResponder
from ernie_async.bots.sender import StreamSender
from ernie_async.bots.splitter import Part, Splitter, split_message
from ernie_async.bots.stores import MemoryStore, SQLiteStore
from ernie_async.bots.transport import (
    Caps,
    ChatClosedError,
    FloodError,
    MarkupError,
    MessageGoneError,
    PlatformError,
    Transport,
    UndeliveredError,
)
from ernie_async.bots.turns import BusyError, StoppedError
from ernie_async.bots.wording import CHINESE, ENGLISH, Wording

__all__ = [
    "CHINESE",
    "ENGLISH",
    "AnyUserLimiter",
    "BusyError",
    "Caps",
    "ChatClosedError",
    "ChatResponder",
    "FloodError",
    "MarkupError",
    "Memory",
    "MemoryStore",
    "MessageGoneError",
    "MessageTooLongError",
    "Part",
    "Platform",
    "PlatformError",
    "SQLiteStore",
    "Splitter",
    "StoppedError",
    "Store",
    "StreamSender",
    "Traffic",
    "Transport",
    "Turn",
    "UndeliveredError",
    "UserLimiter",
    "Verdict",
    "Wording",
    "platform",
    "split_message",
]
