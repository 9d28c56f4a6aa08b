"""aiohttp's errors made into ours.

An error of aiohttp is never chained: it holds the request's headers, the credential among them.
"""

import asyncio
import os
import ssl
import textwrap

import aiohttp

from ernie_async.errors import ConnectError, DeadlineError, ErnieError

__all__ = ["HTTP_ERRORS", "translate"]

# What aiohttp and the loop raise when a connection fails.
HTTP_ERRORS = (aiohttp.ClientError, OSError, asyncio.TimeoutError)


def translate(error: BaseException, *, connect: float | None = None) -> ErnieError:
    """Make an error of aiohttp into ours, free of what must not be seen.

    Only an `OSError` below it is chained, since that holds nothing but its number and text.
    """
    if isinstance(error, asyncio.TimeoutError):
        return DeadlineError(
            f"no connection within {connect:g} s (Timeouts.connect)"
            if connect is not None
            else "the connection timed out",
            clock="connect",
            seconds=connect or 0.0,
        )
    cause = getattr(error, "os_error", error if isinstance(error, OSError) else None)
    match error:
        case aiohttp.ClientProxyConnectionError():
            text = "cannot connect to the proxy"
        case aiohttp.ClientHttpProxyError():
            text = f"the proxy refused with status {error.status}"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            why = getattr(cause, "verify_message", None) or getattr(cause, "reason", None)
            text = f"cannot connect to {error.host}:{error.port}: TLS failed: {why or 'no reason'}"
        case aiohttp.ClientConnectorError():
            text = f"cannot connect to {error.host}:{error.port}"
        case aiohttp.ServerDisconnectedError():
            text = "the server closed the connection without an answer"
        case aiohttp.ClientResponseError():
            # aiohttp repeats what came, however long it is.
            text = f"the answer is not valid HTTP: {textwrap.shorten(error.message, 200)}"
        case aiohttp.ClientPayloadError():
            text = "the answer's body was cut"
        case _:
            text = f"the connection broke ({type(error).__name__})"
    never_sent = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError)
    if not isinstance(cause, OSError) or cause.errno is None or isinstance(cause, ssl.SSLError):
        return ConnectError(text, was_sent=not never_sent)
    # Made anew from its number, since the one at hand may hold more than that.
    reason = os.strerror(cause.errno) if cause.errno > 0 else "host not found"
    failure = ConnectError(f"{text}: {reason}", was_sent=not never_sent)
    failure.__cause__ = OSError(cause.errno, reason)
    return failure
