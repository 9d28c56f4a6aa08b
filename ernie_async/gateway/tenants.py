"""Who may use a gateway, and how much of it.

A tenant's token is known by its SHA-256 alone. Knows no framework.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ernie_async.errors import ConfigError, DeadlineError, shorten
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.relay import GatewayError
from ernie_async.sansio.tickets import find_holder

__all__ = ["Tenant", "Tenants"]

HEX_DIGITS = frozenset("0123456789abcdef")

LOCAL = "local"
"""The name for everybody, where nobody needs a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Somebody with a token.

    Attributes:
        name: For records.
        token_sha256: 64 hexadecimal digits.
        streams: Answers under way at once.
        requests_per_minute: `None` for no limit.
        tokens_per_minute: `None` for no limit.
    """

    name: str
    token_sha256: str
    streams: int = 10
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        digest = self.token_sha256
        if not isinstance(digest, str) or len(digest) != 64 or not HEX_DIGITS.issuperset(digest):
            raise ConfigError(
                f"token_sha256: of {shorten(self.name)}: expected the 64 hexadecimal digits that "
                "sha256sum prints, in lower case"
            )
        if not isinstance(self.streams, int) or self.streams < 1:
            raise ConfigError(f"streams: expected at least 1, got {shorten(self.streams)}")


class Tenants:
    """All of them. Serves one event loop.

    Args:
        tenants: With different names; none if nobody needs a token.
        patience: Seconds that a request may wait for its tenant's turn.

    Attributes:
        is_open: Whether nobody needs a token.
        limiters: By name. One that is not known has no limits.
    """

    def __init__(self, tenants: Sequence[Tenant], *, patience: float) -> None:
        self.is_open = not tenants
        self._hashes = {tenant.token_sha256: tenant.name for tenant in tenants}
        self._patience = patience
        self.limiters = defaultdict(lambda: Limiter(Limits()))
        for tenant in tenants:
            self.limiters[tenant.name] = Limiter(
                Limits(
                    concurrency=tenant.streams,
                    requests_per_minute=tenant.requests_per_minute,
                    tokens_per_minute=tenant.tokens_per_minute,
                )
            )

    def find(self, token: str) -> str | None:
        """The name of the tenant with this token; `None` if there is none."""
        if self.is_open:
            return LOCAL
        return find_holder(token, self._hashes.items()) if token else None

    async def admit(self, name: str, tokens: int) -> Permit:
        """Wait for room for one answer.

        Args:
            name: Of the tenant.
            tokens: An estimate.

        Raises:
            ConfigError: They are more than the tenant has in a minute.
            GatewayError: There is no room.
        """
        try:
            return await self.limiters[name].admit(tokens, max_wait=self._patience)
        except DeadlineError:
            message = f"your turn does not come within {self._patience:g} s"
            raise GatewayError.overloaded(message, retry_after=self._patience) from None
