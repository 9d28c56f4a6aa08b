"""When to stop before the end: too many failures, no money left. Pure.

And how a run that stopped is told to a shell.
"""

from math import inf
from typing import Literal

from ernie_async.batch.failures import hopeless
from ernie_async.errors import ConfigError, ErnieError

__all__ = [
    "EXIT_CODES",
    "BatchError",
    "Budget",
    "Losses",
    "StopReason",
    "code_of_undone",
]

StopReason = Literal[
    "finished",
    "failures",
    "invalid_input",
    "damaged",
    "input",
    "errors",
    "internal",
    "locked",
    "io",
    "budget",
    "deadline",
    "auth",
    "sigint",
    "sigterm",
    "cancelled",
]

# As of sysexits.h, and 128 + the number of a signal.
EXIT_CODES: dict[StopReason, int] = {
    "finished": 0,
    "failures": 1,
    "invalid_input": 65,
    "damaged": 65,
    "input": 66,
    "errors": 69,
    "internal": 70,
    "locked": 73,
    "io": 74,
    "budget": 75,
    "deadline": 75,
    "auth": 77,
    "sigint": 130,
    "sigterm": 143,
    "cancelled": 130,
}


class BatchError(ErnieError):
    """A run that could not begin, or not go on.

    Attributes:
        reason: Why; `EXIT_CODES` has its number for a shell.
    """

    def __init__(self, message: str, reason: StopReason) -> None:
        super().__init__(message)
        self.reason: StopReason = reason

    def __reduce__(self) -> tuple[type["BatchError"], tuple[str, StopReason]]:
        return BatchError, (self.message, self.reason)


def code_of_undone(reason: StopReason) -> str:
    """The code of a line that was not asked, because the run stopped."""
    return {"budget": "budget_exceeded", "deadline": "deadline_exceeded"}.get(reason, "cancelled")


# So many lines with one and the same refusal, from the first on or later, and no key will help.
FIRST_REFUSED = 20
REFUSED_IN_A_ROW = 50

# A share of few lines says nothing.
LINES_FOR_A_SHARE = 100


def read_max_errors(given: int | str | None) -> tuple[float, float]:
    """How many lines may fail, and which share of those that are over: from `100` or `5%`.

    Raises:
        ConfigError: It is neither.
    """
    if given is None:
        return inf, inf
    try:
        if isinstance(given, str) and given.endswith("%"):
            share = float(given[:-1]) / 100
            if 0 <= share <= 1:
                return inf, share
        elif int(given) >= 0:
            return int(given), inf
    except ValueError:
        pass
    raise ConfigError(f"max_errors: expected a number or a percentage such as 5%, got {given!r}")


class Losses:
    """Looks at lines as they end, and says when to stop. Serves one run.

    Args:
        max_errors: Lines that may fail: a number, or a share such as `"5%"`; `None` for all.

    Raises:
        ConfigError: It is none of these.
    """

    def __init__(self, max_errors: int | str | None) -> None:
        self._most, self._share = read_max_errors(max_errors)
        self._over = 0
        self._failed = 0
        self._row = 0
        self._last: str | None = None

    def note(self, error: ErnieError | None, *, failed: bool) -> StopReason | None:
        """One line is over.

        Args:
            error: The last attempt's; `None` if none failed.
            failed: Whether the line did.

        Returns:
            Why to stop; `None` to go on.
        """
        self._over += 1
        self._failed += failed
        refusal = hopeless(error) if failed else None
        self._row = self._row + 1 if refusal is not None and refusal == self._last else 1
        self._last = refusal
        if refusal is not None and (
            self._row >= REFUSED_IN_A_ROW or (self._row == self._over >= FIRST_REFUSED)
        ):
            return "auth"
        share = self._share if self._over >= LINES_FOR_A_SHARE else inf
        return "errors" if self._failed > min(self._most, share * self._over) else None


class Budget:
    """Money and tokens: reserved before a call, spent after it. Serves one run.

    Args:
        max_cost: CNY; `None` for no limit.
        max_tokens: Prompts and answers together; `None` for no limit.
        cost: Spent by earlier runs.
        tokens: Used by earlier runs.

    Attributes:
        max_cost: CNY; `None` for no limit.
    """

    def __init__(
        self,
        max_cost: float | None,
        max_tokens: int | None,
        cost: float = 0.0,
        tokens: int = 0,
    ) -> None:
        self.max_cost = max_cost
        self._max_tokens = max_tokens
        self.cost: float = cost
        self.tokens: int = tokens
        self._reserved_cost = 0.0
        self._reserved_tokens = 0

    @property
    def is_limited(self) -> bool:
        """Whether estimates are needed."""
        return self.max_cost is not None or self._max_tokens is not None

    def reserve(self, cost: float, tokens: int) -> bool:
        """Set something aside for a call; whether there is so much."""
        total = self.cost + self._reserved_cost + cost
        if self.max_cost is not None and total > self.max_cost:
            return False
        n_tokens = self.tokens + self._reserved_tokens + tokens
        if self._max_tokens is not None and n_tokens > self._max_tokens:
            return False
        self._reserved_cost += cost
        self._reserved_tokens += tokens
        return True

    def release(self, cost: float, tokens: int) -> None:
        """A call is over: what was set aside for it is free again."""
        self._reserved_cost -= cost
        self._reserved_tokens -= tokens

    def spend(self, cost: float, tokens: int) -> None:
        """What a call really took."""
        self.cost += cost
        self.tokens += tokens
