"""One of our metrics under a name of another product: what such a name is computed from."""

from collections.abc import Callable, Mapping
from operator import add
from typing import Literal

from slipway.telemetry.definitions import Labels
from slipway.types import Record

Named = Mapping[str, str]  # the labels of one of our rows, by name
Pick = Callable[[Named], Labels | None]  # the values of the labels there; None leaves the row out
Amount = Literal["row", "sum", "value"]
Kind = Literal["counter", "gauge", "histogram"]


class Alias(Record, frozen=True, kw_only=True):
    """A metric under a name of another product.

    `source` is a key of METRICS. `amount` is what is written of a row: the whole histogram, or a
    counter or gauge from the `sum` of a histogram or from the `value` of a row. `scaled` replaces
    the value of a row by one that depends on its labels, too. Rows with the same labels there are
    `joined`.
    """

    name: str
    about: str
    kind: Kind
    source: str
    labels: Labels
    pick: Pick
    amount: Amount = "value"
    scaled: Callable[[Named, float], float] | None = None
    joined: Callable[[float, float], float] = add


def with_type(kind: str, pick: Pick) -> Pick:
    """Return a pick of the rows about one type of tokens."""
    return lambda row: pick(row) if row["gen_ai_token_type"] == kind else None


def in_state(label: str, value: str, pick: Pick) -> Pick:
    """Return a pick of the rows with this value of a label."""
    return lambda row: pick(row) if row[label] == value else None
