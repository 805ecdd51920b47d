"""The one authority on usage and money: what a call cost, exactly; an unknown cost is None, not 0.

Amounts are integers of picodollars (10^-12 USD) wherever many are added or compared, and Decimals
of USD for people. A price of USD per million tokens with six decimals is a whole number of
picodollars for each token, so both are exact.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from slipway.prices import PICO, Rates
from slipway.settings.values import duration
from slipway.types import CallKind, Record, Usage

AUDIO_MINUTE = 60_000  # milliseconds


class LedgerRow(Record, frozen=True, kw_only=True, gc=False, omit_defaults=True):
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


class HeldCall(Record, frozen=True, kw_only=True, gc=False, array_like=True):
    """A call that begins, and what it may take and cost at most."""

    id: str
    answer: str
    at: float
    owner: str
    tenant: str
    app: str
    model: str
    provider: str
    zone: str
    input_tokens: int
    output_tokens: int
    cost: int | None
    price_source: str

    def lost(self) -> LedgerRow:
        """Return what is booked if this process is killed during the call."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        tokens = {name: values.pop(name) for name in ("input_tokens", "output_tokens")}
        usage = Usage(**tokens, estimated=True)
        return LedgerRow(**values, kind="first", error="lost", usage=usage)


class CallUsage(Record, frozen=True, kw_only=True, gc=False):
    """What one call to a model took; `cost` is in picodollars, None if it is unknown."""

    model: str
    usage: Usage
    cost: int | None


def usd(picodollars: int | None) -> Decimal | None:
    """Return an amount in USD, exactly."""
    return None if picodollars is None else Decimal(picodollars).scaleb(-12)


def cost_of(rates: Rates | None, usage: Usage) -> int | None:
    """Return the cost of a call in picodollars; None if a price that it needs is unknown.

    All tokens of a call have the price of the tier that its input reaches, as providers charge
    them. Cached tokens, cache writes, images and reasoning without a price of their own cost what
    other tokens of their side cost, and writes for an hour what other writes do; audio, and images that a model makes, are then unknown.
    """
    if rates is None:
        return None
    for tier in rates.tiers:  # the highest first
        if usage.input_tokens > tier.above:
            rates = tier
            break
    special = usage.cached_tokens + usage.cache_write_tokens
    special += usage.audio_input_tokens + usage.image_input_tokens
    made = usage.reasoning_tokens + usage.audio_output_tokens + usage.image_output_tokens
    if not special and not made and not usage.images and not usage.audio_ms:  # nearly every call
        return rates.request + usage.input_tokens * rates.input + usage.output_tokens * rates.output
    if needs_unknown(rates, usage):
        return None
    return (
        rates.request
        + max(0, usage.input_tokens - special) * rates.input
        + usage.cached_tokens * rates.cached
        + (usage.cache_write_tokens - usage.cache_write_1h_tokens) * rates.cache_write
        + usage.cache_write_1h_tokens * rates.cache_write_1h
        + usage.audio_input_tokens * (rates.audio_input or 0)
        + usage.image_input_tokens * rates.image_input
        + max(0, usage.output_tokens - made) * rates.output
        + usage.reasoning_tokens * rates.reasoning
        + usage.audio_output_tokens * (rates.audio_output or 0)
        + usage.image_output_tokens * (rates.image_output or 0)
        + usage.images * (rates.image or 0)
        + (usage.audio_ms * (rates.audio_minute or 0) + AUDIO_MINUTE // 2) // AUDIO_MINUTE
    )


def most_cost(
    rates: Rates | None,
    input_tokens: int,
    output_tokens: int,
    *,
    audio: int = 0,
    makes: Literal["text", "audio", "images"] = "text",
) -> int | None:
    """Return what a call with so many tokens may cost at most; None if its price is unknown.

    `audio` are the input tokens that are audio, and `makes` says what the output may be.
    """
    if rates is None:
        return None
    for tier in rates.tiers:  # the highest first
        if input_tokens > tier.above:
            rates = tier
            break
    if not audio and makes == "text":  # nearly always
        return rates.request + input_tokens * rates.most_input + output_tokens * rates.most_output
    made = {"text": 0, "audio": rates.audio_output, "images": rates.image_output}[makes]
    heard = rates.audio_input if audio else 0
    if made is None or heard is None:
        return None
    return (
        rates.request
        + (input_tokens - audio) * rates.most_input
        + audio * max(heard, rates.most_input)
        + output_tokens * max(made, rates.most_output)
    )


def needs_unknown(rates: Rates, usage: Usage) -> bool:
    """Return whether a call needs a price that is not known."""
    return bool(
        (usage.audio_input_tokens and rates.audio_input is None)
        or (usage.audio_output_tokens and rates.audio_output is None)
        or (usage.image_output_tokens and rates.image_output is None)
        or (usage.images and rates.image is None)
        or (usage.audio_ms and rates.audio_minute is None)
    )


def total_usage(spent: Sequence[CallUsage]) -> Usage | None:
    """Return the tokens of several calls; None if there were none. `estimated` is set if one is."""
    if not spent:
        return None
    if len(spent) == 1:
        return spent[0].usage
    sums = {
        name: sum(getattr(each.usage, name) for each in spent)
        for name in Usage.__struct_fields__
        if name != "estimated"
    }
    return Usage(**sums, estimated=any(each.usage.estimated for each in spent))


def total_cost(spent: Sequence[CallUsage]) -> int | None:
    """Return the cost of several calls in picodollars; None if there are none, or the cost of one
    is unknown.
    """
    total = 0
    for each in spent:
        if each.cost is None:
            return None
        total += each.cost
    return total if spent else None


def total_usd(spent: Sequence[CallUsage]) -> Decimal | None:
    """Return the cost of several calls in USD; None as `total_cost` does."""
    return usd(total_cost(spent))


def in_usd(picodollars: int | None) -> str | None:
    """Return an amount in USD as `format_usd` does."""
    if picodollars is None:
        return None
    dollars, rest = divmod(picodollars, PICO)
    return f"{dollars}.{rest:012d}".rstrip("0") if rest else str(dollars)


def format_usd(amount: Decimal | None) -> str | None:
    """Return an amount as plain decimal text without an exponent."""
    return None if amount is None else f"{amount.normalize():f}"


def moment(since: str | None) -> float:
    """Return the time of `7d` (ago) or of a day, in seconds since the epoch; 0 for None. Raises
    ValueError, which says what is expected.
    """
    if since is None:
        return 0.0
    try:
        return datetime.strptime(since, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - duration(since)
    except ValueError as error:
        if "unit" in str(error):
            raise
        what = f"`{since[:100]}` is neither a duration nor a day; write `7d` or `2026-01-31`"
        raise ValueError(what) from None
