"""The settings of what is measured, kept and logged."""

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from slipway.settings.values import Branch, Duration


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
