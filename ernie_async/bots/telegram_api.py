"""What is the same for all frameworks of Telegram: they name the methods of a bot alike.

Source: core.telegram.org/bots/api, and the descriptions that the server sends.
"""

import re
from html import escape
from typing import Any

from ernie_async.bots import transport as to
from ernie_async.bots.markup import CODE, blocks_of
from ernie_async.bots.platforms import Platform, platform

__all__ = ["TelegramChat", "bad_request", "telegram_html"]

# Not an error: the message looks as it should.
NOT_MODIFIED = "message is not modified"

REFUSALS: dict[type[to.PlatformError], str] = {
    to.MarkupError: "can't parse entities",
    to.MessageGoneError: "message to edit not found|message can't be edited|message_id_invalid",
    to.ChatClosedError: "chat not found|user not found|peer_id_invalid|not enough rights"
    "|have no rights|chat_write_forbidden|group chat was|topic_closed",
}

LINK = re.compile(r"!?\[([^\[\]\n]+)\]\((https?://[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)\)")
HTML = [
    (LINK, r'<a href="\2">\1</a>'),
    (re.compile(r"\*\*(?=\S)([^\n]+?)(?<=\S)\*\*"), r"<b>\1</b>"),
    (re.compile(r"(?<![\w*])\*(?=[^\s*])([^*\n]+?)(?<=\S)\*(?![\w*])"), r"<i>\1</i>"),
    (re.compile(r"~~(?=\S)([^\n]+?)(?<=\S)~~"), r"<s>\1</s>"),
    (re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE), r"<b>\1</b>"),
]  # fmt: skip


class TelegramChat(to.Transport):
    """The chat of a message: drafts in private chats, edits in groups.

    Args:
        message: To answer.
        bot: Of the framework.
        reply_parameters: The framework's class for what Telegram calls so.
        limits: Instead of the table's.
    """

    def __init__(
        self, message: Any, bot: Any, reply_parameters: Any, limits: Platform | None
    ) -> None:
        thread = message.message_thread_id if message.is_topic_message else None
        self._place = {"chat_id": message.chat.id, "message_thread_id": thread}
        self._bot = bot
        self._reply_parameters = reply_parameters
        is_private = message.chat.type == "private"
        self.reply_to: Any = None if is_private else message.message_id
        self.caps: to.Caps = to.Caps(
            platform=limits or platform("telegram"),
            chat=message.chat.id,
            modes=("draft", "edit", "sentence", "final"),
            is_private=is_private,
            markup="final",
        )

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        answers: dict[str, Any] = {}
        if reply_to is not None:
            parameters = self._reply_parameters(
                message_id=reply_to, allow_sending_without_reply=True
            )
            answers = {"reply_parameters": parameters}
        sent = await self._bot.send_message(**self._place, **_formatted(text, format), **answers)
        return sent.message_id

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        await self._bot.edit_message_text(
            chat_id=self.caps.chat, message_id=handle, **_formatted(text, format)
        )

    async def draft(self, draft_id: int, text: str) -> None:
        await self._bot.send_message_draft(**self._place, draft_id=draft_id, text=text)

    async def delete(self, handle: Any) -> None:
        await self._bot.delete_message(self.caps.chat, handle)

    async def typing(self) -> None:
        await self._bot.send_chat_action(**self._place, action="typing")


def bad_request(error: Exception, description: str) -> Exception | None:
    """What to raise for a bad request; `None` if it is no error, `error` itself if it is ours."""
    told = description.lower()
    if NOT_MODIFIED in told:
        return None
    for kind, words in REFUSALS.items():
        if re.search(words, told):
            return kind(description)
    return error


def _formatted(text: str, form: to.Format | None) -> dict[str, str | None]:
    if form is None:
        return {"text": text, "parse_mode": None}
    return {"text": telegram_html(text), "parse_mode": "HTML"}


def telegram_html(text: str) -> str:
    """Markdown as the HTML that Telegram's Bot API understands (`parse_mode` HTML)."""
    done, end = [], 0
    for block in blocks_of(text):
        done.append(_prose(text[end : block.start()]))
        code = escape(block["code"].removesuffix("\n"), quote=False)
        if block["language"]:
            code = f'<code class="language-{escape(block["language"])}">{code}</code>'
        done.append(f"<pre>{code}</pre>")
        end = block.end()
    return "".join([*done, _prose(text[end:])])


def _prose(text: str) -> str:
    done, end = [], 0
    for found in CODE.finditer(text):
        done.append(_emphasis(text[end : found.start()]))
        done.append(f"<code>{escape(found[2], quote=False)}</code>")
        end = found.end()
    return "".join([*done, _emphasis(text[end:])])


def _emphasis(text: str) -> str:
    text = escape(text)
    for pattern, html in HTML:
        text = pattern.sub(html, text)
    return text
