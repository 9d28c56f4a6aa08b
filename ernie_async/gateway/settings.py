"""What an operator decides of a gateway: as a value, and as a TOML file.

Secrets do not stand in that file: of a token it has the SHA-256, and the rest comes from the
environment, which `cli_serve` reads.
"""

import secrets
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ernie_async.errors import ConfigError, shorten
from ernie_async.gateway.live import StreamLimits
from ernie_async.gateway.tenants import Tenant
from ernie_async.sansio.gateway_ask import AskRules
from ernie_async.sansio.on_disconnect import read_policy

__all__ = ["GatewaySettings", "read_settings"]

V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """What an operator decides. All times are in seconds.

    Attributes:
        tenants: Who may use it; nobody means everybody, which is for one's own machine.
        origins: Of pages elsewhere that browsers may use it from, such as
            `https://chat.example.com`.
        heartbeat: Silence after which a comment is sent, up to 30.
        admission: How long a request may wait for its tenant's turn.
        body: The largest request, in bytes.
        chat_on_disconnect: What becomes of a chat that nobody reads: `POST /v1/chat/completions`.
        stream_on_disconnect: The same of `POST /v1/streams` and the WebSocket.
        ping: Between two pings of a WebSocket, which is closed when two were not answered.
        chats_per_socket: Chats at once on a WebSocket.
        rules: What may be asked for.
        limits: What is kept.
        ticket_secret: Makes the tickets; has to be the same in all processes.
    """

    tenants: tuple[Tenant, ...] = ()
    origins: tuple[str, ...] = ()
    heartbeat: float = 15.0
    admission: float = 5.0
    body: int = 1 << 20
    chat_on_disconnect: str = "cancel"
    stream_on_disconnect: str = "linger:60"
    ping: float = 20.0
    chats_per_socket: int = 8
    rules: AskRules = field(default_factory=AskRules)
    limits: StreamLimits = field(default_factory=StreamLimits)
    ticket_secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        read_policy(self.chat_on_disconnect)
        read_policy(self.stream_on_disconnect)
        if "*" in self.origins:
            raise ConfigError("origins: expected a list of origins; * would let in every page")
        for name in ("name", "token_sha256"):
            values = [getattr(tenant, name) for tenant in self.tenants]
            if len(set(values)) < len(values):
                raise ConfigError(f"tenants: two of them have the same {name}")


def read_settings(path: Path) -> tuple[GatewaySettings, dict[str, Any]]:
    """Read a TOML file.

    Args:
        path: Of the file.

    Returns:
        The settings, and what the file says besides: `host`, `port`, `model`, `words` and others.

    Raises:
        ConfigError: It cannot be read, or a setting in it cannot be right.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        own = {name: told.pop(name) for name in _names(GatewaySettings) & told.keys()}
        tenants = own.get("tenants", [])
        if not isinstance(tenants, list):
            raise ConfigError(f"tenants: expected [[tenants]], got {shorten(tenants)}")
        own["tenants"] = tuple(_make(Tenant, one) for one in tenants)
        own["origins"] = tuple(own.get("origins", ()))
        own["rules"] = _make(AskRules, own.get("rules", {}))
        own["limits"] = _make(StreamLimits, own.get("limits", {}))
        return _make(GatewaySettings, own), told
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _names(kind: type) -> set[str]:
    return {one.name for one in fields(kind)} - {"ticket_secret"}


def _make(kind: type[V], told: Any) -> V:
    if not isinstance(told, dict):
        raise ConfigError(f"expected a table, got {shorten(told)}")
    known = _names(kind)
    for name in told:
        if name not in known:
            raise ConfigError(f"{name}: no such setting; there are {', '.join(sorted(known))}")
    try:
        return kind(**told)
    except TypeError as error:
        raise ConfigError(str(error).partition(") ")[2] or str(error)) from None
