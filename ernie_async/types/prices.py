"""What tokens cost: a dated table that the caller can replace, and the arithmetic.

The table is `prices.json` beside this file, read when it is first needed. Prices change; whoever
needs exact numbers brings their own.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ernie_async.types.usage import Usage
from ernie_async.types.wire import read_json

__all__ = ["Price", "Prices", "cost_at", "standard_prices"]

MILLION = 1_000_000


class Price(NamedTuple):
    """What a model costs, in CNY for a million tokens.

    Attributes:
        input: Of the prompt.
        output: Of the answer, its reasoning included.
        cached: Of prompt tokens that came from a cache; `None` if they cost as any other.
        up_to: Prompts of at most so many tokens cost this; `None` for all that are left.
    """

    input: float
    output: float
    cached: float | None = None
    up_to: int | None = None


class Prices(NamedTuple):
    """A table of prices.

    Attributes:
        models: For each model its price, or its tiers with the shortest prompts first.
        date: When the table was true, as `2026-11-15`.
    """

    models: Mapping[str, Price | Sequence[Price]]
    date: str = ""

    def price(self, model: str | None, prompt_tokens: int) -> Price | None:
        """The price of one call; `None` if the table does not have it."""
        tiers: Any = self.models.get(model or "", ())
        # A price is a tuple, too.
        for tier in (tiers,) if isinstance(tiers, Price) else tiers:
            if tier.up_to is None or prompt_tokens <= tier.up_to:
                found: Price = tier
                return found
        return None

    def cost(self, model: str | None, usage: Usage) -> float | None:
        """What a call cost, in CNY; `None` if the table does not have its model."""
        details = usage.prompt_tokens_details
        cached = (details and details.cached_tokens) or 0
        price = self.price(model, usage.prompt_tokens)
        if price is None:
            return None
        return cost_at(price, usage.prompt_tokens, cached, usage.completion_tokens)

    def with_models(self, models: Mapping[str, Price | Sequence[Price]]) -> "Prices":
        """The same table with other or further models."""
        return self._replace(models={**self.models, **models})


def cost_at(price: Price, prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> float:
    """What a call cost, in CNY. The cached tokens are among those of the prompt."""
    total = completion_tokens * price.output
    if cached_tokens and price.cached is not None:
        cached = min(cached_tokens, prompt_tokens)
        total += (prompt_tokens - cached) * price.input + cached * price.cached
    else:
        total += prompt_tokens * price.input
    return total / MILLION


@cache
def standard_prices() -> Prices:
    """The table that comes with this version; its `date` says how old it is."""
    told = read_json(Path(__file__).with_name("prices.json").read_bytes())
    return Prices(
        models={
            name: tuple(Price(**tier) for tier in tiers) for name, tiers in told["models"].items()
        },
        date=told["date"],
    )
