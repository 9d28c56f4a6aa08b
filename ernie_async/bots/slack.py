"""Answer in Slack with slack-bolt (extra `slack`)."""

from collections.abc import Sequence
from typing import Any

from aiohttp import ClientError

from ernie_async.bots import transport as to
from ernie_async.bots.platforms import Platform, platform
from ernie_async.bots.slack_files import download

try:
    from slack_sdk.errors import SlackApiError
    from slack_sdk.web.async_client import AsyncWebClient
except ImportError as error:
    raise ImportError("this needs slack-bolt: pip install 'ernie-async[slack]'") from error

__all__ = ["SlackTransport"]

# Words of the Web API's answers; docs.slack.dev/reference/methods
GONE = {"message_not_found", "cant_update_message", "edit_window_closed", "msg_too_long"}
GONE |= {"message_not_in_streaming_state", "streaming_state_conflict"}
PASSING = {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}


class SlackTransport(to.Transport):
    """The thread of a message, which a message grows in by Slack's own streaming calls."""

    def __init__(self, client: AsyncWebClient, event: Any, limits: Platform | None = None) -> None:
        self._client, self._event = client, event
        self._thread = {"thread_ts": event.get("thread_ts") or event["ts"]}
        self.caps = to.Caps(
            platform=limits or platform("slack"),
            chat=event["channel"],
            modes=("append", "edit", "sentence", "final"),
            is_private=event.get("channel_type") == "im",
            markup="always",
        )

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        return await self._call("chat_postMessage", markdown_text=text, **self._thread)

    async def begin(self, text: str, *, reply_to: Any = None) -> Any:
        team, user = self._event.get("team"), self._event["user"]
        asker = {"recipient_team_id": team, "recipient_user_id": user}
        return await self._call("chat_startStream", markdown_text=text, **self._thread, **asker)

    async def append(self, handle: Any, text: str) -> None:
        await self._call("chat_appendStream", ts=handle, markdown_text=text)

    async def finish(self, handle: Any, text: str) -> None:
        await self._call("chat_stopStream", ts=handle)

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        await self._call("chat_update", ts=handle, markdown_text=text)

    async def delete(self, handle: Any) -> None:
        await self._call("chat_delete", ts=handle)

    async def _call(self, method: str, **arguments: Any) -> Any:
        return (await getattr(self._client, method)(channel=self.caps.chat, **arguments)).get("ts")

    async def images(self) -> Sequence[bytes]:
        """The pictures that are attached to the message."""
        files = [f for f in self._event.get("files", ()) if f["mimetype"].startswith("image/")]
        return [await download(self._client, file["url_private"]) for file in files]

    def refusal(self, error: Exception) -> Exception | None:
        """What an error of the SDK means."""
        if isinstance(error, ClientError | OSError):
            return to.PlatformError(f"no connection: {error}")
        if not isinstance(error, SlackApiError):
            return error
        status, word = error.response.status_code, error.response["error"]
        if status == 429:
            return to.FloodError(word, retry_after=float(error.response.headers["Retry-After"]))
        if status >= 500 or word in PASSING:
            return to.PlatformError(word)
        return to.MessageGoneError(word) if word in GONE else to.ChatClosedError(word)
