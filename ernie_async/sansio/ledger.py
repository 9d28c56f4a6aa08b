"""What a client has used so far, and how far its estimates are off.

Numbers only: no text is kept. Serves one client and those that `with_options` makes of it.
"""

from collections.abc import Callable
from typing import NamedTuple

from ernie_async.types.prices import Prices, cost_at
from ernie_async.types.usage import Usage

__all__ = ["Ledger", "PromptCorrection", "Totals"]

# The newest call counts one eighth: an average over some dozen calls.
WEIGHT = 1 / 8

# A tokenizer is never further from the estimate than this; a service that reports one token for
# every prompt, as was recorded, is.
LEAST, MOST = 0.25, 4.0

# What a shorter prompt says is mostly the overhead of its messages.
LEAST_TOKENS = 16

# Far more than a program names models. A gateway that passes on the names of strangers stays small.
MAX_MODELS = 1000

# Once a ratio is known that well, every 17th call is enough to keep it. It is a prime, so that both
# are looked at where prompts that can be compared and others take turns.
SURE_AFTER, LOOK_EVERY = 16, 17


class PromptCorrection:
    """The ratio of real to estimated prompt tokens, for each model: a moving average."""

    __slots__ = ("_ratios", "_seen")

    def __init__(self) -> None:
        self._ratios: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def note(self, model: str, *, estimated: int, real: int) -> None:
        """Learn from one call. One that says nothing is passed over."""
        if estimated < LEAST_TOKENS or not LEAST <= real / estimated <= MOST:
            return
        ratio = real / estimated
        before = self._ratios.get(model)
        self._ratios[model] = ratio if before is None else before + WEIGHT * (ratio - before)

    def wants(self, model: str) -> bool:
        """Whether it is worth estimating the next call only to learn from it."""
        seen = self._seen.get(model, 0)
        if not seen and len(self._seen) >= MAX_MODELS:
            self._seen.clear()
            self._ratios.clear()
        self._seen[model] = seen + 1
        return seen < SURE_AFTER or seen % LOOK_EVERY == 0

    def ratio(self, model: str | None) -> float:
        """By what to multiply an estimate; 1 for a model of which nothing is known."""
        return self._ratios.get(model or "", 1.0)

    def corrected(self, model: str | None, estimated: int) -> int:
        """An estimate, corrected."""
        return round(estimated * self.ratio(model))


class Totals(NamedTuple):
    """What a client has used since it was made.

    Attributes:
        calls: Chats that brought an answer, or a part of one; and those sent a second time that
            lost to the other one, see `Hedging`.
        prompt_tokens: Of all of them.
        cached_tokens: Of these: how many came from a cache.
        completion_tokens: Of all of them.
        estimated_calls: Calls whose tokens were estimated, since the service did not tell.
        cost: CNY, of the calls whose model has a price.
        unpriced_calls: Calls whose model has none, and which `cost` therefore lacks.
    """

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    estimated_calls: int = 0
    cost: float = 0.0
    unpriced_calls: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompts and answers together."""
        return self.prompt_tokens + self.completion_tokens


class Ledger:
    """Adds up what calls used.

    Args:
        prices: Asked at the first call, so that a table need not be read before.

    Attributes:
        correction: What was learnt of each model.
    """

    __slots__ = (
        "_cached_tokens",
        "_calls",
        "_completion_tokens",
        "_cost",
        "_estimated_calls",
        "_prices",
        "_prompt_tokens",
        "_unpriced_calls",
        "correction",
    )

    def __init__(self, prices: Callable[[], Prices]) -> None:
        self._prices = prices
        self._calls = 0
        self._prompt_tokens = 0
        self._cached_tokens = 0
        self._completion_tokens = 0
        self._estimated_calls = 0
        self._cost = 0.0
        self._unpriced_calls = 0
        self.correction: PromptCorrection = PromptCorrection()

    @property
    def prices(self) -> Prices:
        """What models cost."""
        return self._prices()

    @property
    def totals(self) -> Totals:
        """So far."""
        return Totals(
            calls=self._calls,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            completion_tokens=self._completion_tokens,
            estimated_calls=self._estimated_calls,
            cost=self._cost,
            unpriced_calls=self._unpriced_calls,
        )

    def note(self, model: str | None, usage: Usage) -> None:
        """One call is over."""
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        details = usage.prompt_tokens_details
        cached = (details and details.cached_tokens) or 0
        self._calls += 1
        self._prompt_tokens += prompt
        self._completion_tokens += completion
        self._cached_tokens += cached
        if usage.is_estimate:
            self._estimated_calls += 1
        price = self._prices().price(model, prompt)
        if price is None:
            self._unpriced_calls += 1
        else:
            self._cost += cost_at(price, prompt, cached, completion)
