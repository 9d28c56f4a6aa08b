"""Short-lived tokens: fetched when they are needed, one request at a time, ahead of their end.

When to ask is decided in `sansio.iam`; here it is only waited for. Not a task of any caller: a
caller that is cancelled leaves the others what they wait for, and the last one ends it. While the
old token is good, nobody waits for the new one.
"""

import asyncio
import copy
from datetime import UTC, datetime
from random import Random
from time import monotonic, time

from ernie_async.errors import ConnectError, DeadlineError, ErnieError
from ernie_async.net.body import read_body
from ernie_async.net.transport import Transport
from ernie_async.sansio.auth import IamKeys, MaskedStr
from ernie_async.sansio.iam import BearerToken, read_token, token_request

__all__ = ["IamTokens"]

# For the whole of one request for a token, which takes a tenth of a second.
FETCH_SECONDS = 30.0

# After a failed renewal of a token that is still good.
PAUSE_SECONDS = 30.0

_chance = Random()


class _Fetch:
    """A request for a token under way, and how many wait for it."""

    __slots__ = ("n_waiting", "task")

    def __init__(self, task: "asyncio.Task[BearerToken | ErnieError]") -> None:
        self.task = task
        self.n_waiting = 0


class IamTokens:
    """The tokens of one key pair. Serves one client, in as many loops as use it.

    The token is shared by all loops; each loop has at most one request for it under way.

    Args:
        keys: What they are made with.
        transport: To the IAM service; closed by `aclose`.
    """

    def __init__(self, keys: IamKeys, transport: Transport) -> None:
        self.keys = keys
        self._transport = transport
        self._token: BearerToken | None = None
        self._fetches: dict[asyncio.AbstractEventLoop, _Fetch] = {}
        self._not_before = 0.0  # no renewal of a good token

    async def header(self, *, connect: float | None) -> MaskedStr:
        """The value of the `Authorization` header, waiting for a token if there is none.

        A token that nears its end is renewed meanwhile; all calls go on with it.

        Args:
            connect: Seconds to connect to the IAM service.

        Raises:
            ErnieError: There is no token.
        """
        token, now = self._token, monotonic()
        if token is None or now >= token.ends_at:
            token = await self._fetched(connect)
        elif (
            now >= max(token.renew_at, self._not_before)
            and asyncio.get_running_loop() not in self._fetches
        ):
            self._not_before = now + PAUSE_SECONDS
            self._begin(asyncio.get_running_loop(), connect)
        return token.header()

    def forget(self, header: MaskedStr) -> None:
        """Send this token no more: it was refused. Does nothing if there is another by now."""
        if self._token is not None and self._token.header() == header:
            self._token = None

    async def _fetched(self, connect: float | None) -> BearerToken:
        loop = asyncio.get_running_loop()
        fetch = self._fetches.get(loop) or self._begin(loop, connect)
        fetch.n_waiting += 1
        try:
            await asyncio.wait((fetch.task,))
        finally:
            fetch.n_waiting -= 1
            if not fetch.n_waiting:
                self._end(loop, fetch)
        if fetch.task.cancelled():  # by `aclose`, which is no cancellation of whoever waits
            raise ConnectError(
                "no token from the IAM service: the client was closed", was_sent=False
            )
        told = fetch.task.result()
        if isinstance(told, BearerToken):
            return told
        raise copy.copy(told)  # each waiter notes its own attempts on its own error

    def _begin(self, loop: asyncio.AbstractEventLoop, connect: float | None) -> _Fetch:
        fetch = self._fetches[loop] = _Fetch(loop.create_task(self._fetch(connect)))
        fetch.task.add_done_callback(lambda _: self._end(loop, fetch))
        return fetch

    def _end(self, loop: asyncio.AbstractEventLoop, fetch: _Fetch) -> None:
        fetch.task.cancel()  # does nothing if it is over
        if self._fetches.get(loop) is fetch:
            del self._fetches[loop]

    async def _fetch(self, connect: float | None) -> BearerToken | ErnieError:
        """Ask once. An error is returned, since a task must not keep one that nobody asks for."""
        began = monotonic()
        asked = token_request(self.keys, utc_now=datetime.now(UTC))
        failure: ErnieError
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                reply = await self._transport.open(
                    "GET", asked.path, body=None, headers=asked.headers, connect=connect
                )
                token = read_token(
                    reply.status,
                    reply.headers,
                    await read_body(reply),
                    now=began,
                    utc_now=time(),
                    chance=_chance,
                )
                self._token, self._not_before = token, 0.0
                return token
        except ConnectError as error:
            # What the caller wanted was not sent, whatever became of the request for a token.
            failure = ConnectError(f"no token from the IAM service: {error.message}")
            failure.was_sent = False
            failure.__cause__ = error.__cause__
        except ErnieError as error:
            failure = error
        except TimeoutError:
            failure = DeadlineError(
                f"no token from the IAM service within {FETCH_SECONDS:g} s",
                clock="connect",
                seconds=FETCH_SECONDS,
            )
        return failure.with_traceback(None)

    async def aclose(self) -> None:
        """Close the running loop's connections to the IAM service."""
        fetch = self._fetches.pop(asyncio.get_running_loop(), None)
        if fetch is not None:
            fetch.task.cancel()
            await asyncio.wait([fetch.task])
        await self._transport.aclose()

    def __repr__(self) -> str:
        return repr(self.keys)
