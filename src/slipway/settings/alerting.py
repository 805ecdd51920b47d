"""The settings of service level objectives and alerts."""

from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from slipway.settings.values import Branch, Duration, share

P95 = 0.95  # the share of answers that must be within `ttft_p95` or `tpot_p95`


class Slo(Branch, frozen=True, kw_only=True):
    availability: Annotated[
        str | None,
        Meta(description="share of requests that get an answer, such as `99.9%`"),
    ] = None
    ttft_p95: Annotated[
        Duration | None,
        Meta(description="95 % of streamed answers begin within this time, such as `2s`"),
    ] = None
    tpot_p95: Annotated[
        Duration | None,
        Meta(description="95 % of them take at most this time for each token, such as `100ms`"),
    ] = None
    answered_with_source: Annotated[
        str | None,
        Meta(description="share of answers about documents that name a source, such as `90%`"),
    ] = None

    @property
    def edges(self) -> dict[str, float]:
        """Return the limits in seconds that the histograms `ttft` and `tpot` must tell apart."""
        limits = {"ttft": self.ttft_p95, "tpot": self.tpot_p95}
        return {metric: limit for metric, limit in limits.items() if limit is not None}

    @property
    def availability_share(self) -> float | None:
        return None if self.availability is None else share(self.availability)

    @property
    def sourced_share(self) -> float | None:
        return None if self.answered_with_source is None else share(self.answered_with_source)


class SpendAlerts(Branch, frozen=True, kw_only=True):
    month: Annotated[
        Decimal | None,
        Meta(description="USD a month; an alert says when the forecast exceeds it"),
    ] = None
    spike: Annotated[
        float,
        Meta(gt=1, description="an hour that costs this many times the usual is a spike"),
    ] = 3.0
    floor: Annotated[Decimal, Meta(description="USD an hour; what costs less is never a spike")] = (
        Decimal(1)
    )


class NotifierSettings(Branch, frozen=True, kw_only=True):
    kind: Annotated[str, Meta(description="`webhook`, `slack`, `dingtalk`, `feishu` or `email`")]
    url: Annotated[
        str | None, Meta(description="address that messages are posted to; not for `email`")
    ] = None
    secret: Annotated[
        str | None,
        Meta(description="signs messages: of `webhook`, `dingtalk` and `feishu`, if they check it"),
    ] = None
    server: Annotated[
        str | None,
        Meta(
            description="mail server, as `smtp://HOST:587` (STARTTLS if offered) or `smtps://HOST`"
        ),
    ] = None
    user: Annotated[str | None, Meta(description="user name at the mail server")] = None
    password: Annotated[str | None, Meta(description="password at the mail server")] = None
    sender: Annotated[str | None, Meta(description="address that mail comes from")] = None
    to: Annotated[tuple[str, ...], Meta(description="addresses that mail goes to")] = ()
    severity: Annotated[
        Literal["ticket", "page"],
        Meta(description="the least severe alerts that it gets; `page` leaves tickets out"),
    ] = "ticket"
    heartbeat: Annotated[
        Duration | None,
        Meta(
            description="send that Slipway is alive so often, for a dead man's switch that calls "
            "if it stays away; at least 1 m"
        ),
    ] = None


class AlertSettings(Branch, frozen=True, kw_only=True):
    evaluate: Annotated[
        bool,
        Meta(description="whether Slipway evaluates alerts itself; `false` if Prometheus does"),
    ] = True
    notify: Annotated[
        dict[str, NotifierSettings], Meta(description="who gets the alerts, by a name of yours")
    ] = {}
    spend: Annotated[SpendAlerts, Meta(description="alerts about money")] = SpendAlerts()
    fallback: Annotated[
        str,
        Meta(
            description="share of answers in an hour that may come from a smaller model, an old "
            "answer or a quote because a model failed"
        ),
    ] = "5%"
    stale_knowledge: Annotated[
        Duration | None,
        Meta(description="documents that were not looked at for this long are stale"),
    ] = 86400.0
    minimum: Annotated[
        int,
        Meta(ge=1, description="answers in a window; with fewer, shares of them raise no alert"),
    ] = 100
    off: Annotated[tuple[str, ...], Meta(description="names of alerts that are not wanted")] = ()
    group_wait: Annotated[
        Duration,
        Meta(description="time to wait for other alerts, which come in the same message"),
    ] = 10.0
    repeat: Annotated[
        Duration | None,
        Meta(description="send an alert that still fires again so often; default: never"),
    ] = None
    runbooks: Annotated[
        str, Meta(description="address of the folder with the runbooks, for links in messages")
    ] = "docs/runbooks"
