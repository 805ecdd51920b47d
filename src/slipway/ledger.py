"""The one authority on usage, price and money. Exact: Decimal throughout; a price that is not known is None, never zero."""

from decimal import Decimal

from slipway.settings import Price
from slipway.types import Usage

MILLION = Decimal(1_000_000)


def cost_usd(price: Price | None, usage: Usage | None) -> Decimal | None:
    """What an answer cost; None where the price or the usage is not known. Cached tokens are part of the input tokens."""
    if price is None or usage is None:
        return None
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_tokens
    return (fresh * price.input + usage.cached_tokens * cached_price + usage.output_tokens * price.output) / MILLION


def plain(amount: Decimal | None) -> str | None:
    """An amount as people write it, without an exponent."""
    return None if amount is None else f"{amount.normalize():f}"
