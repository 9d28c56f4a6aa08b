"""What may be spent, and what is spent so far: tokens and money, estimated while calls run.

Arithmetic only. Which budgets a call counts for is for `net.budget` to know. A `Tally` may serve
many calls of one event loop, a `Charge` serves one.
"""

from collections.abc import Sequence

from ernie_async.errors import BudgetError, ConfigError
from ernie_async.sansio.tokens import estimate_tokens
from ernie_async.types.prices import Prices
from ernie_async.types.usage import Usage, tokens_used

__all__ = ["Charge", "Tally"]

# A word that two chunks share is counted once, and a single Chinese character counts for something,
# only if pieces are counted together; a longer text is not counted anew with every chunk.
COUNT_ANEW = 200

# Prices are for so many tokens.
MILLION = 1_000_000

# Money is added up in whole units, so that an estimate that is taken back is gone.
UNITS = 10**12  # in 1 CNY


class Tally:
    """What one budget has, and what was used of it.

    Attributes:
        limit_tokens: Prompts and answers together; `None` for no limit.
        limit_cost: CNY; `None` for no limit.
        tokens: Used so far, with an estimate for what is being written.
        units: The same in 1e-12 CNY, as far as the models have a price.
    """

    __slots__ = ("limit_cost", "limit_tokens", "tokens", "units")

    def __init__(self, *, tokens: int | None, cost: float | None) -> None:
        for name, value in (("tokens", tokens), ("cost", cost)):
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0
            ):
                raise ConfigError(f"{name}: expected a number, at least 0, got {value!r}")
        if tokens is None and cost is None:
            raise ConfigError("budget: expected tokens=, cost= or both; without it nothing ends")
        self.limit_tokens: int | None = tokens
        self.limit_cost: float | None = cost
        self.tokens: int = 0
        self.units: int = 0

    @property
    def cost(self) -> float:
        """What was used so far in CNY, as far as the models have a price."""
        return self.units / UNITS

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left, so that no call may begin."""
        return (self.limit_tokens is not None and self.tokens >= self.limit_tokens) or (
            self.limit_cost is not None and self.cost >= self.limit_cost
        )

    def check(self) -> None:
        """Do nothing as long as something is left.

        Raises:
            BudgetError: Nothing is.
        """
        if not self.is_spent:
            return
        used = []
        if self.limit_tokens is not None:
            used.append(f"{self.tokens:,} of {self.limit_tokens:,} tokens")
        if self.limit_cost is not None:
            used.append(f"{self.cost:.4g} of {self.limit_cost:.4g} CNY")
        raise BudgetError(
            f"the budget is spent: {' and '.join(used)}", tokens=self.tokens, cost=self.cost
        )


class Charge:
    """What one call uses, told to all the budgets that it counts for.

    Args:
        tallies: The budgets, at least one.
        prices: What models cost.
        model: The model that is asked; `None` for a call that needs none, which costs nothing.
        prompt_tokens: Estimate.

    Raises:
        BudgetError: One of them is spent already.
        ConfigError: One counts money, and the model has no price.
    """

    __slots__ = (
        "_model",
        "_pieces",
        "_prices",
        "_prompt_tokens",
        "_set_aside",
        "_size",
        "_sure",
        "_tallies",
        "_told",
        "_written",
    )

    def __init__(
        self, tallies: Sequence[Tally], prices: Prices, model: str | None, prompt_tokens: int
    ) -> None:
        self._tallies = tallies
        self._sure = (0, 0.0)  # tokens and CNY that were used for certain
        self._told = (0, 0)  # what the budgets know of this call, estimates included
        self._pieces: list[str] = []  # of text, not in `_written` yet
        self._size = 0  # of these
        self._written = 0  # tokens
        self._prompt_tokens = prompt_tokens
        self._set_aside = 0  # of these
        self.check()
        self.turn_to(prices, model)

    def turn_to(self, prices: Prices, model: str | None) -> None:
        """From now on another model is asked.

        Raises:
            ConfigError: A budget counts money, and the model has no price.
        """
        counts_money = any(tally.limit_cost is not None for tally in self._tallies)
        if counts_money and model is not None and prices.price(model, 0) is None:
            raise ConfigError(
                f"budget: {model} has no price, so its cost cannot be limited; pass "
                "prices=standard_prices().with_models({...}) to the client, or limit tokens="
            )
        self._prices, self._model = prices, model

    def check(self) -> None:
        """Do nothing as long as something is left.

        Raises:
            BudgetError: Nothing is. What this call used stays counted.
        """
        for tally in self._tallies:
            tally.check()

    def send(self) -> None:
        """A request is sent now: what its prompt will use is set aside until the call is over.

        Raises:
            BudgetError: Others have spent what was left when the call began.
        """
        self._set_aside = 0  # by a request that failed
        self._tell()
        self.check()
        self._set_aside = self._prompt_tokens
        self._tell()

    def feed(self, text: str) -> None:
        """More of the answer came, thinking text included."""
        if not text:
            return
        self._pieces.append(text)
        self._size += len(text)
        if self._size >= COUNT_ANEW:
            self._written += self._count_pieces()
            self._pieces, self._size = [], 0
        self._tell()

    def add(self, usage: Usage) -> None:
        """So much was used for certain, or as certain as it will ever be, by the model at hand."""
        tokens, cost = self._sure
        used = tokens_used(usage)
        self._sure = tokens + used, cost + (self._prices.cost(self._model, usage) or 0.0)
        self._tell()

    def settle(self, usage: Usage) -> None:
        """The answer is over: what was used takes the place of what was estimated."""
        self._pieces, self._size, self._written = [], 0, 0
        self._set_aside = 0
        self.add(usage)

    def close(self) -> None:
        """The call is over: what is only an estimate still was not used."""
        self.settle(Usage())

    def _count_pieces(self) -> int:
        return estimate_tokens("".join(self._pieces))

    def _tell(self) -> None:
        written = self._written + self._count_pieces()
        tokens, cost = self._sure
        price = self._prices.price(self._model, self._prompt_tokens)
        if price is not None:
            cost += (self._set_aside * price.input + written * price.output) / MILLION
        told = tokens + self._set_aside + written, round(cost * UNITS)
        for tally in self._tallies:
            tally.tokens += told[0] - self._told[0]
            tally.units += told[1] - self._told[1]
        self._told = told
