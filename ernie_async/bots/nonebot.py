"""Answer with nonebot2, on every platform that it has an adapter for (extra `nonebot`)."""

from collections.abc import Sequence
from typing import Any

from ernie_async.bots.platforms import Platform, platform
from ernie_async.bots.transport import Caps, ChatClosedError, PlatformError, Transport

try:
    from nonebot.adapters import Bot, Event
    from nonebot.exception import ActionFailed, ApiNotAvailable, NetworkError
except ImportError as error:
    raise ImportError("this needs nonebot2: pip install 'ernie-async[nonebot]'") from error

__all__ = ["NonebotTransport"]

# Names of adapters, and whose limits apply.
PLATFORMS = {
    "QQ": "qq",
    "Telegram": "telegram",
    "Discord": "discord",
    "Feishu": "feishu",
    "Ding": "dingtalk",
}


class NonebotTransport(Transport):
    """The chat of an event. All adapters can send, so paragraphs come as messages of their own."""

    def __init__(self, bot: Bot, event: Event, *, limits: Platform | None = None) -> None:
        self._bot = bot
        self._event = event
        group = getattr(event, "group_id", None) or getattr(event, "channel_id", None)
        self.caps = Caps(
            platform=limits or platform(PLATFORMS.get(bot.type, "onebot")),
            chat=group or event.get_session_id(),
            modes=("sentence", "final"),
            is_private=group is None,
        )

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        return await self._bot.send(self._event, text.strip("\n"))

    async def images(self) -> Sequence[str]:
        """Addresses of the pictures in the message."""
        pictures = [part for part in self._event.get_message() if part.type == "image"]
        addresses = [str(part.data.get("url")) for part in pictures]
        return [address for address in addresses if address.startswith("http")]  # never a path

    def refusal(self, error: Exception) -> Exception | None:
        """What an error of nonebot2 means."""
        match error:
            case NetworkError():
                return PlatformError(f"no connection: {error!r}")
            case ActionFailed() | ApiNotAvailable():
                return ChatClosedError(f"refused: {error!r}")
        return error
