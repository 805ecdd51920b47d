"""The tree of settings: each field with its type, default and one-line meaning.

docs/settings.md is printed from here.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from slipway.settings.alerting import AlertSettings, Slo
from slipway.settings.values import Branch, Duration
from slipway.types import MAX_SECTIONS

SQLITE = "sqlite:///"
GGUF = ".gguf"
POSTGRES = ("postgresql://", "postgres://")
DEFAULT_DATA = ".slipway"
DEFAULT_STORE = f"{SQLITE}{DEFAULT_DATA}/slipway.db"
PASSWORD = re.compile(r"(?<=//)([^/@:]*):([^@]*)(?=@)")  # of an address: user and password


def without_password(address: str) -> str:
    """Return the address of a store as it may be shown."""
    return PASSWORD.sub(r"\1:…", address)


class Listen(Branch, frozen=True, kw_only=True):
    host: Annotated[
        str, Meta(description="address to listen on; anything but loopback needs `keys`")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")
    ] = 8080
    workers: Annotated[
        int,
        Meta(ge=1, le=64, description="worker processes that share the port; one core for each"),
    ] = 1
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="host names to accept besides loopback; `*` accepts all"),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(description="other sites whose pages may call this server (CORS), as `https://host`"),
    ] = ()
    grace: Annotated[
        Duration, Meta(description="time that running answers get to finish after SIGTERM")
    ] = 30.0


class Limits(Branch, frozen=True, kw_only=True):
    body_mb: Annotated[float, Meta(gt=0, description="largest request body, in MiB")] = 16.0
    question_kb: Annotated[float, Meta(gt=0, description="largest request to an app, in KiB")] = (
        256.0
    )
    header_kb: Annotated[
        int, Meta(ge=1, description="largest size of all request headers, in KiB")
    ] = 64
    connections: Annotated[
        int, Meta(ge=1, description="open client connections; more get a 503")
    ] = 2048
    head_timeout: Annotated[
        Duration,
        Meta(description="time that a client gets to send the headers and body of a request"),
    ] = 60.0
    slow_reader: Annotated[
        Duration,
        Meta(description="time after which a client that does not read its answer is disconnected"),
    ] = 30.0
    answers: Annotated[int, Meta(ge=1, description="answers in progress; more get a 503")] = 2048
    answer_time: Annotated[
        Duration, Meta(description="time for an answer, with all retries and waiting")
    ] = 600.0
    patience: Annotated[
        Duration,
        Meta(
            description="longest wait before a model is tried again; "
            "a longer `Retry-After` is passed on to the client"
        ),
    ] = 20.0
    document_mb: Annotated[
        float, Meta(gt=0, description="largest document that is read or uploaded, in MiB")
    ] = 50.0
    document_time: Annotated[
        Duration,
        Meta(description="time for reading one document; after that it fails"),
    ] = 60.0


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


class TraceSettings(Branch, frozen=True, kw_only=True):
    """How long it is known what happened to each answer."""

    shorthand: ClassVar[str | None] = "keep"
    keep: Annotated[
        Duration,
        Meta(gt=0, description="how long what happened to each answer is kept"),
    ] = 86_400.0
    at_most_mb: Annotated[
        float,
        Meta(ge=1, description="disk space for traces, in MiB; the oldest are deleted first"),
    ] = 512.0

    @property
    def at_most_bytes(self) -> int:
        return int(self.at_most_mb * 1024 * 1024)


class LogSettings(Branch, frozen=True, kw_only=True):
    """What is logged of each request."""

    shorthand: ClassVar[str | None] = "format"
    format: Annotated[
        Literal["text", "json"],
        Meta(
            description="`json` writes a line of JSON for each request to the standard output, and "
            "messages as lines of JSON to the standard error output"
        ),
    ] = "text"
    content: Annotated[
        bool,
        Meta(
            description="for debugging: log what was asked and answered as well, without keys, "
            "e-mail addresses, phone and card numbers"
        ),
    ] = False


class OtlpSettings(Branch, frozen=True, kw_only=True):
    """A collector that gets our spans by OpenTelemetry's protocol over HTTP."""

    shorthand: ClassVar[str | None] = "endpoint"
    endpoint: Annotated[
        str,
        Meta(description="address of the collector, such as `http://127.0.0.1:4318`"),
    ]
    headers: Annotated[
        dict[str, str], Meta(description="headers for the collector, such as its key")
    ] = {}
    sample: Annotated[
        str,
        Meta(
            description="share of the answers that are sent, such as `10%`; a client that sends "
            "`traceparent` decides it itself"
        ),
    ] = "100%"


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


AtLimit = Literal["refuse", "cheaper", "quote"]


class Allowance(Branch, frozen=True, kw_only=True):
    """How much one key, tenant or app may use; what is not set is not limited."""

    rpm: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)] | None,
        Meta(description="answers in any 60 seconds"),
    ] = None
    tpm: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000_000)] | None,
        Meta(description="tokens of models' calls in any 60 seconds, input and output together"),
    ] = None
    answers: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="answers in progress at a time"),
    ] = None
    usd_per_day: Annotated[
        Decimal | None, Meta(description="USD for models' calls in a day (UTC)")
    ] = None
    usd_per_month: Annotated[
        Decimal | None, Meta(description="USD for models' calls in a calendar month (UTC)")
    ] = None
    at_limit: Annotated[
        AtLimit,
        Meta(
            description="what happens if a call does not fit into the budget or `tpm`: `refuse` the "
            "question, ask a `cheaper` model of the route, or `quote` the documents"
        ),
    ] = "refuse"

    @property
    def has_money(self) -> bool:
        return (self.usd_per_day, self.usd_per_month) != (None, None)


class TenantSettings(Branch, frozen=True, kw_only=True):
    limits: Annotated[
        Allowance | None, Meta(description="limits of all the tenant's keys together")
    ] = None


class KeySettings(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "key"
    key: Annotated[
        str,
        Meta(
            min_length=8,
            description="the key, best as `${NAME}`; or `sha256:` and its hash, "
            "as `slipway keys create --line` prints it",
        ),
    ]
    tenant: Annotated[str, Meta(description="the tenant that owns the key")] = "default"
    groups: Annotated[tuple[str, ...], Meta(description="groups of the key, for access rules")] = ()
    apps: Annotated[
        tuple[str, ...] | None,
        Meta(description="apps, routes and models that it may call; default: all"),
    ] = None
    documents: Annotated[bool, Meta(description="whether the key may add and remove documents")] = (
        False
    )
    admin: Annotated[
        bool,
        Meta(
            description="whether the key may manage keys (`/v1/keys`) and see what all keys have "
            "spent (`/v1/ledger`)"
        ),
    ] = False
    limits: Annotated[Allowance | None, Meta(description="limits of this key")] = None


class Oidc(Branch, frozen=True, kw_only=True):
    issuer: Annotated[
        str, Meta(min_length=1, description="the provider's address, exactly as it calls itself")
    ]
    client_id: Annotated[str, Meta(min_length=1, description="our name at the provider")]
    client_secret: Annotated[
        str | None, Meta(description="our secret at the provider, best as `${NAME}`")
    ] = None
    scopes: Annotated[
        tuple[str, ...], Meta(description="what is asked of the provider; `openid` is needed")
    ] = ("openid", "profile", "email")
    name_claim: Annotated[str, Meta(description="the claim with the name that is shown")] = "name"
    groups_claim: Annotated[
        str, Meta(description="the claim with the groups: a list, or words in one text")
    ] = "groups"
    session: Annotated[Duration, Meta(description="how long somebody stays signed in")] = 43_200.0


class Login(Branch, frozen=True, kw_only=True):
    header: Annotated[
        str | None,
        Meta(description="header in which a trusted proxy sends who signed in: `X-Forwarded-User`"),
    ] = None
    groups_header: Annotated[
        str, Meta(description="header with that person's groups, separated by commas")
    ] = "X-Forwarded-Groups"
    proxies: Annotated[
        tuple[str, ...],
        Meta(description="addresses or networks of proxies whose headers are believed"),
    ] = ()
    oidc: Annotated[Oidc | None, Meta(description="an OpenID Connect provider")] = None
    url: Annotated[
        str,
        Meta(description="this server's address as browsers know it; from the request if left out"),
    ] = ""
    tenant: Annotated[str, Meta(description="tenant of those who sign in")] = "default"
    apps: Annotated[
        tuple[str, ...] | None, Meta(description="names they may call; all if left out")
    ] = None
    documents: Annotated[
        tuple[str, ...], Meta(description="groups whose members may add and remove documents")
    ] = ()


class AccessRule(Branch, frozen=True, kw_only=True):
    path: Annotated[
        str,
        Meta(min_length=1, description="which documents: `hr/**`, `*.pdf`, `handbook/salaries.md`"),
    ]
    groups: Annotated[
        tuple[str, ...],
        Meta(description="groups that may read them; `*` means everybody, an empty list nobody"),
    ]


class RulesSettings(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "file"
    file: Annotated[
        str, Meta(min_length=1, description="file of rules, relative to the settings file")
    ]
    precision: Annotated[
        str,
        Meta(
            description="how often an intent must be right on questions held out of its examples; "
            "below that it does not answer"
        ),
    ] = "98%"
    collect: Annotated[
        bool,
        Meta(
            description="keep the texts of questions and answers in the store, for "
            "`slipway rules suggest`"
        ),
    ] = False


class AppSettings(Branch, frozen=True, kw_only=True):
    limits: Annotated[
        Allowance | None, Meta(description="limits of the app, for all who ask it together")
    ] = None
    about: Annotated[
        str, Meta(max_length=500, description="what it is for, as the page shows it")
    ] = ""
    examples: Annotated[
        tuple[str, ...],
        Meta(
            max_length=8,
            description="questions that the page offers; questions from the documents if left out",
        ),
    ] = ()
    knowledge: Annotated[
        tuple[str, ...],
        Meta(description="folders or files to answer from, relative to the settings file"),
    ] = ()
    rules: Annotated[
        RulesSettings | None, Meta(description="rules that answer before anything else is tried")
    ] = None
    route: Annotated[
        str | None,
        Meta(description="route or model that writes answers; default: none, documents are quoted"),
    ] = None
    small: Annotated[
        str | None,
        Meta(
            description="a small model that rewrites follow-ups and plans sections; "
            "default: none, only rules"
        ),
    ] = None
    prompt: Annotated[
        str | None,
        Meta(
            description="file that replaces the built-in instructions, "
            "relative to the settings file"
        ),
    ] = None
    instructions: Annotated[str, Meta(description="more instructions for the model")] = ""
    defaults: Annotated[
        dict[str, Any],
        Meta(description="model parameters, such as `temperature`, if a request sets none"),
    ] = {}
    stakes: Annotated[
        Literal["normal", "high"],
        Meta(
            description="`high` if a wrong answer may do harm: answers of similar questions are "
            "never served"
        ),
    ] = "normal"
    access: Annotated[
        tuple[AccessRule, ...],
        Meta(description="who may read which documents; the first matching rule applies"),
    ] = ()
    rerank: Annotated[
        str | None,
        Meta(
            description="`module:function` that scores texts for a question: "
            "(question, texts) -> numbers"
        ),
    ] = None
    cite: Annotated[
        Literal["model", "match"] | None,
        Meta(
            description="who adds the citations: the `model`, or Slipway by `match`ing words. "
            "Default: `match` if all models of the route are local"
        ),
    ] = None
    passages: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(
            description="passages for an answer, or for each of its sections; "
            "default: 5, or 3 if all models of the route are local",
        ),
    ] = None
    sections: Annotated[
        int,
        Meta(
            ge=1,
            le=MAX_SECTIONS,
            description="most sections of an answer, each a call; 1 turns sections off",
        ),
    ] = 4
    cache: Annotated[
        CacheSettings | None,
        Meta(description="keep answers for the same question; default: every question is answered"),
    ] = None


class MetricsSettings(Branch, frozen=True, kw_only=True):
    series: Annotated[
        int,
        Meta(
            ge=1500,
            le=1_000_000,
            description="how many series all metrics may have together; names of apps and models "
            "beyond that are counted as `other`",
        ),
    ] = 10_000
    gpu: Annotated[
        bool | None,
        Meta(
            description="whether to read NVIDIA GPUs of this machine; needs the extra `gpu`. "
            "Default: if there are any and the extra is installed"
        ),
    ] = None
    compatible: Annotated[
        tuple[Literal["vllm", "litellm"], ...],
        Meta(
            description="write the metrics under the names of these products as well, for "
            "dashboards that were made for them"
        ),
    ] = ()


class Settings(Branch, frozen=True, kw_only=True):
    listen: Annotated[Listen, Meta(description="address, and who may connect")] = Listen()
    limits: Annotated[Limits, Meta(description="limits of sizes, times and numbers")] = Limits()
    store: Annotated[
        str,
        Meta(
            description="what outlives the process: `sqlite:///FILE`, relative to the settings "
            "file, or `postgresql://USER:PASSWORD@HOST/DATABASE`"
        ),
    ] = DEFAULT_STORE
    data: Annotated[
        str,
        Meta(
            description="folder for what stays on this machine if `store` is PostgreSQL: the index "
            "of documents, and rows that wait to be written; else they are beside the file"
        ),
    ] = DEFAULT_DATA
    conversations: Annotated[
        Literal["browser", "server"],
        Meta(
            description=(
                "where the page keeps conversations: in the reader's `browser`, or on the "
                "`server`, so that they follow the key or login"
            )
        ),
    ] = "browser"
    embedding: Annotated[
        str,
        Meta(
            description="model for search by meaning: `minilm`, a folder with `model.onnx` and "
            "`tokenizer.json`, or `none`"
        ),
    ] = "minilm"
    cache: Annotated[
        CacheStorage, Meta(description="where kept answers are, and those of bare models")
    ] = CacheStorage()
    metrics: Annotated[MetricsSettings, Meta(description="what is measured")] = MetricsSettings()
    traces: Annotated[
        TraceSettings, Meta(description="how long, and in how much space, traces are kept")
    ] = TraceSettings()
    log: Annotated[LogSettings, Meta(description="what is logged of each request")] = LogSettings()
    otlp: Annotated[
        OtlpSettings | None,
        Meta(description="where spans are sent to (OpenTelemetry). Default: nowhere"),
    ] = None
    shared: Annotated[
        str | None,
        Meta(
            description="Redis that several servers share, as `redis://HOST:PORT/DB`: kept answers, "
            "and limits, which then hold for all together. They answer without it, too. Needs the "
            "extra `redis`"
        ),
    ] = None
    ocr: Annotated[
        bool, Meta(description="recognise the text of scanned PDF pages; needs the extra `ocr`")
    ] = False
    models: Annotated[
        dict[str, ModelSettings],
        Meta(description="the models, each with its endpoint and zone"),
    ] = {}
    routes: Annotated[
        dict[str, Route],
        Meta(description="ordered lists of models: if one fails, the next one answers"),
    ] = {}
    keys: Annotated[
        tuple[KeySettings, ...], Meta(description="keys of clients; on loopback, none are needed")
    ] = ()
    tenants: Annotated[
        dict[str, TenantSettings],
        Meta(description="tenants with limits; if any is named, keys may name no other"),
    ] = {}
    key_required: Annotated[
        bool,
        Meta(
            description="whether a key is needed even if `keys` lists none: `slipway keys create` "
            "makes keys in the store"
        ),
    ] = False
    login: Annotated[
        Login | None, Meta(description="how people sign in, so that they need no key")
    ] = None
    apps: Annotated[
        dict[str, AppSettings],
        Meta(description="named profiles; a client calls an app as a model"),
    ] = {}
    slo: Annotated[Slo, Meta(description="what users should get; alerts say when they do not")] = (
        Slo()
    )
    alerts: Annotated[
        AlertSettings, Meta(description="which alerts there are, and who is notified of them")
    ] = AlertSettings()


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the settings file, for editors."""
    return msgspec.json.schema(Settings)
