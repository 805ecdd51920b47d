"""The one authority on usage, price and money. Exact: Decimal throughout; a price that is not known
is None, never zero.
"""

from collections.abc import Sequence
from decimal import Decimal

from slipway.settings import Price
from slipway.types import Record, Usage

MILLION = Decimal(1_000_000)


class Spent(Record, frozen=True, kw_only=True):
    """One call to a model. `usage` is None where its provider did not say."""

    model: str
    price: Price | None
    usage: Usage | None


def cost_usd(price: Price | None, usage: Usage | None) -> Decimal | None:
    """What an answer cost; None where the price or the usage is not known. Cached tokens are part
    of the input tokens.
    """
    if price is None or usage is None:
        return None
    cached_price = price.input if price.cached_input is None else price.cached_input
    fresh = usage.input_tokens - usage.cached_tokens
    return (
        fresh * price.input
        + usage.cached_tokens * cached_price
        + usage.output_tokens * price.output
    ) / MILLION


def used(spent: Sequence[Spent]) -> Usage | None:
    """The tokens of several calls; `estimated` where some of them are not known, so that there were
    more. None where none are.
    """
    known = [each.usage for each in spent if each.usage is not None]
    if not known:
        return None
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in known),
        output_tokens=sum(usage.output_tokens for usage in known),
        cached_tokens=sum(usage.cached_tokens for usage in known),
        estimated=len(known) < len(spent) or any(usage.estimated for usage in known),
    )


def total_usd(spent: Sequence[Spent]) -> Decimal | None:
    """What several calls cost together; None where that of one is not known."""
    costs = [cost_usd(each.price, each.usage) for each in spent]
    return (
        None
        if None in costs or not costs
        else sum((cost for cost in costs if cost is not None), Decimal(0))
    )


def plain(amount: Decimal | None) -> str | None:
    """An amount as people write it, without an exponent."""
    return None if amount is None else f"{amount.normalize():f}"
