"""Whom the command asks: the service, a server of the user's choice, or one that is embedded.

The options that `chat` and `models` share, and the client that follows from them.
"""

import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from ernie_async.cli_terminal import note
from ernie_async.client import AsyncClient
from ernie_async.errors import ConfigError
from ernie_async.net.hooks import Record, RetryScheduled
from ernie_async.sansio.timeouts import Timeouts

__all__ = ["OFFLINE_CHUNK_MS", "STDIN", "Service", "Whole", "connected"]

OFFLINE_CHUNK_MS = 20

# Stands for the argument `-`, which would be taken for an option. No real argument can be it.
STDIN = "\0"

# A large model on a small machine may read the prompt for minutes before its first word.
LOCAL_SECONDS = 600.0


def read_int(_: Any, tokens: Sequence[Token]) -> int:
    """A whole number; cyclopts itself would round 1.5."""
    word = tokens[0].value
    try:
        return int(word)
    except ValueError:
        raise ValueError(f"expected a whole number, got {word}") from None


Whole: Parameter = Parameter(converter=read_int)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Service:
    """Whom to ask.

    Attributes:
        base_url: A server other than Qianfan V2.
        offline: Ask nobody: an embedded mock server gives canned answers. Needs no key.
        local: Ask a model on this machine. Needs no key. If the next word ends in .gguf, it is the
            model file; without one, it is the small model that pip installed.
        local_model: The model file for --local, whatever its name.
        timeout: Seconds that a whole call may take, retries included.
        verbose: Tell usage, timing and retries on standard error, and thinking if it is not shown.
    """

    base_url: str | None = None
    offline: bool = False
    local: bool = False
    local_model: Path | None = None
    timeout: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    verbose: bool = False


@contextmanager
def connected(
    service: Service, *, embeds: bool = False
) -> Iterator[tuple[asyncio.Runner, AsyncClient]]:
    """A client of the chosen service, and what runs its calls.

    A runner and not one coroutine for everything: whatever happens between two calls, waiting for
    the keyboard above all, happens outside of asyncio, where Ctrl-C breaks it off at once.

    Args:
        service: The choice.
        embeds: Whether a model on this machine has to make vectors.

    Raises:
        ConfigError: The choice makes no sense, or something that it needs is missing.
    """
    is_local = service.local or service.local_model is not None
    if (service.base_url is not None) + service.offline + is_local > 1:
        raise ConfigError("choose one of --base-url, --offline and --local")
    total: float | Literal["auto"] = "auto" if service.timeout is None else service.timeout
    timeouts = Timeouts(total=total)
    with ExitStack() as stack:
        url, key, model = service.base_url, None, None
        if service.offline:
            from ernie_async.testing import MockErnie  # only who asks pays for it

            url = stack.enter_context(MockErnie(chunk_ms=OFFLINE_CHUNK_MS)).base_url
            note("--offline: the answers are canned; no model is asked")
        elif is_local:
            try:
                from ernie_async.local import LocalServer  # an extra of its own
            except ImportError as error:
                raise ConfigError(f"--local: {error}") from error
            server = LocalServer(service.local_model, embeddings=embeds)
            if sys.stderr.isatty():
                note(f"loading {server.model}")
            stack.enter_context(server)
            url, model = server.base_url, server.model
            timeouts = Timeouts(first_event=LOCAL_SECONDS, idle=LOCAL_SECONDS, total=total)
        if service.offline or is_local:
            # Neither the user's key nor the user's proxy is for a server in this machine.
            key = "none"
            os.environ["no_proxy"] = "*"
        runner = stack.enter_context(asyncio.Runner())
        client = make_client(key, url, model, timeouts, RetryNotes(service))
        stack.callback(lambda: runner.run(client.aclose()))
        yield runner, client


def make_client(
    key: str | None, url: str | None, model: str | None, timeouts: Timeouts, told: "RetryNotes"
) -> AsyncClient:
    """The client; if only the key is missing, say what can be done without."""
    try:
        return AsyncClient(key, base_url=url, model=model, timeouts=timeouts, hooks=[told])
    except ConfigError as error:
        if not str(error).startswith("no API key"):
            raise
        raise ConfigError(
            f"{error}\nWithout a key: --offline gives canned answers, --local asks a small model "
            "on this machine."
        ) from error


class RetryNotes:
    """A hook that tells of retries, so that nobody wonders why nothing happens."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __call__(self, record: Record) -> None:
        if isinstance(record, RetryScheduled) and (self._service.verbose or sys.stderr.isatty()):
            note(f"attempt {record.attempt} failed ({record.error}); again in {record.delay:.1f} s")
