"""The command `serve`: the gateway, as a file, the environment and flags describe it.

What a gateway does is decided in `gateway`. Flags win over the environment, and that over the file;
secrets come from the environment, or from files that it names.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from cyclopts import Parameter
from cyclopts.validators import Number

from ernie_async.cli_service import Service, Whole, connected
from ernie_async.cli_terminal import note
from ernie_async.errors import ConfigError, ErnieError, shorten
from ernie_async.sansio.content_filter import ContentFilter, FilterSettings
from ernie_async.sansio.filter_values import Action
from ernie_async.settings import ClientOptions

if TYPE_CHECKING:
    from ernie_async.gateway import GatewaySettings, Store

__all__ = ["serve"]

PREFIX = "ERNIE_GATEWAY_"

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
DRAIN_SECONDS = 30.0

OWN_MACHINE = {"127.0.0.1", "localhost", "::1"}

# What the file may say besides the gateway's own settings.
IN_FILE: dict[str, type] = {
    "host": str,
    "port": int,
    "model": str,
    "base_url": str,
    "words": str,
    "action": str,
}


def serve(
    *,
    config: Path | None = None,
    host: str | None = None,
    port: Annotated[int | None, Whole, Parameter(validator=Number(gte=0, lte=65535))] = None,
    model: str | None = None,
    words: Path | None = None,
    action: Action | None = None,
    drain: Annotated[float, Parameter(validator=Number(gte=0))] = DRAIN_SECONDS,
    service: Service = Service(),  # noqa: B008 - frozen
) -> int:
    """Run a gateway for browsers and OpenAI clients, until SIGTERM or Ctrl-C.

    Its address is the first line on standard output; a browser finds a chat page there. Without
    tokens it is open, and serves this machine only. Tokens come from the variable
    ERNIE_GATEWAY_TOKEN (several separated by commas), or as SHA-256 from the file.

    Args:
        config: A TOML file; see the guide. Else the one that ERNIE_GATEWAY_CONFIG names.
        host: Where to listen; 127.0.0.1 if not given.
        port: 0 takes a free one; 8080 if not given.
        model: For requests that name none.
        words: A file of terms that must not be shown, one on each line.
        action: What to do with them: mask, drop, block or flag.
        drain: Seconds that running answers get to end when it is stopped.
        service: Whom to ask.
    """
    from ernie_async.gateway import make_app  # noqa: PLC0415 - only who serves pays for it
    from ernie_async.gateway.serving import run_gateway  # noqa: PLC0415

    environ = os.environ
    if config is None and (name := environ.get(f"{PREFIX}CONFIG")):
        config = Path(name)
    settings, told = read_config(config, environ)
    host = host or environ.get(f"{PREFIX}HOST") or str(told.get("host", DEFAULT_HOST))
    if port is None:
        port = read_port(environ.get(f"{PREFIX}PORT"), told.get("port", DEFAULT_PORT))
    if not settings.tenants and host not in OWN_MACHINE:
        raise ConfigError(
            f"--host {host}: a gateway without tokens serves 127.0.0.1 only; set "
            f"{PREFIX}TOKEN, or put [[tenants]] into the file"
        )
    if "base_url" in told and not (service.base_url or service.offline or service.local):
        service = replace(service, base_url=told["base_url"])
    model = model or told.get("model")
    content_filter = make_filter(words or told.get("words"), action or told.get("action"))
    try:
        with connected(service) as (runner, client):
            options = ClientOptions(content_filter=content_filter)
            if model is not None:
                options["model"] = model
            runner.run(
                run_gateway(
                    make_app(client.with_options(**options), settings, store=make_store(environ)),
                    host=host,
                    port=port,
                    drain=drain,
                    ready=lambda url: print(url, flush=True),
                    draining=lambda n: note(f"stopping; {n} answers are under way"),
                )
            )
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise ErnieError(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return 0


def read_config(
    path: Path | None, environ: Mapping[str, str]
) -> tuple["GatewaySettings", dict[str, Any]]:
    """The gateway's settings, and what a file says besides.

    Raises:
        ConfigError: Something cannot be right.
    """
    from ernie_async.gateway.settings import GatewaySettings, read_settings  # noqa: PLC0415
    from ernie_async.gateway.tenants import Tenant  # noqa: PLC0415
    from ernie_async.sansio.tickets import token_hash  # noqa: PLC0415

    changes: dict[str, Any] = {}
    if secret := read_secret("TICKET_SECRET", environ):
        changes["ticket_secret"] = secret.encode()
    settings, told = (
        (GatewaySettings(**changes), {}) if path is None else read_settings(path, **changes)
    )
    for name, value in told.items():
        if name not in IN_FILE:
            raise ConfigError(f"{path}: {name}: no such setting")
        if not isinstance(value, IN_FILE[name]):
            raise ConfigError(
                f"{path}: {name}: expected {IN_FILE[name].__name__}, got {shorten(value)}"
            )
    tokens = [token.strip() for token in read_secret("TOKEN", environ).split(",") if token.strip()]
    own = [
        Tenant(name=f"token-{n}", token_sha256=token_hash(token)) for n, token in enumerate(tokens)
    ]
    return replace(settings, tenants=(*settings.tenants, *own)), told


def read_secret(name: str, environ: Mapping[str, str]) -> str:
    """A secret from the environment, or from the file that it names; empty if there is none.

    Raises:
        ConfigError: The file cannot be read.
    """
    path = environ.get(f"{PREFIX}{name}_FILE")
    if not path:
        return environ.get(f"{PREFIX}{name}", "")
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{PREFIX}{name}_FILE: {path}: {error.strerror}") from None


def read_port(text: str | None, default: int) -> int:
    """The port that the environment names, or else the default.

    Raises:
        ConfigError: It is none.
    """
    if not text:
        return default
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigError(f"{PREFIX}PORT: expected a port, got {shorten(text)}")
    return int(text)


def make_filter(words: Path | str | None, action: str | None) -> ContentFilter | None:
    """The content filter; `None` without words.

    Raises:
        ConfigError: The words cannot be read, or there are none for the action.
    """
    if words is None:
        if action is not None:
            raise ConfigError("--action needs --words")
        return None
    known: dict[str, Action] = {name: name for name in get_args(Action)}
    if action is not None and action not in known:
        raise ConfigError(f"action: expected {', '.join(known)}, got {shorten(action)}")
    settings = FilterSettings()
    if action is not None:
        settings["action"] = known[action]
    return ContentFilter.from_file(words, **settings)


def make_store(environ: Mapping[str, str]) -> "Store | None":
    """Where answers are kept; `None` for this process alone.

    Raises:
        ConfigError: Redis is named, and its library is not installed.
    """
    url = read_secret("REDIS_URL", environ)
    if not url:
        return None
    try:
        from ernie_async.gateway.redis import RedisStore  # noqa: PLC0415 - an extra of its own
    except ImportError as error:
        raise ConfigError(f"{PREFIX}REDIS_URL: {error}") from error
    return RedisStore(url)
