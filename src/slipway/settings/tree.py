"""What can be set: the tree, each field with its type, default and one-line meaning.
docs/settings.md is printed from here.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

SQLITE = "sqlite:///"
GGUF = ".gguf"
DEFAULT_STORE = f"{SQLITE}.slipway/slipway.db"
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
WRITTEN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?\s*")


Duration = Annotated[
    float,
    Meta(
        extra={"duration": True},
        extra_json_schema={"type": ["number", "string"], "pattern": WRITTEN.pattern},
    ),
]


def seconds(value: object) -> float:
    """A duration as written: `250ms`, `2s`, `5m`, `1h`, `30d`, or a plain number of seconds.
    ValueError says what is expected.
    """
    found = None if isinstance(value, bool) else WRITTEN.fullmatch(str(value))
    if found is None:
        raise ValueError(f"`{value}` is not a duration; write `250ms`, `2s`, `5m`, `1h` or `30d`")
    return float(found[1]) * UNITS[found[2] or "s"]


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the tree. A branch with a `shorthand` may be written as that field's value alone."""

    shorthand: ClassVar[str | None] = None


class Listen(Branch, frozen=True, kw_only=True):
    host: Annotated[
        str, Meta(description="address to listen on; anything but loopback needs `keys`")
    ] = "127.0.0.1"
    port: Annotated[
        int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")
    ] = 8080
    allowed_hosts: Annotated[
        tuple[str, ...],
        Meta(description="names besides loopback that a request's Host may carry; `*` takes any"),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(description="other sites whose pages may call this server (CORS), as `https://host`"),
    ] = ()
    grace: Annotated[Duration, Meta(description="how long answers may go on after SIGTERM")] = 30.0


class Limits(Branch, frozen=True, kw_only=True):
    body_mb: Annotated[float, Meta(gt=0, description="largest request body, in MiB")] = 32.0
    header_kb: Annotated[int, Meta(ge=1, description="largest request head, in KiB")] = 64
    connections: Annotated[
        int, Meta(ge=1, description="open client connections at most; more are told to try again")
    ] = 2048
    head_timeout: Annotated[
        Duration, Meta(description="how long a client may take to send a request's head and body")
    ] = 60.0
    slow_reader: Annotated[
        Duration,
        Meta(description="how long a client may leave a stream unread before it is dropped"),
    ] = 30.0
    answers: Annotated[
        int, Meta(ge=1, description="answers being written at once; more are told to try again")
    ] = 2048
    answer_time: Annotated[
        Duration, Meta(description="how long an answer may take, with all tries and waiting")
    ] = 600.0
    patience: Annotated[
        Duration,
        Meta(
            description="how long a question may wait for a model to be tried again; a longer `Retry-After` is passed on"
        ),
    ] = 20.0
    document_mb: Annotated[
        float, Meta(gt=0, description="largest document that is read or uploaded, in MiB")
    ] = 50.0
    document_time: Annotated[
        Duration,
        Meta(description="how long reading one document may take; one that takes longer fails"),
    ] = 60.0


class Price(Branch, frozen=True, kw_only=True):
    """USD per million tokens."""

    input: Annotated[Decimal, Meta(description="USD per million input tokens")]
    output: Annotated[Decimal, Meta(description="USD per million output tokens")]
    cached_input: Annotated[
        Decimal | None,
        Meta(description="USD per million input tokens read from the provider's cache"),
    ] = None


class Connection(Branch, frozen=True, kw_only=True):
    connect: Annotated[Duration, Meta(description="time to reach the provider, TLS included")] = 5.0
    first_byte: Annotated[
        Duration, Meta(description="time from sending the request to the first byte of the reply")
    ] = 60.0
    between_bytes: Annotated[Duration, Meta(description="longest silence inside a reply")] = 30.0
    first_token: Annotated[
        Duration | None,
        Meta(
            description="time to the first words of a stream; later, the call has failed. 20 s where left out and another model of the route may be asked"
        ),
    ] = None
    total: Annotated[Duration, Meta(description="time for the whole of a reply")] = 600.0
    keep_alive: Annotated[
        Duration, Meta(description="how long an idle connection is kept for the next call")
    ] = 30.0
    max: Annotated[
        int, Meta(ge=1, description="open connections to this model at most; further calls wait")
    ] = 1024
    ca_file: Annotated[
        str | None,
        Meta(description="PEM file of the certificate authority to trust instead of the system's"),
    ] = None
    proxy: Annotated[
        str | None,
        Meta(description="`http://host:port` to go through; HTTPS_PROXY and NO_PROXY are honoured"),
    ] = None


class Model(Branch, frozen=True, kw_only=True):
    provider: Annotated[
        str, Meta(description="kind of provider, or a well-known one (`dashscope`, `deepseek`, …)")
    ] = "openai"
    base_url: Annotated[
        str,
        Meta(
            description="the API's address up to and with `/v1`; a well-known provider brings its own"
        ),
    ] = ""
    api_key: Annotated[str | None, Meta(description="the provider's key, best as `${NAME}`")] = None
    name: Annotated[
        str,
        Meta(description="the model's name at the provider; the entry's own key where left out"),
    ] = ""
    zone: Annotated[str, Meta(description="failure domain: models of one zone fail together")] = (
        "default"
    )
    weights: Annotated[
        str,
        Meta(
            description="for a model that runs here: weights by their name, or a `.gguf` file relative to this file"
        ),
    ] = ""
    context: Annotated[
        Annotated[int, Meta(ge=256)] | None,
        Meta(
            description="tokens of prompt and answer together; 8192 for a model that runs here, unknown for others"
        ),
    ] = None
    at_once: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="calls at once, at most; more wait their turn, in turn between keys. No limit where left out, and for a model that runs here `parallel`"
        ),
    ] = None
    wait: Annotated[
        Duration,
        Meta(
            description="how long a call may wait for its turn; one that would wait longer is told so at once"
        ),
    ] = 30.0
    retries: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="how often a call that failed before its first words is tried again, at most",
        ),
    ] = 2
    continuation: Annotated[
        Literal["prefill", "prompt", "none"] | None,
        Meta(
            description="how it goes on with what another model left unfinished: with the text as its own turn (`prefill`), asked in words (`prompt`), or not; "
            "`prefill` for a model that runs here, `prompt` for others"
        ),
    ] = None
    parallel: Annotated[
        int,
        Meta(
            ge=1,
            le=64,
            description="answers written at once, where the model runs here; more wait their turn",
        ),
    ] = 2
    threads: Annotated[
        int,
        Meta(
            ge=0, description="processor threads, where the model runs here; 0 is one for each core"
        ),
    ] = 0
    price: Annotated[
        Price | None, Meta(description="what tokens cost; left out means unknown, never zero")
    ] = None
    headers: Annotated[dict[str, str], Meta(description="extra headers for every call")] = {}
    query: Annotated[
        dict[str, str],
        Meta(description="extra query parameters for every call, such as Azure's `api-version`"),
    ] = {}
    connection: Annotated[Connection, Meta(description="timeouts, pool, CA file, proxy")] = (
        Connection()
    )
    stream_usage: Annotated[
        bool,
        Meta(
            description="ask for token counts in streams; off for endpoints that refuse `stream_options`"
        ),
    ] = True
    extends: Annotated[
        str | None,
        Meta(
            description="another model whose fields (but not `name`) count where they are not given here"
        ),
    ] = None


class RouteEntry(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "model"
    model: Annotated[str, Meta(description="a model's key")]
    role: Annotated[
        Literal["primary", "twin", "smaller", "local"], Meta(description="its part in the route")
    ] = "primary"


Route = tuple[RouteEntry, ...]


class Key(Branch, frozen=True, kw_only=True):
    shorthand: ClassVar[str | None] = "key"
    key: Annotated[
        str,
        Meta(
            min_length=8,
            description="the key, best as `${NAME}`; or `sha256:` and its hash, as `slipway keys` prints it",
        ),
    ]
    tenant: Annotated[str, Meta(description="whose key it is")] = "default"
    groups: Annotated[tuple[str, ...], Meta(description="groups that its holder belongs to")] = ()
    apps: Annotated[
        tuple[str, ...] | None, Meta(description="names it may call; all where left out")
    ] = None
    documents: Annotated[
        bool, Meta(description="whether its holder may add and remove documents")
    ] = False


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
        Meta(description="the groups that may read them; `*` is everybody, an empty list nobody"),
    ]


class App(Branch, frozen=True, kw_only=True):
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
        tuple[str, ...], Meta(description="folders or files to answer from, relative to this file")
    ] = ()
    route: Annotated[
        str | None, Meta(description="route or model that writes; without one, answers are quotes")
    ] = None
    small: Annotated[
        str | None,
        Meta(
            description="a small model that understands follow-ups and plans sections; rules alone where left out"
        ),
    ] = None
    prompt: Annotated[
        str | None,
        Meta(description="file with standing instructions in place of ours, relative to this file"),
    ] = None
    instructions: Annotated[
        str, Meta(description="what the model is told beside the standing instructions")
    ] = ""
    defaults: Annotated[
        dict[str, Any],
        Meta(description="model parameters, such as `temperature`, where a request gives none"),
    ] = {}
    access: Annotated[
        tuple[AccessRule, ...],
        Meta(description="who may read which documents; the first rule that matches counts"),
    ] = ()
    rerank: Annotated[
        str | None,
        Meta(
            description="`module:function` that scores texts for a question: (question, texts) -> numbers"
        ),
    ] = None
    cite: Annotated[
        Literal["model", "match"] | None,
        Meta(
            description="who names the sources: the `model`, or Slipway, which `match`es words; `match` where all models of the route run here"
        ),
    ] = None
    passages: Annotated[
        Annotated[int, Meta(ge=1, le=50)] | None,
        Meta(
            description="places that an answer, or a section of it, may draw on; 5, or 3 where all models of the route run here",
        ),
    ] = None
    sections: Annotated[
        int,
        Meta(
            ge=1,
            le=8,
            description="sections at most of a broad question's answer, each a call; 1 for never more",
        ),
    ] = 4


class Settings(Branch, frozen=True, kw_only=True):
    listen: Annotated[Listen, Meta(description="where and to whom the server listens")] = Listen()
    limits: Annotated[Limits, Meta(description="how much one client may ask of the server")] = (
        Limits()
    )
    store: Annotated[
        str,
        Meta(description="where documents, passages and vectors are kept; relative to this file"),
    ] = DEFAULT_STORE
    conversations: Annotated[
        Literal["browser", "server"],
        Meta(
            description="where the page keeps conversations: in the reader's `browser`, or on the `server`, so that they follow the key or login"
        ),
    ] = "browser"
    embedding: Annotated[
        str,
        Meta(
            description="what reads meaning: `minilm`, a folder with `model.onnx` and `tokenizer.json`, or `none`"
        ),
    ] = "minilm"
    models: Annotated[
        dict[str, Model], Meta(description="one generator each, behind one endpoint in one zone")
    ] = {}
    routes: Annotated[
        dict[str, Route],
        Meta(description="ordered lists of models: the next answers where one fails"),
    ] = {}
    keys: Annotated[
        tuple[Key, ...], Meta(description="who may enter; on loopback, none are needed")
    ] = ()
    login: Annotated[
        Login | None, Meta(description="how people sign in, so that they need no key")
    ] = None
    apps: Annotated[
        dict[str, App], Meta(description="named profiles; to a client an app is a model name")
    ] = {}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors."""
    return msgspec.json.schema(Settings)
