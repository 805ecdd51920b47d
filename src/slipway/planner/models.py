"""Describe the models and machines of the catalogue, each fact with its source and date."""

from collections.abc import Mapping
from datetime import date

from slipway.types import Record

TEXT_TASKS = (
    "qa",
    "rag",
    "chat",
    "summarise",
    "translate",
    "sentiment",
    "code",
    "maths",
    "law",
    "medicine",
)
TASKS: dict[str, str] = {
    "qa": "answer questions",
    "rag": "answer questions over documents",
    "chat": "talk",
    "summarise": "shorten texts",
    "translate": "translate texts",
    "sentiment": "say how a text feels",
    "code": "write programs",
    "maths": "solve mathematical problems",
    "law": "answer legal questions",
    "medicine": "answer medical questions",
    "vision": "understand images",
    "audio": "understand sounds and speech",
    "image_generation": "make images from words",
    "detection": "find and name objects in images",
    "transcription": "write down speech",
    "speech": "speak a text",
}
MODALITIES = ("text", "image", "audio", "video", "boxes")


class Tier(Record, frozen=True, kw_only=True):
    """USD per million tokens for prompts of more than `above` tokens."""

    above: int
    input: float
    output: float


class FactSource(Record, frozen=True, kw_only=True):
    says: str
    as_of: str


class CatalogueModel(Record, frozen=True, kw_only=True):
    """One model at one provider. What nobody knows is None, or an empty tuple. `sources` has the
    source of a fact by its name; "" is that of all others.
    """

    id: str
    name: str
    provider: str
    vendor: str = ""
    family: str = ""
    tasks: tuple[str, ...] = ()
    specialities: tuple[str, ...] = ()
    input: tuple[str, ...] = ()
    output: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    context: int | None = None
    max_output: int | None = None
    tiers: tuple[Tier, ...] = ()
    image_usd: float | None = None
    million_characters_usd: float | None = None
    second_usd: float | None = None
    licence: str = ""
    open_weights: bool | None = None
    commercial: bool | None = None
    regions: tuple[str, ...] = ()
    endpoint: str = ""
    size_b: float | None = None
    active_b: float | None = None
    retired: str | None = None
    ttft_p95_s: float | None = None
    tpot_p95_s: float | None = None
    priors: Mapping[str, float] = {}
    sources: Mapping[str, FactSource] = {}

    @property
    def own(self) -> bool:
        """Return whether it runs on machines of the operator."""
        return self.provider == "own"

    @property
    def priced(self) -> bool:
        return bool(self.tiers) or any(
            each is not None
            for each in (self.image_usd, self.million_characters_usd, self.second_usd)
        )

    def source(self, fact: str) -> FactSource:
        return (
            self.sources.get(fact)
            or self.sources.get("")
            or FactSource(says="unknown", as_of="unknown")
        )

    def price(self, input_tokens: float) -> Tier | None:
        """Return the tier of a prompt of this length."""
        return next(
            (tier for tier in reversed(self.tiers) if input_tokens > tier.above),
            self.tiers[0] if self.tiers else None,
        )

    def is_retired(self, today: date) -> bool:
        return self.retired is not None and self.retired <= today.isoformat()


class Machine(Record, frozen=True, kw_only=True):
    """A machine that can be had by the hour. `spot_usd` is what it costs if it may be taken away;
    `serverless`: it can also be had by the second, for the time that it answers.
    """

    id: str
    gpu: str
    memory_gb: float
    source: str
    as_of: str
    gpus: int = 1
    bandwidth_gbs: float | None = None
    regions: tuple[str, ...] = ()
    hour_usd: float | None = None
    spot_usd: float | None = None
    serverless: bool = False


class Catalogue(Record, frozen=True, kw_only=True):
    """All of it. `digest` is another one for each other content, so that a decision can be
    replayed.
    """

    models: Mapping[str, CatalogueModel]
    machines: Mapping[str, Machine]
    digest: str
