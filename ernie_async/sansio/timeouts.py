"""The four clocks of a call, as a value. `net` obeys them."""

from dataclasses import dataclass
from typing import Literal

from ernie_async.errors import ConfigError

__all__ = ["Timeouts"]

# A long answer of a thinking model takes minutes when it is not streamed.
WHOLE_ANSWER_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a call may take, in seconds; `None` means no limit.

    Attributes:
        connect: To find the host and to connect, TLS and proxy included; for each attempt.
        first_event: From sending a stream's request to its first chunk; for each attempt.
        idle: Between two chunks of a stream. Heartbeats of the server do not count as progress,
            and time that the caller takes between chunks does not count as silence.
        total: For the whole call: waiting in line, retries and the stream included. `"auto"` means
            600 s for an answer in one piece and no limit for a stream.
    """

    connect: float | None = 10.0
    first_event: float | None = 60.0
    idle: float | None = 60.0
    total: float | Literal["auto"] | None = "auto"

    def __post_init__(self) -> None:
        for name in ("connect", "first_event", "idle", "total"):
            value = getattr(self, name)
            if value is None or (name == "total" and value == "auto"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{name}: expected seconds above 0, or None, got {value!r}")

    def total_for(self, *, stream: bool) -> float | None:
        """Seconds for a whole call, with `"auto"` resolved."""
        if self.total == "auto":
            return None if stream else WHOLE_ANSWER_SECONDS
        return self.total
