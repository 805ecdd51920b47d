"""The one authority on usage, prices and money: exact Decimals; an unknown price is None, not 0."""

from collections.abc import Sequence
from decimal import Decimal

from slipway.settings import Price
from slipway.types import Record, Usage

MILLION = Decimal(1_000_000)


class CallUsage(Record, frozen=True, kw_only=True):
    """The usage of one call to a model; `usage` is None if the provider did not report it."""

    model: str
    price: Price | None
    usage: Usage | None


def cost_usd(price: Price | None, usage: Usage | None) -> Decimal | None:
    """Return the cost of a call in USD, or None if the price or the usage is unknown.

    `cached_tokens` are part of `input_tokens`.
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


def total_usage(spent: Sequence[CallUsage]) -> Usage | None:
    """Return the tokens of several calls, or None if no usage is known.

    `estimated` is set if the usage of some calls is unknown; then the sum is too low.
    """
    if len(spent) == 1:  # as nearly always
        return spent[0].usage
    known = [each.usage for each in spent if each.usage is not None]
    if not known:
        return None
    return Usage(
        input_tokens=sum(usage.input_tokens for usage in known),
        output_tokens=sum(usage.output_tokens for usage in known),
        cached_tokens=sum(usage.cached_tokens for usage in known),
        estimated=len(known) < len(spent) or any(usage.estimated for usage in known),
    )


def total_usd(spent: Sequence[CallUsage]) -> Decimal | None:
    """Return the cost of several calls in USD, or None if the cost of one is unknown."""
    if len(spent) == 1:
        return cost_usd(spent[0].price, spent[0].usage)
    costs = [cost_usd(each.price, each.usage) for each in spent]
    return (
        None
        if None in costs or not costs
        else sum((cost for cost in costs if cost is not None), Decimal(0))
    )


def format_usd(amount: Decimal | None) -> str | None:
    """Return an amount as plain decimal text without an exponent."""
    return None if amount is None else f"{amount.normalize():f}"
