"""Files of a Slack workspace: whoever asks for one shows the bot's token."""

from typing import Any
from urllib.parse import urlsplit

from aiohttp import ClientSession, ClientTimeout

from ernie_async.bots.transport import PlatformError

__all__ = ["download"]

SECONDS = 30


async def download(client: Any, address: str) -> bytes:
    """Fetch a file from Slack. No other host is shown the token, not even by a redirection.

    Args:
        client: Of the SDK. The host of its Web API, and those below that one, are Slack's.
        address: Of the file, as an event tells it.

    Raises:
        PlatformError: It is not one of Slack's files, or Slack does not hand it out.
    """
    slack, there = urlsplit(client.base_url), urlsplit(address)
    if there.scheme != slack.scheme or not f".{there.hostname}".endswith(f".{slack.hostname}"):
        raise PlatformError(f"not a file of {slack.hostname}: {address}")
    headers = {"Authorization": f"Bearer {client.token}"}
    async with (
        ClientSession(headers=headers, timeout=ClientTimeout(total=SECONDS)) as session,
        session.get(address, proxy=client.proxy, allow_redirects=False) as answer,
    ):
        if answer.status != 200:
            raise PlatformError(f"status {answer.status} for {address}")
        return await answer.read()
