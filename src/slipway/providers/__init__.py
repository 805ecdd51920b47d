"""The models' providers: the contract, and the table of kinds.

A provider speaks one protocol to one endpoint. `quote` answers without a model, and `mock` is a
provider to test against; both have their own guards (`quote.quote`, `slipway mock`).
"""

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec

from slipway.settings import Model, Needs, Price
from slipway.types import Piece, Record, Usage


class Call(Record, frozen=True, kw_only=True):
    """What a model is asked: an OpenAI chat-completions body, and where in it the model's name
    stands.

    `body[name_at[0]:name_at[1]]` is the JSON string of the name, which each provider replaces with
    its own. `usage_wanted` tells whether the client asked for the usage chunk of a stream;
    `stream_options` holds what else it asked of the stream. A `patient` call waits for a model that
    is being loaded; one that another model may answer does not. The first words must be here at
    `words_by`, the last at `ends_by` (readings of the monotonic clock).
    """

    body: bytes
    name_at: tuple[int, int]
    stream: bool
    usage_wanted: bool = False
    stream_options: dict[str, Any] = msgspec.field(default_factory=dict)
    patient: bool = True
    words_by: float = math.inf
    ends_by: float = math.inf


class Whole(Record, frozen=True, kw_only=True):
    """An answer that came in one piece: its original bytes, and what was read from them."""

    raw: bytes
    text: str
    finish: str | None
    usage: Usage | None


class ModelReply(Protocol):
    """An answer under way. `close` must be called in any case; it ends what is still running at
    once.
    """

    async def pieces(self) -> list[Piece]:
        """The next events of a stream; an empty list is its proper end. Raises ProviderError for
        any other end.
        """
        ...

    async def whole(self) -> Whole:
        """The answer to a call that asked for no stream."""
        ...

    def close(self) -> None: ...


class Provider(Protocol):
    name: str  # our name of the model
    kind: str  # the provider as metrics name it
    zone: str
    price: Price | None
    parallel: int | None  # calls that it takes side by side, where it has a limit

    @property
    def state(self) -> str | None:
        """How a model is that runs here: `starting`, `ready`, `waiting: why` or `failed: why`. None
        for an endpoint, which is not asked.
        """
        ...

    def start(self) -> None:
        """Begins what a model needs before its first call, where the loop runs; returns at once."""
        ...

    async def chat(self, call: Call) -> ModelReply:
        """Starts an answer: returns when its head is here. Raises ProviderError."""
        ...

    async def probe(self) -> bool:
        """Whether it can be reached, asked without paying for anything."""
        ...

    def retire(self) -> None:
        """Other settings count from now on: what is not in use ends at once, the rest with the last
        call. A call that comes later still works.
        """
        ...

    async def close(self) -> None:
        """Ends everything at once."""
        ...


class Kind(Record, frozen=True, kw_only=True):
    """Where a kind's class is, which is imported when a model uses it; and the setting that such a
    model cannot be without.
    """

    module: str
    attribute: str
    needs: Needs


KINDS = {
    "openai": Kind(module=".openai", attribute="OpenAIProvider", needs="base_url"),
    "local": Kind(module=".local", attribute="LocalProvider", needs="weights"),
}
NEEDS = {name: kind.needs for name, kind in KINDS.items()}


def create(name: str, model: Model, endpoint: str) -> Provider:
    """The provider of one model of the settings; `endpoint` is the well-known provider's name, or
    the kind's own. SettingsError where an extra is missing.
    """
    kind = KINDS[model.provider if model.provider in KINDS else "openai"]
    make = cast(
        "Callable[[str, Model, str], Provider]",
        getattr(import_module(kind.module, __package__), kind.attribute),
    )
    return make(name, model, endpoint)


encode_json = msgspec.json.Encoder().encode
