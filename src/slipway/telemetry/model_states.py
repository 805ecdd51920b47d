"""The state of a model as one process knows it."""

import msgspec

BAD = ("closed", "half-open", "open")  # the worst one comes last


class ModelState(msgspec.Struct, frozen=True):
    """The state of a model's breaker and how many calls run; if they are limited, how many wait, and
    how long the oldest has waited.
    """

    state: str
    running: int = 0
    waiting: int | None = None
    oldest_s: float | None = None
