"""Settings of a batch as people write them: prices in TOML, `auto:4..128`."""

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from ernie_async.errors import ConfigError
from ernie_async.sansio.adaptive import Adaptive
from ernie_async.types.prices import Price, Prices

__all__ = ["PriceTable", "read_concurrency", "read_prices"]

# A file has prices for 1,000 tokens, as the service's own page; a `Price` is for a million.
PER_MILLION = 1000

SIGNS = {"CNY": "¥", "USD": "$", "EUR": "€"}


class PriceTable(NamedTuple):
    """Prices, and the sign of their currency."""

    prices: Prices
    sign: str


def read_prices(path: Path) -> PriceTable:
    """A table of prices for 1,000 tokens, from a TOML file.

    Raises:
        ConfigError: It cannot be read, or is no such table.
    """
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"prices: {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"prices: {path}: {error}") from None
    models = told.get("models")
    if not isinstance(models, dict):
        raise ConfigError(f'prices: {path}: expected [models."name"] with input and output')
    currency = str(told.get("currency", "CNY"))
    table = {name: _price(path, name, fields) for name, fields in models.items()}
    return PriceTable(Prices(models=table), SIGNS.get(currency, f"{currency} "))


def _price(path: Path, name: str, fields: Any) -> Price:
    try:
        given: dict[str, Any] = {key: float(fields[key]) * PER_MILLION for key in fields}
        if "up_to" in given:
            raise ValueError("up_to")  # tiers are for programs
        return Price(**given)
    except (TypeError, ValueError):
        raise ConfigError(
            f"prices: {path}: {name}: expected numbers input and output, and cached if you like"
        ) from None


def read_concurrency(text: str) -> int | Adaptive:
    """From `32`, `auto` or `auto:4..128`.

    Raises:
        ConfigError: It is none of these.
    """
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    found = re.fullmatch(r"auto(?::(\d+)\.\.(\d+))?", text)
    if found is None:
        raise ConfigError(f"concurrency: expected 32, auto or auto:4..128, got {text}")
    if found[1] is None:
        return Adaptive()
    low, high = int(found[1]), int(found[2])
    return Adaptive(start=max(low, min(8, high)), min=low, max=high)
