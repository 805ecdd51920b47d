"""The models' providers: their contract, and the table of kinds.

A provider speaks one protocol to one endpoint. `mock` is a provider to test against, with a command
of its own (`slipway mock`).
"""

import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol, cast

import msgspec

from slipway.settings import ModelSettings, Needs, Price
from slipway.types import Piece, Record, Usage

# What a probe finds: `well`; `refused`, which says little about calls; `failing`; connected, but
# `silent`; `unreachable`
Reachable = Literal["well", "refused", "failing", "silent", "unreachable"]


class Call(Record, frozen=True, kw_only=True):
    """What a model is asked: an OpenAI chat-completions body, and the position of the model's name
    in it.

    `body[name_at[0]:name_at[1]]` is the JSON string of the name, which each provider replaces with
    its own. `usage_wanted`: the client asked for the usage chunk of a stream; `keep_usage`: pass
    that chunk on if there is one, whoever asked; `stream_options` holds the client's other
    options. `is_single`: the request has no `n`, so there is one choice; false if that is not
    known. A `patient` call waits for a model that is still loading; a call that another model can
    answer does not. `may_resend` is called before the request is sent a second time because a kept
    connection was closed. The first words must arrive by `words_by`, the last by `ends_by`
    (monotonic clock). `trace` holds the header lines of the trace that the call belongs to.
    """

    body: bytes
    name_at: tuple[int, int]
    stream: bool
    usage_wanted: bool = False
    keep_usage: bool = False
    stream_options: dict[str, Any] = msgspec.field(default_factory=dict)
    is_single: bool = False
    patient: bool = True
    may_resend: Callable[[], bool] = lambda: True
    words_by: float = math.inf
    ends_by: float = math.inf
    trace: bytes = b""


class Completion(Record, frozen=True, kw_only=True):
    """An answer that came in one piece: its original bytes, and the fields read from them."""

    raw: bytes
    text: str
    finish: str | None
    usage: Usage | None
    left_out: int = 0  # fields that could not be read


class ModelReply(Protocol):
    """An answer in progress. `close` must be called in any case; it stops at once what
    still runs.
    """

    async def pieces(self) -> list[Piece]:
        """Return the next events of a stream; an empty list is its proper end. Raises ProviderError
        for any other end.
        """
        ...

    def push_usual(self, take: Callable[[bytes, list[str]], bool]) -> None:
        """Hand usual events, which hold some text and nothing else, to `take` as they arrive, while
        `pieces` waits: their original bytes and their texts. If `take` returns False, or for any
        other event, `pieces` returns them.
        """
        ...

    async def whole(self) -> Completion:
        """Return the answer to a call that asked for no stream."""
        ...

    def rate_limits(self) -> Sequence[tuple[bytes, bytes]]:
        """Return the provider's `x-ratelimit-*` headers, which clients pace themselves by."""
        ...

    def close(self) -> None:
        """Release the connection. May be called twice."""
        ...


class Provider(Protocol):
    """One model behind one endpoint."""

    name: str  # our name of the model
    kind: str  # the provider as metrics name it
    zone: str
    price: Price | None
    parallel: int | None  # the most calls at once, if it has a limit

    @property
    def state(self) -> str | None:
        """Return the state of a model that runs here: `starting`, `ready`, `waiting: why` or
        `failed: why`. None for a remote endpoint.
        """
        ...

    def start(self) -> None:
        """Begin what the model needs before its first call. Needs a running loop;
        returns at once.
        """
        ...

    async def chat(self, call: Call) -> ModelReply:
        """Start an answer; return when its response head is here. Raises ProviderError."""
        ...

    async def probe(self) -> Reachable:
        """Find out whether the model can be reached, without a call that costs money."""
        ...

    def retire(self) -> None:
        """Release what is idle now, and the rest with the last call, since other settings apply.
        Later calls still work.
        """
        ...

    async def close(self) -> None:
        """End everything at once."""
        ...


class ProviderKind(Record, frozen=True, kw_only=True):
    """Where a kind's class is (imported when a model uses it), and the setting that such a model
    needs.
    """

    module: str
    attribute: str
    needs: Needs


KINDS = {
    "openai": ProviderKind(module=".openai", attribute="OpenAIProvider", needs="base_url"),
    "local": ProviderKind(module=".local", attribute="LocalProvider", needs="weights"),
}
NEEDS = {name: kind.needs for name, kind in KINDS.items()}


def create(name: str, model: ModelSettings, endpoint: str) -> Provider:
    """Return the provider of one model of the settings. `endpoint` is the well-known provider's
    name, or the kind's own. Raises SettingsError if an extra is missing.
    """
    kind = KINDS[model.provider if model.provider in KINDS else "openai"]
    make = cast(
        "Callable[[str, ModelSettings, str], Provider]",
        getattr(import_module(kind.module, __package__), kind.attribute),
    )
    return make(name, model, endpoint)


encode_json = msgspec.json.Encoder().encode
