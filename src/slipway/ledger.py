"""The one authority on usage, prices and money: exact amounts; an unknown price is None, not 0.

Amounts are integers of picodollars (10^-12 USD) wherever many are added or compared, and Decimals
of USD for people. A price of USD per million tokens with six decimals is a whole number of
picodollars for each token, so both are exact.
"""

from collections.abc import Sequence
from decimal import Decimal

from slipway.settings import Price
from slipway.types import CallKind, Record, Usage

MILLION = Decimal(1_000_000)
PICO = 10**12  # picodollars in a USD


class LedgerRow(Record, frozen=True, kw_only=True):
    """One call of a model and what it cost. It is booked once, when the call has ended.

    `owner` identifies the key (`Asker.owner`), `app` is the name that the client called: an app, a
    route or a model. `cost` is in picodollars, None if it is unknown; `price_source` says where the
    price is from: `settings`, `catalogue DATE`, or nothing if there is none. `error` is the code of
    the call's error: `cancelled` if it was given up, `lost` if this process was killed during the
    call, so that only an upper limit of its cost is known.
    """

    id: str  # of the call
    answer: str  # the id of the answer that the call belongs to
    at: float  # when the call ended, in seconds since the epoch
    owner: str
    tenant: str
    app: str
    model: str
    provider: str
    zone: str
    kind: CallKind
    endpoint: str = "chat"
    upstream: str = ""  # the provider's own id of the call, if it sent one
    error: str | None = None
    usage: Usage = Usage()
    cost: int | None = None
    price_source: str = ""

    @property
    def cost_usd(self) -> Decimal | None:
        return usd(self.cost)


def usd(picodollars: int | None) -> Decimal | None:
    """Return an amount in USD, exactly."""
    return None if picodollars is None else Decimal(picodollars).scaleb(-12)


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
    costs = [cost_usd(each.price, each.usage) for each in spent]
    return (
        None
        if None in costs or not costs
        else sum((cost for cost in costs if cost is not None), Decimal(0))
    )


def format_usd(amount: Decimal | None) -> str | None:
    """Return an amount as plain decimal text without an exponent."""
    return None if amount is None else f"{amount.normalize():f}"
