"""`ernie-async doctor`: what stands between this machine and an answer, one line for each thing.

Looks in the order in which a call meets the obstacles, so the first failure is the one to mend. No
line holds a secret.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from ernie_async.client import AsyncClient
from ernie_async.errors import AuthError, ConfigError, ErnieError, NotFoundError
from ernie_async.net.transport import Transport
from ernie_async.sansio.address import find_proxy, is_qianfan
from ernie_async.sansio.auth import KEY_PAGE, ApiKey, from_env

__all__ = ["Finding", "examine", "find_credential"]

State = Literal["ok", "warn", "fail"]

# Signatures are refused when the clock is some minutes off; less than this is worth no word.
WARN_SKEW, FAIL_SKEW = 30.0, 300.0

SLOW_SECONDS = 2.0
DNS_SECONDS = 10.0
REACH_SECONDS = 15.0


class Finding(NamedTuple):
    """One thing that was looked at, and what to do about it if it is not well."""

    check: str
    state: State
    text: str
    remedy: str = ""


def find_credential(base_url: str) -> Finding:
    """Which credential would be used, and whether it can be one for this address."""
    try:
        key = from_env(os.environ)
    except ConfigError as error:
        text, _, remedy = error.message.partition("; ")
        return Finding("credential", "fail", text, remedy)
    if key is None:
        return Finding("credential", "warn", "none; this server may want none")
    if not isinstance(key, ApiKey):
        text = f"IAM key pair from {key.source}; short-lived tokens come from {key.iam_url}"
        return Finding("credential", "ok", text)
    if key.is_baidu:
        return Finding("credential", "ok", f"an API key, from {key.source}")
    text = f"a key that is not of Baidu's form (bce-v3/...), from {key.source}"
    if is_qianfan(base_url):
        return Finding("credential", "warn", text, f"create one at {KEY_PAGE}")
    return Finding("credential", "ok", text)


async def examine(
    client: AsyncClient, model: str, *, asks: bool, tell: Callable[[Finding], None]
) -> None:
    """Look at the way to the service, then at the service.

    Args:
        client: Asks.
        model: Has to be among those that it lists.
        asks: Also have a chat of one token, which costs something.
        tell: Hears each finding as soon as it is known.
    """
    url = client.base_url
    try:
        proxy = find_proxy(url, os.environ)
    except ConfigError as error:
        tell(Finding("proxy", "fail", error.message, "correct or unset https_proxy"))
        return
    if proxy is None:
        tell(Finding("proxy", "ok", "none"))
        if not await _looked_up(url, tell):
            return
    else:
        host = urlsplit(proxy).hostname  # its user name and password stay where they are
        tell(Finding("proxy", "ok", f"by way of {host}, which also looks up names"))
    if not await _reached(url, proxy, tell):
        return
    if await _worked("models", _models(client, model), tell) and asks:
        await _worked("chat", _chat(client), tell)


async def _looked_up(url: str, tell: Callable[[Finding], None]) -> bool:
    host = urlsplit(url).hostname or ""
    began = monotonic()
    try:
        async with asyncio.timeout(DNS_SECONDS):
            found = await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        reason = f"no answer within {DNS_SECONDS:g} s"
    except socket.gaierror as error:
        reason = error.strerror or "unknown"
    else:
        addresses = dict.fromkeys(str(address[4][0]) for address in found)
        seconds = monotonic() - began
        state: State = "warn" if seconds > SLOW_SECONDS else "ok"
        remedy = "the name server is slow" if state == "warn" else ""
        text = f"{host} is {', '.join(addresses)} ({seconds * 1000:.0f} ms)"
        tell(Finding("dns", state, text, remedy))
        return True
    remedy = "check the spelling of the base URL, the network, and the name server"
    tell(Finding("dns", "fail", f"{host}: {reason}", remedy))
    return False


async def _reached(url: str, proxy: str | None, tell: Callable[[Finding], None]) -> bool:
    """Connect without a credential: whatever is answered, the way is free."""
    transport = Transport(url, headers={}, session=None, proxy=proxy, ca_file=None)
    began = monotonic()
    check = "tls" if url.startswith("https:") else "connect"
    try:
        async with asyncio.timeout(REACH_SECONDS):
            reply = await transport.open("GET", "/models", body=None, headers={}, connect=10.0)
    except TimeoutError:
        tell(Finding(check, "fail", f"no answer within {REACH_SECONDS:g} s", "check the network"))
        return False
    except ErnieError as error:
        remedy = (
            "a certificate that this machine does not trust: check its clock and its certificates, "
            "or pass ca_file"
            if "TLS" in error.message
            else "check the base URL, the firewall and the proxy"
        )
        tell(Finding(check, "fail", error.message, remedy))
        return False
    finally:
        await transport.aclose()
    reply.close()
    milliseconds = (monotonic() - began) * 1000
    what = "certificate trusted, " if check == "tls" else "no TLS on http, "
    is_open = check == "connect" and is_qianfan(url)
    remedy = "the key would travel unencrypted: use https" if is_open else ""
    text = f"{what}first answer after {milliseconds:.0f} ms"
    tell(Finding(check, "warn" if is_open else "ok", text, remedy))
    tell(_clock(reply.headers.get("Date")))
    return True


def _clock(date: str | None) -> Finding:
    try:
        skew = time() - parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError):
        return Finding("clock", "ok", "the server does not tell the time")
    side = "ahead of" if skew > 0 else "behind"
    text = f"{abs(skew):.0f} s {side} the server"
    if abs(skew) < WARN_SKEW:
        return Finding("clock", "ok", text)
    state: State = "fail" if abs(skew) > FAIL_SKEW else "warn"
    return Finding("clock", state, text, "set this machine's clock; signatures depend on it")


async def _worked(check: str, asking: Awaitable[Finding], tell: Callable[[Finding], None]) -> bool:
    try:
        tell(await asking)
    except NotFoundError as error:
        if check == "models" and error.code is None:
            text, remedy = "this server lists no models", "if chat fails too, check the base URL"
            tell(Finding(check, "warn", text, remedy))
            return True
        tell(Finding(check, "fail", error.message, error.remedy))
    except AuthError as error:
        remedy = "" if error.remedy and error.remedy in error.message else error.remedy
        tell(Finding(check, "fail", error.message, remedy))
    except ErnieError as error:
        tell(Finding(check, "fail", error.message, "run it again in a minute"))
    else:
        return True
    return False


async def _models(client: AsyncClient, model: str) -> Finding:
    names = [card.id for card in await client.list_models()]
    if model in names:
        return Finding("models", "ok", f"{len(names)} models, {model} among them")
    remedy = "choose one that `ernie-async models` lists, with --model"
    return Finding("models", "warn", f"{len(names)} models, but not {model}", remedy)


async def _chat(client: AsyncClient) -> Finding:
    answer = await client.chat("hi", max_completion_tokens=1)
    seconds = answer.timing.total
    text = f"an answer after {seconds:.1f} s, {answer.usage.total_tokens} tokens"
    return Finding("chat", "ok", text)
