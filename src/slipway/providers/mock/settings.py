"""A mock provider's settings, and what it remembers of each request."""

from pathlib import Path
from typing import Any

import msgspec


class MockSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds. `port` 0 takes a free one. `tokens` is the length of a reply, unless
    `text` fixes its words.

    `jitter` is a relative spread: 0.2 draws each time from 80 % to 120 % of its value, from the
    seed. `spread` varies each reply's length, speed and time to the first token: it is the standard
    deviation of their logarithms. `prefill` is the number of prompt tokens read per second, 0 for
    all at once. With `api_key`, every request but `GET /healthz` must carry it as `Authorization:
    Bearer KEY` or `api-key: KEY`; one that carries one of the `bad_keys` is refused. `script` is
    explained in the package's docstring. `continues` is one of `CONTINUES`. With `tls_cert` and
    `tls_key`, both PEM files, the mock speaks TLS. With `prices` (USD per million tokens of input
    and output), it writes an invoice of its calls. `metrics` is `vllm` or `llama.cpp`: it publishes
    metrics as that server does.
    """

    host: str = "127.0.0.1"
    port: int = 9100
    ttft_s: float = 0.05
    tpot_s: float = 0.01
    tokens: int = 48
    seed: int = 0
    models: tuple[str, ...] = ("mock-model",)
    api_key: str | None = None
    bad_keys: tuple[str, ...] = ()
    script: tuple[str, ...] = ()
    text: str | None = None
    jitter: float = 0.0
    spread: float = 0.0
    prefill: float = 0.0
    continues: str = "exact"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    prices: tuple[str, str] | None = None
    metrics: str | None = None


class RecordedRequest(msgspec.Struct, kw_only=True):
    """One request as it was received. `*_at` and `sent` are readings of `time.monotonic()`.

    Header names are lower case. `body` is the parsed JSON, None if there was none or it was broken.
    `sent` grows by one time for each piece of the reply's body. `closed_at` is when the client left
    before the reply's end, None if it did not.
    """

    method: str
    path: str
    headers: dict[str, str]
    arrived_at: float
    body: Any = None
    sent: list[float] = []
    closed_at: float | None = None
