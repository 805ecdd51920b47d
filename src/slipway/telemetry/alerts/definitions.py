"""All alerts, in one table: how grave each is, what it means and what to do.

The condition of a row is an expression for the settings in force. It is written as a Prometheus rule
by `rules`, and evaluated over `History` by `evaluator`.
"""

from collections.abc import Callable, Iterator
from functools import partial

from slipway.settings import Settings
from slipway.telemetry.alerts import conditions
from slipway.telemetry.alerts.alert import AlertDefinition, AlertRule, Variant
from slipway.telemetry.alerts.burning import (
    BURNS,
    Burn,
    availability_burn,
    sourced_burn,
    ttft_burn,
)
from slipway.telemetry.alerts.expressions import HOUR, MINUTE

SPEND_HELP = "Find who spends it with `slipway ledger report --by key`, and limit it."


def burn_rows(
    name: str, what: str, action: str, variants: Callable[[Burn, Settings], Iterator[Variant]]
) -> Iterator[AlertDefinition]:
    """Yield the three alerts of an objective, from the fastest burn to the slowest."""
    faster: tuple[str, ...] = ()
    for burn in BURNS:
        yield AlertDefinition(
            name=f"{name}{burn.name}",
            severity=burn.severity,
            summary=f"{what}: {burn.says}.",
            action=action,
            variants=partial(variants, burn),
            unit="share",
            runbook=name,
            inhibited_by=faster,
        )
        faster = (*faster, f"{name}{burn.name}")


DEFINITIONS: tuple[AlertDefinition, ...] = (
    *burn_rows(
        "Availability",
        "Too many requests fail",
        "See which error it is in /ops or `slipway trace`; a model that fails needs a twin.",
        availability_burn,
    ),
    *burn_rows(
        "FirstToken",
        "Too many answers begin late",
        "See which stage or model is slow in /ops; send less to it, or add capacity.",
        ttft_burn,
    ),
    *burn_rows(
        "Sources",
        "Too many answers about documents name no source",
        "See what is asked in `slipway feedback list`; check that the documents are read.",
        sourced_burn,
    ),
    AlertDefinition(
        name="TimePerToken",
        severity="ticket",
        summary="Answers are written slower than the objective says.",
        action="See which model is slow in /ops; a model of your own may serve too many at once.",
        variants=conditions.time_per_token,
        for_s=10 * MINUTE,
        unit="s",
    ),
    AlertDefinition(
        name="SpendSpike",
        severity="ticket",
        summary="The last hour cost several times as much as usual.",
        action=SPEND_HELP,
        variants=conditions.spend_spike,
        unit="USD",
    ),
    AlertDefinition(
        name="SpendForecast",
        severity="ticket",
        summary="At the present rate, this month will cost more than its budget.",
        action=SPEND_HELP,
        variants=conditions.spend_forecast,
        for_s=HOUR,
        unit="USD",
    ),
    AlertDefinition(
        name="UnpricedTraffic",
        severity="ticket",
        summary="Models are called whose price is unknown, so that spending is not known either.",
        action="Set `price` for the models that `slipway ledger report` shows as unknown.",
        variants=conditions.unpriced_traffic,
    ),
    AlertDefinition(
        name="ThumbsDown",
        severity="ticket",
        summary="The share of answers that readers vote down has risen.",
        action="Read the latest comments: `slipway feedback list --helpful no`.",
        variants=conditions.thumbs_down,
        unit="share",
    ),
    AlertDefinition(
        name="FeedbackCollapse",
        severity="ticket",
        summary="There are hardly any votes, although there are as many answers as usual.",
        action="Vote on an answer yourself: the buttons of your page may be broken.",
        variants=conditions.feedback_collapse,
        for_s=HOUR,
    ),
    AlertDefinition(
        name="FallbackShare",
        severity="ticket",
        summary="Many answers come from a smaller model, an old answer or a quote.",
        action="See in /ops which model fails, and why.",
        variants=conditions.fallback_share,
        unit="share",
        inhibited_by=("ZoneDown",),
    ),
    AlertDefinition(
        name="StaleKnowledge",
        severity="ticket",
        summary="Documents have not been compared with their files for too long.",
        action="Run `slipway ingest`, and see in the log why the server could not.",
        variants=conditions.stale_knowledge,
        for_s=5 * MINUTE,
        unit="s",
    ),
    AlertDefinition(
        name="StoreDown",
        severity="ticket",
        summary="The store cannot be used; answers go on, and rows wait in the journal.",
        action="`/readyz` says why. Mend the database; the rows are written then.",
        variants=conditions.store_down,
        for_s=5 * MINUTE,
    ),
    AlertDefinition(
        name="LedgerBacklog",
        severity="ticket",
        summary="Rows of the ledger wait to be written, and do not become fewer.",
        action="See whether the database is slow or full.",
        variants=conditions.ledger_backlog,
        for_s=10 * MINUTE,
        inhibited_by=("StoreDown",),
    ),
    AlertDefinition(
        name="RowsLost",
        severity="page",
        summary="Rows were lost: neither the store nor the journal could keep them.",
        action="Free space on the disk of the journal now; then see the log for what was lost.",
        variants=conditions.rows_lost,
    ),
    AlertDefinition(
        name="ZoneDown",
        severity="page",
        summary="No model of a zone can be used.",
        action="Ask the provider's status page; check that the other zones carry the load.",
        variants=conditions.zone_down,
        for_s=MINUTE,
    ),
    AlertDefinition(
        name="ModelDown",
        severity="ticket",
        summary="A model fails so often that it is not asked any more.",
        action="See in /ops how its calls end; its key, its provider or your server of it may fail.",
        variants=conditions.model_down,
        for_s=2 * MINUTE,
        inhibited_by=("ZoneDown",),
    ),
    AlertDefinition(
        name="QueueAge",
        severity="ticket",
        summary="Calls wait long for a model that takes few at once.",
        action="Raise `at_once` if the model can take more, or add a twin.",
        variants=conditions.queue_age,
        for_s=2 * MINUTE,
        unit="s",
    ),
    AlertDefinition(
        name="AnswersLost",
        severity="page",
        summary="A worker process ended in the middle of answers.",
        action="See why in the log; out of memory is usual.",
        variants=conditions.answers_lost,
    ),
    AlertDefinition(
        name="AnswersStuck",
        severity="page",
        summary="Answers are in progress, but none has finished for long.",
        action="Restart this server, and keep its log.",
        variants=conditions.answers_stuck,
        for_s=5 * MINUTE,
    ),
    AlertDefinition(
        name="NotifierFailing",
        severity="ticket",
        summary="Somebody could not be notified of an alert.",
        action="`slipway alerts test` says what each notifier answers.",
        variants=conditions.notifier_failing,
    ),
    AlertDefinition(
        name="Watchdog",
        severity="none",
        summary="This alert always fires: if it stays away, alerting itself is broken.",
        action="Nothing while it fires.",
        variants=conditions.watchdog,
    ),
    AlertDefinition(
        name="ScrapeMissing",
        severity="page",
        summary="Prometheus gets no metrics from Slipway.",
        action="See whether the server runs, and whether Prometheus has a valid key.",
        variants=conditions.scrape_missing,
        for_s=5 * MINUTE,
        only_prometheus=True,
    ),
    AlertDefinition(
        name="MetricsFrozen",
        severity="ticket",
        summary="The metrics are served, but have not been sampled for minutes.",
        action="Restart this server, and keep its log.",
        variants=conditions.metrics_frozen,
        for_s=MINUTE,
        unit="s",
        only_prometheus=True,
    ),
)
NAMES = tuple(definition.name for definition in DEFINITIONS)


def rules_of(settings: Settings) -> list[AlertRule]:
    """Return the rules that these settings ask for."""
    return [
        AlertRule(definition=definition, variant=variant)
        for definition in DEFINITIONS
        if definition.name not in settings.alerts.off
        for variant in definition.variants(settings)
    ]
