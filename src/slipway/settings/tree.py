"""The tree of settings: each field with its type, default and one-line meaning.

docs/settings.md is printed from here.
"""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from slipway.settings.alerting import AlertSettings, Slo
from slipway.settings.apps import AppSettings
from slipway.settings.caching import CacheStorage
from slipway.settings.keys import KeySettings, Login, TenantSettings
from slipway.settings.models import (
    ModelSettings,
    Route,
)
from slipway.settings.observing import LogSettings, MetricsSettings, OtlpSettings, TraceSettings
from slipway.settings.values import Branch, Duration

SQLITE = "sqlite:///"
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
