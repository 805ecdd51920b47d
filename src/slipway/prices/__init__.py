"""What models cost: prices of the settings file, else of the catalogue, prepared for computing.

An unknown price is None. A price of 0 in a catalogue means that it is unknown; only the settings
file can say that a model costs nothing.
"""

from decimal import Decimal

import msgspec

from slipway.settings import Price
from slipway.types import Record

PICO = 10**12  # picodollars in a USD
PER_TOKEN = 10**6  # picodollars for each token, from USD per million tokens
SETTINGS = "settings"  # the source of a price in the settings file


class Rates(Record, frozen=True, kw_only=True):
    """Prices in picodollars: for each token, request, generated image, and minute of audio.

    `tiers` hold the prices of calls with more than `above` input tokens, the highest first.
    `most_input` and `most_output` are what a token of each side may cost at most.
    """

    source: str
    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_1h: int
    image_input: int
    reasoning: int
    audio_input: int | None = None
    audio_output: int | None = None
    image_output: int | None = None
    request: int = 0
    image: int | None = None
    audio_minute: int | None = None
    above: int = 0
    tiers: "tuple[Rates, ...]" = ()
    most_input: int = 0  # these two are computed
    most_output: int = 0

    def __post_init__(self) -> None:
        most = max(self.input, self.cache_write, self.cache_write_1h, self.image_input)
        msgspec.structs.force_setattr(self, "most_input", most)
        msgspec.structs.force_setattr(self, "most_output", max(self.output, self.reasoning))


def rates_of(price: Price | None, source: str = SETTINGS, *, batch: bool = False) -> Rates | None:
    """Return a price of the settings, prepared; with `batch`, that of calls in batches.

    Raises ValueError for a price that is no whole number of picodollars.
    """
    if price is None:
        return None
    times = price.batch if batch and price.batch is not None else Decimal(1)
    base = _rates(price, source, times)
    tiers = [
        _rates(
            msgspec.structs.replace(
                price,
                **{
                    name: value
                    for name, value in msgspec.structs.asdict(tier).items()
                    if name != "above" and value is not None
                },
            ),
            source,
            times,
            above=tier.above,
        )
        for tier in sorted(price.tiers, key=lambda tier: -tier.above)
    ]
    return msgspec.structs.replace(base, tiers=tuple(tiers))


def _rates(price: Price, source: str, times: Decimal, above: int = 0) -> Rates:
    def token(usd: Decimal) -> int:
        return whole(usd * times * PER_TOKEN)

    def piece(usd: Decimal) -> int:
        return whole(usd * times * PICO)

    plain, written = token(price.input), token(price.output)
    kept = plain if price.cache_write is None else token(price.cache_write)
    return Rates(
        source=source,
        input=plain,
        output=written,
        cached=plain if price.cached_input is None else token(price.cached_input),
        cache_write=kept,
        cache_write_1h=kept if price.cache_write_1h is None else token(price.cache_write_1h),
        image_input=plain if price.image_input is None else token(price.image_input),
        reasoning=written if price.reasoning is None else token(price.reasoning),
        audio_input=None if price.audio_input is None else token(price.audio_input),
        audio_output=None if price.audio_output is None else token(price.audio_output),
        image_output=None if price.image_output is None else token(price.image_output),
        request=0 if price.request is None else piece(price.request),
        image=None if price.image is None else piece(price.image),
        audio_minute=None if price.audio_minute is None else piece(price.audio_minute),
        above=above,
    )


def whole(amount: Decimal) -> int:
    """Return an amount of picodollars. Raises ValueError if it is no whole number."""
    number = int(amount)
    if number != amount:
        raise ValueError("a price may have six decimals for each million tokens")
    return number
