"""The route of the operations page: whether users are well served, and the numbers behind it.

The page asks again every few seconds rather than holding a stream open: that survives proxies and
sleeping laptops, and each part of the reply is computed at most once in its time for all pages that
are open: numbers once for each sample of the metrics, money less often the longer the window. What
blocks runs in threads; what takes long is kept longer, so that pages never take more than a few
percent of a processor.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from slipway.admission import OPERATOR, LimitState
from slipway.answer import Current
from slipway.errors import BadRequest, Forbidden
from slipway.knowledge import Knowledge
from slipway.ledger import format_usd, usd
from slipway.routing.health import HealthReport
from slipway.store import (
    FeedbackFilter,
    Grouping,
    LedgerFilter,
    LedgerSum,
    RecordStore,
    StoreError,
)
from slipway.telemetry.metrics import Telemetry
from slipway.telemetry.service import WINDOWS, Level, ServiceReports
from slipway.telemetry.traces import TraceFilter
from slipway.types import Asker
from slipway.web.descriptions import Operation, Parameter, one_of
from slipway.web.document_views import DocumentView, views
from slipway.web.health import Workers, model_states, note_worse, readiness
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute
from slipway.web.spending import shown
from slipway.web.traces import TraceSource

# How long a part of the reply is kept; numbers until the next sample
NUMBERS_S, RECENT_S, DOCUMENTS_S = 60.0, 4.0, 15.0
MONEY_S = {"now": 10.0, "hour": 10.0, "day": 30.0, "week": 60.0}
PATIENCE_S = 1.0  # how long a part is waited for if there is an older one
SHARE = 0.02  # of a processor that computing one part may take
MOST_KEPT = 200  # parts of all windows and askers
GROUPINGS: tuple[Grouping, ...] = ("app", "key", "tenant", "model")
MOST_ROWS = 100  # of a table
MOST_DOCUMENTS, MOST_RECENT = 50, 50
WORST_FIRST = {"failed": 0, "partly": 1, "reading": 2}
LONGEST_QUESTION = 300  # characters of a question that feedback shows
Part = TypeVar("Part")
SHOWN_ALERTS = ("firing", "pending")
Alerts = Callable[[], Mapping[str, Any]]  # what `GET /v1/alerts` returns


class KeptPart(NamedTuple):
    """A part that is kept or being computed; `before` made the one that it replaces."""

    version: float
    until: float  # monotonic
    task: asyncio.Task[Any]
    before: asyncio.Task[Any] | None = None


class KeptParts:
    """Parts of replies, each computed once for all who ask at the same time, and kept for a while.

    If computing one again takes longer than `patience_s`, such as while the store does not answer,
    the part as it was is returned.
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._parts: dict[Any, KeptPart] = {}
        self._patience_s = patience_s

    async def get(
        self, key: Any, keep_s: float, compute: Callable[[], Part], version: float = 0.0
    ) -> Part:
        """Return what `compute` returns, which is called in a thread; a part of another version is
        not kept.
        """
        known = self._parts.get(key)
        if known is None or is_over(known, version):
            if len(self._parts) >= MOST_KEPT:
                self._parts.clear()
            before = known.task if known is not None and not has_failed(known.task) else None
            task = asyncio.create_task(self._compute(key, keep_s, compute, version))
            until = time.monotonic() + keep_s
            known = self._parts[key] = KeptPart(version, until, task, before)
        if known.before is not None:
            await asyncio.wait([known.task], timeout=self._patience_s)
            if not known.task.done():
                old: Part = known.before.result()
                return old
        # one who leaves must not cancel what others wait for
        found: Part = await asyncio.shield(known.task)
        return found

    async def _compute(
        self, key: Any, keep_s: float, compute: Callable[[], Part], version: float
    ) -> Part:
        began = time.monotonic()
        found = await asyncio.to_thread(compute)
        now, known = time.monotonic(), self._parts.get(key)
        if known is not None and known.task is asyncio.current_task():
            until = now + max(keep_s, (now - began) / SHARE)
            self._parts[key] = KeptPart(version, until, known.task)
        return found


def is_over(known: KeptPart, version: float) -> bool:
    """Return whether a part must be computed again: it is too old, or could not be computed."""
    if not known.task.done():
        return False
    is_old = known.version != version or time.monotonic() >= known.until
    return is_old or has_failed(known.task)


def has_failed(task: asyncio.Task[Any]) -> bool:
    return task.cancelled() or task.exception() is not None


class OperationsRoutes:
    """Handles `GET /v1/operations`."""

    workers: Workers | None = None  # set if there are several

    def __init__(
        self,
        current: Current,
        telemetry: Telemetry,
        service: ServiceReports,
        records: Callable[[], RecordStore],
        traces: TraceSource,
        alerts: Alerts,
    ) -> None:
        self.current, self.telemetry, self.service = current, telemetry, service
        self.records, self.traces, self.alerts = records, traces, alerts
        self.kept = KeptParts()

    async def operations(self, request: Request) -> Response:
        """Return everything that the page shows for a window of time.

        Raises Forbidden for a key that is no admin, BadRequest for an unknown window.
        """
        asker = self.admin(request)
        window = window_of(request)
        health = await self.health()
        limits = self.current.pipeline.admission.limits()
        zones = self.zones()
        states = {name: report.state for name, report in health.items()}
        store = self.telemetry.store()
        alerts = alerts_of(self.alerts())
        firing = [named(each) for each in alerts if each["state"] == "firing"]
        spent = {
            f"{limit.scope} {limit.name} ({budget.period})": budget.spent / budget.cap
            for limit in limits
            for budget in limit.budgets
            if budget.cap
        }
        version, keep = self.service.version, self.kept.get
        numbers, money, votes, documents, recent = await asyncio.gather(
            keep(
                ("numbers", window), NUMBERS_S, lambda: self.service.report(window, zones), version
            ),
            keep(("money", window), MONEY_S[window], lambda: self.money(window)),
            keep(("feedback", window), MONEY_S["now"], lambda: self.feedback(window)),
            keep(("documents", asker), DOCUMENTS_S, lambda: self.documents(asker)),
            keep("recent", RECENT_S, self.recent),
        )
        verdict = self.service.verdict(states, store.reason, store.lost, spent, firing)
        models = [with_health(row, health.get(row["model"])) for row in numbers["models"]]
        totals = {**numbers["totals"], **money["tokens"]}
        return reply(
            {
                **numbers,
                "object": "operations",
                "at": time.time(),
                "verdict": verdict,
                "now": self.now(health, store),
                "totals": totals,
                "models": models,
                "money": money["by"],
                "money_error": money["error"],
                "limits": [limit_row(limit) for limit in limits],
                "alerts": alerts,
                "recent": recent,
                "feedback": votes,
                "documents": documents,
            }
        )

    def admin(self, request: Request) -> Asker:
        asker: Asker = request.scope["slipway.asker"]
        if not (asker.admin or asker.everything or self.current.pipeline.admission.open):
            raise Forbidden(
                "This key may not see how the server is used.",
                "Use a key with `admin: true`, or ask the operator for one.",
            )
        return asker

    def now(self, health: Mapping[str, HealthReport], store: Any) -> dict[str, Any]:
        """Return what runs at this moment."""
        return {
            "in_flight": self.telemetry.in_flight(),
            "running": sum(report.busy for report in health.values()),
            "waiting": sum(report.waiting for report in health.values()),
            "workers": None if self.workers is None else self.workers.counts(),
            "store": {"waiting": store.waiting, "lost": store.lost, "reason": store.reason},
            "started_at": self.telemetry.started_at,
        }

    async def health(self) -> dict[str, HealthReport]:
        """Return the state of each model, as the worst worker finds it."""
        health = model_states(self.current.pipeline, OPERATOR)
        if self.workers is not None:
            for states in await self.workers.model_states():
                note_worse(health, states)
        return health

    def zones(self) -> dict[str, str]:
        return {name: model.zone for name, model in self.current.settings.models.items()}

    def money(self, window: str) -> dict[str, Any]:
        """Return what apps, keys, tenants and models have used. `error` says why that is unknown."""
        which = LedgerFilter(since=time.time() - WINDOWS[window])
        try:
            records = self.records()
            found = records.ledger.sums_by(GROUPINGS, which)
            names = names_of(records)
        except StoreError as error:
            return {"by": {by: [] for by in GROUPINGS}, "tokens": {}, "error": str(error)}
        rows = {
            by: [sum_row(each, names if by == "key" else {}) for each in found[by]] for by in found
        }
        tokens = {
            name: sum(getattr(each, name) for each in found["app"])
            for name in ("input_tokens", "output_tokens")
        }
        return {"by": {by: largest(rows[by]) for by in rows}, "tokens": tokens, "error": None}

    def feedback(self, window: str) -> list[dict[str, Any]]:
        """Return the latest votes and reports of a window, with their comments."""
        which = FeedbackFilter(since=time.time() - WINDOWS[window], limit=MOST_ROWS)
        try:
            rows = self.records().records.list_feedback(which)
        except StoreError:
            return []
        return [feedback_row(row) for row in rows]

    def recent(self) -> list[dict[str, Any]]:
        """Return the latest answers; those of other workers are written once a second."""
        found, _ = self.traces.recent(TraceFilter(limit=MOST_RECENT))
        return found

    def documents(self, asker: Asker) -> dict[str, Any]:
        """Return how far each app's documents are read, and the documents, unread ones first."""
        known = {
            name: app.knowledge
            for name, app in self.current.pipeline.apps.items()
            if app.knowledge is not None and self.current.pipeline.admission.may_call(asker, name)
        }
        found = [
            view for name, knowledge in known.items() for view in views(name, knowledge, asker)
        ]
        found.sort(key=lambda view: (WORST_FIRST.get(view.state, 3), -(view.read_at or 0)))
        return {
            "apps": [collection_row(name, each, asker) for name, each in known.items()],
            "data": [document_row(view) for view in found[:MOST_DOCUMENTS]],
            "more": max(0, len(found) - MOST_DOCUMENTS),
        }

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/operations",
                self.operations,
                methods=["GET"],
                does=Operation(
                    about="how users are served, for an admin key",
                    query=(
                        Parameter(name="window", about="the time covered", schema=one_of(*WINDOWS)),
                    ),
                    errors=(Forbidden,),
                ),
            )
        ]


def window_of(request: Request) -> str:
    window = request.query_params.get("window", "hour")
    if window not in WINDOWS:
        raise BadRequest(
            f"`window` cannot be `{window[:50]}`.",
            f"Use one of: {', '.join(WINDOWS)}.",
            param="window",
        )
    return window


def alerts_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the alerts that fire or are about to; not the one that always fires to be heard, and
    not those that another one explains.
    """
    return [
        alert
        for alert in report.get("data", ())
        if alert["state"] in SHOWN_ALERTS
        and alert["severity"] in ("page", "ticket")
        and not alert["inhibited_by"]
    ]


def named(alert: Mapping[str, Any]) -> tuple[str, Level]:
    """Return what an alert says, and how bad it is."""
    return str(alert.get("summary") or alert["name"]), (
        "red" if alert["severity"] == "page" else "amber"
    )


def with_health(row: dict[str, Any], report: HealthReport | None) -> dict[str, Any]:
    """Add a model's breaker and its calls to a row; a model that was removed has none."""
    if report is None:
        return {**row, "state": None}
    return {
        **row,
        "state": report.state,
        "why": report.why,
        "for_s": report.for_s,
        "rests_s": report.rests_s,
        "running": report.busy,
        "waiting": report.waiting,
    }


def names_of(records: RecordStore) -> dict[str, str]:
    """Return the names of the keys that were made at run time, by what identifies them."""
    _, keys, _ = records.keys.load()
    return {key.id: key.name for key in keys}


def sum_row(each: LedgerSum, names: Mapping[str, str]) -> dict[str, Any]:
    return {
        "name": names.get(each.group) or each.group,
        "id": each.group,
        "calls": each.calls,
        "failed": each.failed,
        "unknown": each.unknown,
        "cost_usd": format_usd(usd(each.cost)),
        "input_tokens": each.input_tokens,
        "output_tokens": each.output_tokens,
        "cost": each.cost,
    }


def largest(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return those that cost most."""
    rows = sorted(rows, key=lambda row: (-row["cost"], -row["calls"], row["id"]))
    return [{name: row[name] for name in row if name != "cost"} for row in rows[:MOST_ROWS]]


def limit_row(limit: LimitState) -> dict[str, Any]:
    """Return a limit with what is used of it."""
    return {
        "of": limit.scope,
        "name": limit.name,
        "answers": used(limit.answers, limit.most_answers),
        "rpm": used(limit.requests, limit.rpm),
        "tpm": used(limit.tokens, limit.tpm),
        "budgets": [shown(budget) for budget in limit.budgets],
    }


def used(count: int, limit: int | None) -> dict[str, int] | None:
    return None if limit is None else {"used": count, "limit": limit}


def feedback_row(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "answer", "kind", "at", "app", "model", "served_by", "tenant", "helpful")
    question = row["question"] or ""
    return {
        **{name: row[name] for name in names},
        "reasons": row["reasons"],
        "comment": row["comment"],
        "question": question[:LONGEST_QUESTION] or None,
    }


def collection_row(app: str, knowledge: Knowledge, asker: Asker) -> dict[str, Any]:
    status = knowledge.status(asker)
    return {
        "app": app,
        **readiness(knowledge, asker),
        "share": knowledge.read_share,
        "scanning": bool(status["scanning"]),
    }


def document_row(view: DocumentView) -> dict[str, Any]:
    names = ("id", "app", "path", "state", "passages", "read_at", "error", "reason", "next", "page")
    return {name: getattr(view, name) for name in names}
