"""The settings of kept answers."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from slipway.settings.values import Branch, Duration


class SemanticSettings(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "max_error"
    max_error: Annotated[
        str,
        Meta(description="largest share of wrong answers, such as `1%`; nothing is served above"),
    ]
    per: Annotated[
        Literal["hit", "request"],
        Meta(
            description="what the share is of: the answers served to similar questions (`hit`), or "
            "all requests (`request`)"
        ),
    ] = "hit"
    compare: Annotated[
        Literal["facts", "exact", "passages", "judge"],
        Meta(
            description="when two answers are the same: same numbers and mostly the same words "
            "(`facts`), the same text (`exact`), the same passages cited (`passages`), or if the "
            "model `judge` says so"
        ),
    ] = "facts"
    judge: Annotated[
        str | None, Meta(description="model or route that compares answers for `compare: judge`")
    ] = None
    entries: Annotated[
        int,
        Meta(
            ge=100,
            le=200_000,
            description="questions kept for the app, about 2 KiB each; the least used go first",
        ),
    ] = 10_000


class CacheSettings(Branch, frozen=True, kw_only=True):
    """What is kept of an app's or a model's answers."""

    shorthand: ClassVar[str | None] = "exact"
    exact: Annotated[
        Duration | None,
        Meta(
            description="how long an answer serves the same question again, from when it was "
            "written; default: not at all"
        ),
    ] = None
    stale_while_refresh: Annotated[
        Duration,
        Meta(
            description="how much longer it is served while one call in the background writes a "
            "new one"
        ),
    ] = 0.0
    stale_on_error: Annotated[
        Duration, Meta(description="how much longer it is served if no model can answer")
    ] = 0.0
    flights: Annotated[
        bool,
        Meta(description="whether identical questions that are in progress share one call"),
    ] = True
    tags: Annotated[
        tuple[str, ...],
        Meta(description="names by which `POST /v1/cache/invalidate` finds these answers"),
    ] = ()
    semantic: Annotated[
        SemanticSettings | None,
        Meta(
            description="serve the answer of a similar question, once checks have shown that this "
            "is wrong seldom enough; apps only. Default: not at all"
        ),
    ] = None


class CacheStorage(Branch, frozen=True, kw_only=True):
    """Where answers are kept, and for how long those of models without a `cache` of their own."""

    memory_mb: Annotated[
        float, Meta(gt=0, description="memory for kept answers, in MiB; the least used go first")
    ] = 64.0
    answer_kb: Annotated[float, Meta(gt=0, description="largest answer that is kept, in KiB")] = (
        1024.0
    )
    exact: Annotated[
        Duration | None,
        Meta(
            description="how long answers of models and routes without a `cache` of their own are "
            "kept, if the request has `temperature: 0`; default: not at all"
        ),
    ] = None
