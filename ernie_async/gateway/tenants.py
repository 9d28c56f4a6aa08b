"""Who may use a gateway, and how much of it.

A tenant's token is known by its SHA-256 alone. Knows no framework.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ernie_async.errors import ConfigError, shorten
from ernie_async.net.limiter import Limiter, Permit
from ernie_async.sansio.bucket import Limits
from ernie_async.sansio.relay import Fault, GatewayError
from ernie_async.sansio.tickets import find_holder

__all__ = ["Admission", "Tenant", "Tenants"]

HEX_DIGITS = frozenset("0123456789abcdef")


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

    @property
    def limits(self) -> Limits:
        """What is waited for."""
        return Limits(
            requests_per_minute=self.requests_per_minute, tokens_per_minute=self.tokens_per_minute
        )


class Admission:
    """Room for one answer of a tenant. Release it once; more often does no harm."""

    def __init__(self, tenants: "Tenants", name: str, permit: Permit | None) -> None:
        self._tenants = tenants
        self._name = name
        self._permit = permit
        self._is_held = True

    def release(self, *, tokens: int | None = None) -> None:
        """The answer is over.

        Args:
            tokens: What it used; `None` if it was never asked for.
        """
        if not self._is_held:
            return
        self._is_held = False
        self._tenants.release(self._name)
        if self._permit is not None:
            if tokens is None:
                self._permit.give_back()
            else:
                self._permit.settle(tokens=tokens)
                self._permit.release()


class Tenants:
    """All of them. Serves one event loop.

    Args:
        tenants: With different names.
        patience: Seconds that a request may wait for its tenant's turn.

    Attributes:
        running: Answers under way, by tenant.
    """

    def __init__(self, tenants: Iterable[Tenant], *, patience: float) -> None:
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._patience = patience
        self._limiters = {
            name: Limiter(tenant.limits)
            for name, tenant in self._tenants.items()
            if not tenant.limits.is_unlimited
        }
        self.running: Counter[str] = Counter()

    def find(self, token: str) -> str | None:
        """The name of the tenant with this token."""
        return find_holder(
            token, ((tenant.token_sha256, name) for name, tenant in self._tenants.items())
        )

    async def admit(self, name: str, tokens: int) -> Admission:
        """Wait for room for one answer.

        Args:
            name: Of the tenant; one that is not known has no limits.
            tokens: An estimate.

        Raises:
            GatewayError: There is none.
        """
        tenant = self._tenants.get(name)
        if tenant is not None and self.running[name] >= tenant.streams:
            message = f"{tenant.streams} answers are under way, which is all that you may have"
            raise GatewayError(Fault(429, "rate_limited", message, retryable=True, retry_after=1.0))
        self.running[name] += 1
        try:
            limiter = self._limiters.get(name)
            permit = None if limiter is None else await self._wait(limiter, tokens)
        except BaseException:
            self.release(name)
            raise
        return Admission(self, name, permit)

    async def _wait(self, limiter: Limiter, tokens: int) -> Permit:
        try:
            async with asyncio.timeout(self._patience):
                return await limiter.admit(tokens)
        except TimeoutError:
            message = f"your turn did not come within {self._patience:g} s"
            raise GatewayError.overloaded(message, retry_after=self._patience) from None

    def release(self, name: str) -> None:
        """One answer is over. For `Admission`."""
        self.running[name] -= 1
        if not self.running[name]:
            del self.running[name]
