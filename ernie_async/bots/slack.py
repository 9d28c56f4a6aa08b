"""Answer in Slack with slack-bolt (extra `slack`)."""

from typing import Any

from ernie_async.bots import transport as to
from ernie_async.bots.platforms import Platform, platform

try:
    from slack_sdk.errors import SlackApiError
    from slack_sdk.web.async_client import AsyncWebClient
except ImportError as _error:
    raise ImportError("this needs slack-bolt: pip install 'ernie-async[slack]'") from _error

__all__ = ["SlackTransport"]

# Words of the Web API's answers; docs.slack.dev/reference/methods
GONE = {"message_not_found", "cant_update_message", "edit_window_closed", "msg_too_long"}
GONE |= {"message_not_in_streaming_state", "streaming_state_conflict"}
PASSING = {"internal_error", "fatal_error", "service_unavailable", "request_timeout"}


class SlackTransport(to.Transport):
    """The thread of a message, which a message grows in by Slack's own streaming calls."""

    def __init__(self, client: AsyncWebClient, event: Any, limits: Platform | None = None) -> None:
        self._client = client
        self._thread = event.get("thread_ts") or event["ts"]
        self._asker = {"recipient_team_id": event.get("team"), "recipient_user_id": event["user"]}
        self.caps: to.Caps = to.Caps(
            platform=limits or platform("slack"),
            chat=event["channel"],
            modes=("append", "edit", "sentence", "final"),
            is_private=event.get("channel_type") == "im",
            markup="always",
        )

    async def send(self, text: str, *, reply_to: Any = None, format: Any = None) -> Any:
        """Send a message; return its time, which is its name."""
        arguments = {"thread_ts": reply_to or self._thread, "markdown_text": text}
        return await self._call("chat_postMessage", **arguments)

    async def begin(self, text: str, *, reply_to: Any = None) -> Any:
        """Begin a message that grows."""
        arguments = {"thread_ts": reply_to or self._thread, "markdown_text": text}
        return await self._call("chat_startStream", **arguments, **self._asker)

    async def append(self, handle: Any, text: str) -> None:
        """Add to it."""
        await self._call("chat_appendStream", ts=handle, markdown_text=text)

    async def finish(self, handle: Any, text: str) -> None:
        """Close it."""
        await self._call("chat_stopStream", ts=handle)

    async def edit(self, handle: Any, text: str, *, format: Any = None, sequence: int = 0) -> None:
        """Replace a message."""
        await self._call("chat_update", ts=handle, markdown_text=text)

    async def delete(self, handle: Any) -> None:
        """Remove a message."""
        await self._call("chat_delete", ts=handle)

    async def _call(self, method: str, **arguments: Any) -> Any:
        try:
            call = getattr(self._client, method)
            return (await call(channel=self.caps.chat, **arguments)).get("ts")
        except SlackApiError as error:
            raise _refusal(error.response) from error
        except OSError as error:
            raise to.PlatformError(f"no connection: {error}") from error


def _refusal(answer: Any) -> to.PlatformError:
    word = answer.get("error")
    if answer.status_code == 429 or word == "ratelimited":
        return to.FloodError(word, retry_after=float(answer.headers.get("Retry-After", 1)))
    if answer.status_code >= 500 or word in PASSING:
        return to.PlatformError(word)
    return to.MessageGoneError(word) if word in GONE else to.ChatClosedError(word)
