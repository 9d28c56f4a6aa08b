"""The command `serve`: the gateway, as a file, the environment and flags describe it.

What a gateway does is decided in `gateway`. Flags win over the environment, and that over the file;
secrets come from the environment, or from files that it names.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from ernie_async.cli_service import Service, Whole, connected
from ernie_async.cli_terminal import note
from ernie_async.errors import ConfigError, ErnieError, shorten
from ernie_async.sansio.content_filter import ContentFilter
from ernie_async.sansio.filter_values import Action, FilterMode

if TYPE_CHECKING:
    from ernie_async.gateway import GatewaySettings, Store

__all__ = ["serve"]

PREFIX = "ERNIE_GATEWAY_"

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8080
DRAIN_SECONDS = 30.0

# What the file may say besides the gateway's own settings.
IN_FILE: dict[str, type] = {
    "host": str,
    "port": int,
    "model": str,
    "base_url": str,
    "words": str,
    "action": str,
    "mode": str,
}


def serve(
    *,
    config: Path | None = None,
    host: str | None = None,
    port: Annotated[int | None, Whole, Parameter(validator=Number(gte=0, lte=65535))] = None,
    model: str | None = None,
    words: Path | None = None,
    action: Action | None = None,
    mode: FilterMode | None = None,
    drain: Annotated[float, Parameter(validator=Number(gte=0))] = DRAIN_SECONDS,
    service: Service = Service(),
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
        mode: How much to hold back for that: window, full or live.
        drain: Seconds that running answers get to end when it is stopped.
        service: Whom to ask.
    """
    from ernie_async.gateway import make_app
    from ernie_async.gateway.guard import LOCAL_NAMES
    from ernie_async.gateway.serving import run_gateway

    environ = os.environ
    if config is None and (name := environ.get(f"{PREFIX}CONFIG")):
        config = Path(name)
    settings, told = read_config(config, environ)
    host = host or environ.get(f"{PREFIX}HOST") or str(told.get("host", DEFAULT_HOST))
    if port is None:
        port = read_port(environ.get(f"{PREFIX}PORT"), told.get("port", DEFAULT_PORT))
    if not settings.tenants and host not in LOCAL_NAMES:
        raise ConfigError(
            f"--host {host}: a gateway without tokens serves 127.0.0.1 only; set "
            f"{PREFIX}TOKEN, or put [[tenants]] into the file"
        )
    if "base_url" in told and not (service.base_url or service.offline or service.local):
        service = replace(service, base_url=told["base_url"])
    model = model or told.get("model")
    content_filter = make_filter(
        words or told.get("words"),
        action=action or told.get("action"),
        mode=mode or told.get("mode"),
    )
    try:
        with connected(service) as (runner, client):
            asker = client if model is None else client.with_options(model=model)
            store = make_store(environ)
            runner.run(
                run_gateway(
                    make_app(asker, settings, store=store, content_filter=content_filter),
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
    from ernie_async.gateway.settings import GatewaySettings, read_settings
    from ernie_async.gateway.tenants import Tenant
    from ernie_async.sansio.tickets import token_hash

    settings, told = (GatewaySettings(), {}) if path is None else read_settings(path)
    if secret := read_secret("TICKET_SECRET", environ):
        settings = replace(settings, ticket_secret=secret.encode())
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


def make_filter(words: Path | str | None, **settings: Any) -> ContentFilter | None:
    """The content filter; `None` without words.

    Raises:
        ConfigError: The words cannot be read, or there are none for the settings.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if words is not None:
        return ContentFilter.from_file(words, **given)
    if given:
        raise ConfigError(f"--{next(iter(given))} needs --words")
    return None


def make_store(environ: Mapping[str, str]) -> "Store | None":
    """Where answers are kept; `None` for this process alone.

    Raises:
        ConfigError: Redis is named, and its library is not installed.
    """
    url = read_secret("REDIS_URL", environ)
    if not url:
        return None
    try:
        from ernie_async.gateway.redis import RedisStore
    except ImportError as error:
        raise ConfigError(f"{PREFIX}REDIS_URL: {error}") from error
    return RedisStore(url)
