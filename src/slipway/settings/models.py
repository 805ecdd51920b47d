"""The settings of models and routes."""

from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from slipway.settings.caching import CacheSettings
from slipway.settings.values import Branch, Duration

GGUF = ".gguf"


class PriceTier(Branch, frozen=True, kw_only=True):
    """The prices of calls with a long input; what is not named costs as it does below."""

    above: Annotated[
        int, Meta(gt=0, description="input tokens above which all tokens of a call cost this")
    ]
    input: Annotated[Decimal | None, Meta(description="USD per million input tokens")] = None
    output: Annotated[Decimal | None, Meta(description="USD per million output tokens")] = None
    cached_input: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    cache_write: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    cache_write_1h: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    reasoning: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    audio_input: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    audio_output: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    image_input: Annotated[Decimal | None, Meta(description="as in `price`")] = None
    image_output: Annotated[Decimal | None, Meta(description="as in `price`")] = None


class Price(Branch, frozen=True, kw_only=True):
    """The price of a model in USD per million tokens, with at most six decimals."""

    input: Annotated[Decimal, Meta(description="USD per million input tokens")]
    output: Annotated[Decimal, Meta(description="USD per million output tokens")]
    cached_input: Annotated[
        Decimal | None,
        Meta(
            description="USD per million input tokens read from the provider's cache; "
            "default: as `input`"
        ),
    ] = None
    cache_write: Annotated[
        Decimal | None,
        Meta(
            description="USD per million input tokens written to the provider's cache; "
            "default: as `input`"
        ),
    ] = None
    cache_write_1h: Annotated[
        Decimal | None,
        Meta(
            description="USD per million input tokens written to the provider's cache for an hour; "
            "default: as `cache_write`"
        ),
    ] = None
    reasoning: Annotated[
        Decimal | None, Meta(description="USD per million reasoning tokens; default: as `output`")
    ] = None
    audio_input: Annotated[
        Decimal | None, Meta(description="USD per million tokens of audio input; default: unknown")
    ] = None
    audio_output: Annotated[
        Decimal | None, Meta(description="USD per million tokens of audio output; default: unknown")
    ] = None
    image_input: Annotated[
        Decimal | None, Meta(description="USD per million tokens of images; default: as `input`")
    ] = None
    image_output: Annotated[
        Decimal | None,
        Meta(description="USD per million tokens of images that it makes; default: unknown"),
    ] = None
    request: Annotated[Decimal | None, Meta(description="USD for each call; default: none")] = None
    image: Annotated[
        Decimal | None, Meta(description="USD for each image that it makes; default: unknown")
    ] = None
    audio_minute: Annotated[
        Decimal | None, Meta(description="USD for each minute of audio; default: unknown")
    ] = None
    batch: Annotated[
        Decimal | None,
        Meta(description="factor for calls in batches, such as `0.5`; default: 1"),
    ] = None
    tiers: Annotated[
        tuple[PriceTier, ...], Meta(description="other prices of calls with a long input")
    ] = ()


class ConnectionSettings(Branch, frozen=True, kw_only=True):
    connect: Annotated[
        Duration, Meta(description="time to connect to the provider, TLS included")
    ] = 5.0
    first_byte: Annotated[
        Duration,
        Meta(description="time from sending the request to the first byte of the response"),
    ] = 60.0
    between_bytes: Annotated[Duration, Meta(description="longest pause within a response")] = 30.0
    first_token: Annotated[
        Duration | None,
        Meta(
            description="time to the first token of a stream; after that the call fails. "
            "Default: 10 to 30 s, by what the model usually takes, if the route has another to try"
        ),
    ] = None
    total: Annotated[Duration, Meta(description="time for a whole response")] = 600.0
    keep_alive: Annotated[
        Duration, Meta(description="how long an idle connection is kept for the next call")
    ] = 30.0
    max: Annotated[
        int, Meta(ge=1, description="open connections to this model; further calls wait")
    ] = 1024
    ca_file: Annotated[
        str | None,
        Meta(description="PEM file of the certificate authority to trust instead of the system's"),
    ] = None
    proxy: Annotated[
        str | None,
        Meta(description="proxy as `http://host:port`; default: HTTPS_PROXY, except NO_PROXY"),
    ] = None


class ModelSettings(Branch, frozen=True, kw_only=True):
    provider: Annotated[
        str, Meta(description="kind of provider, or a well-known one (`dashscope`, `deepseek`, …)")
    ] = "openai"
    base_url: Annotated[
        str,
        Meta(description="the API's address, with `/v1`; a well-known provider has one already"),
    ] = ""
    api_key: Annotated[str | None, Meta(description="the provider's key, best as `${NAME}`")] = None
    name: Annotated[
        str,
        Meta(description="the model's name at the provider; default: the name of this entry"),
    ] = ""
    zone: Annotated[
        str, Meta(description="failure domain: models in one zone tend to fail together")
    ] = "default"
    weights: Annotated[
        str,
        Meta(
            description="for a local model: the name of its weights, or a `.gguf` file "
            "(relative to the settings file)"
        ),
    ] = ""
    context: Annotated[
        Annotated[int, Meta(ge=256)] | None,
        Meta(
            description="tokens of prompt and answer together; "
            "default: 8192 for a local model, unknown for others"
        ),
    ] = None
    max_output: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="tokens of the longest answer that the model writes, which budgets reserve "
            "if a request sets no `max_tokens`. Default: as in the catalogue, or 8192"
        ),
    ] = None
    at_once: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="largest number of calls at a time; more wait, in turn between keys. "
            "Default: no limit; `parallel` for a local model"
        ),
    ] = None
    wait: Annotated[
        Duration,
        Meta(
            description="longest wait of a call for `at_once`; "
            "if it would be longer, the call is rejected immediately"
        ),
    ] = 30.0
    retries: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="how often a call that failed before its first token is retried",
        ),
    ] = 2
    continuation: Annotated[
        Literal["prefill", "prompt", "none"] | None,
        Meta(
            description="how this model continues an answer that another one left unfinished: "
            "from the text as its own turn (`prefill`), by an instruction (`prompt`), or not "
            "at all (`none`). Default: `prefill` for a local model, `prompt` for others"
        ),
    ] = None
    parallel: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="for a local model: answers written at a time; more wait",
        ),
    ] = 2
    threads: Annotated[
        int,
        Meta(ge=0, description="for a local model: processor threads; 0 means one for each core"),
    ] = 0
    price: Annotated[
        Price | None,
        Meta(description="price of tokens; default: unknown, which is never treated as zero"),
    ] = None
    headers: Annotated[dict[str, str], Meta(description="extra headers for every call")] = {}
    query: Annotated[
        dict[str, str],
        Meta(description="extra query parameters for every call, such as Azure's `api-version`"),
    ] = {}
    connection: Annotated[
        ConnectionSettings, Meta(description="timeouts, pool, CA file, proxy")
    ] = ConnectionSettings()
    stream_usage: Annotated[
        bool,
        Meta(
            description="request token counts in streams; turn off if the endpoint "
            "rejects `stream_options`"
        ),
    ] = True
    cache: Annotated[
        CacheSettings | None,
        Meta(
            description="keep this model's answers, whatever the temperature; a route keeps them "
            "as its first model does. Default: the top-level `cache.exact`"
        ),
    ] = None
    metrics: Annotated[
        str | bool,
        Meta(
            description="where the model's server publishes metrics of its own, such as "
            "`http://gpu-1:8000/metrics`; `true` for `/metrics` on the host of `base_url`. vLLM's "
            "and llama.cpp's are understood"
        ),
    ] = False
    extends: Annotated[
        str | None,
        Meta(description="another model; its fields (except `name`) are used if not set here"),
    ] = None


class RouteEntry(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "model"
    model: Annotated[str, Meta(description="the name of a model")]
    role: Annotated[
        Literal["primary", "twin", "smaller", "local"], Meta(description="its role in the route")
    ] = "primary"
    canary: Annotated[
        str | None,
        Meta(
            description=(
                "share of the questions that it answers first, such as `5%`; of all others it is "
                "asked last"
            )
        ),
    ] = None


Route = tuple[RouteEntry, ...]
