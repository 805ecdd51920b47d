"""Check the settings of models: their provider, address or weights, headers and prices."""

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec

from slipway.settings.known_names import (
    AddProblem,
    KnownNames,
    parse_url,
    suggest,
    without_login,
)
from slipway.settings.models import GGUF, ModelSettings, Price

HEADER_TEXT = re.compile(r"[\t -~\xa0-\xff]*")  # characters allowed in a request header
MOST_USD = Decimal(1_000_000)  # for a million tokens, or for one request, image or minute
FACTOR = Decimal("0.0001")  # of a price with this factor, a part may be no whole picodollar


def check_model(path: str, model: ModelSettings, known: KnownNames, problem: AddProblem) -> None:
    providers = [*known.kinds, *known.endpoints]
    if model.price is not None:
        check_price(f"{path}.price", model.price, problem)
    if model.provider not in providers:
        problem(
            f"{path}.provider",
            f"there is no provider `{model.provider}`; {suggest(model.provider, providers)}",
        )
    elif known.kinds.get(model.provider) == "weights":
        check_weights(path, model, known, problem)
    else:
        check_endpoint(path, model, known, problem)


def check_price(path: str, price: Price, problem: AddProblem) -> None:
    """Check that all prices are amounts that can be computed with exactly."""
    for field, usd in prices_in(price):
        if field == "batch":
            if not (usd.is_finite() and 0 < usd <= 1 and usd % FACTOR == 0):
                problem(
                    f"{path}.batch",
                    f"`{usd}` is not a factor; write a number up to 1, such as `0.5`",
                )
        elif not (usd.is_finite() and 0 <= usd <= MOST_USD):
            problem(
                f"{path}.{field}",
                f"`{usd}` is not a price; write USD per million tokens, such as `0.28`",
            )
        elif (usd * (price.batch or 1)).normalize().as_tuple().exponent < -6:  # type: ignore[operator]
            problem(
                f"{path}.{field}",
                f"`{usd}` has more than six decimals"
                + (" times `batch`" if price.batch is not None else "")
                + "; round it",
            )
    seen = set[int]()
    for number, tier in enumerate(price.tiers):
        if tier.above in seen:
            problem(f"{path}.tiers[{number}].above", f"`{tier.above}` is there twice; remove one")
        seen.add(tier.above)


def prices_in(price: Price) -> Iterator[tuple[str, Decimal]]:
    """Yield the name and the value of each price that is set."""
    for prefix, branch in (
        ("", price),
        *((f"tiers[{number}].", tier) for number, tier in enumerate(price.tiers)),
    ):
        for field, usd in msgspec.structs.asdict(branch).items():
            if isinstance(usd, Decimal):
                yield f"{prefix}{field}", usd


def check_weights(path: str, model: ModelSettings, known: KnownNames, problem: AddProblem) -> None:
    if not model.weights:
        problem(
            path,
            f"`weights` is missing; write {', '.join(known.weights)}, or the path of a `.gguf` "
            "file",
        )
    elif model.weights not in known.weights and not model.weights.endswith(GGUF):
        hint = suggest(model.weights, known.weights)
        problem(
            f"{path}.weights",
            f"there are no weights `{model.weights}`; {hint}; "
            f"for a file of your own, write its path, which ends in `{GGUF}`",
        )
    elif model.weights not in known.weights and not Path(model.weights).is_file():
        problem(f"{path}.weights", f"there is no file `{model.weights}`")
    if model.base_url:
        problem(f"{path}.base_url", "a local model has no address; remove it")
    if model.metrics:
        problem(f"{path}.metrics", "a local model has no server of its own; remove it")


def check_metrics(path: str, model: ModelSettings, problem: AddProblem) -> None:
    """Report an address of a server's metrics that cannot be read."""
    if isinstance(model.metrics, bool):
        return
    url = parse_url(model.metrics)
    if url is None or "@" in url.netloc:
        problem(
            f"{path}.metrics",
            f"`{without_login(model.metrics)}` is not an address; write `true`, or an address "
            "without a password, such as `http://gpu-1:8000/metrics`",
        )


def check_endpoint(path: str, model: ModelSettings, known: KnownNames, problem: AddProblem) -> None:
    if model.weights:
        problem(
            f"{path}.weights",
            f"`weights` needs `provider: {known.runner}`; add it, or remove `weights`",
        )
    url = parse_url(model.base_url)
    if not model.base_url:
        problem(
            path,
            "`base_url` is missing; add the API's address, "
            "such as `base_url: https://api.example.com/v1`",
        )
    elif url is None:
        problem(
            f"{path}.base_url",
            f"`{without_login(model.base_url)}` is not an address; write `http://…` or `https://…`",
        )
    elif "@" in url.netloc:
        problem(
            f"{path}.base_url",
            "the address must not contain a user name or password, which are never sent; "
            "use `api_key` or `headers`",
        )
    elif url.query or url.fragment:
        problem(f"{path}.base_url", "query parameters belong under `query:`")
    check_metrics(path, model, problem)
    ca_file = model.connection.ca_file
    if ca_file and not Path(ca_file).is_file():
        problem(f"{path}.connection.ca_file", f"there is no file `{ca_file}`")
    for header, value in model.headers.items():
        if not HEADER_TEXT.fullmatch(header + value):
            problem(
                f"{path}.headers.{header}",
                "a header must not contain line breaks or characters outside Latin-1",
            )
    if model.api_key and not HEADER_TEXT.fullmatch(model.api_key):
        problem(
            f"{path}.api_key",
            "a key must not contain line breaks or characters outside Latin-1; copy it again",
        )
