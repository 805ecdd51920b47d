"""The routes of traces: what happened to an answer, by its id, and the latest answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from slipway.answer import Current
from slipway.errors import BadRequest, Forbidden, NotFound
from slipway.settings.values import seconds
from slipway.telemetry.traces import TraceFilter
from slipway.types import Asker
from slipway.web.descriptions import (
    NUMBER,
    OBJECT,
    YES_NO,
    Operation,
    Parameter,
    fields,
    list_of,
    one_of,
)
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

NOT_KEPT = (
    "Traces are kept for {kept}, and only the key that asked and admin keys can see one; the "
    "server's log may say more."
)
REJECTED = (
    "A reference that begins with `ref-` belongs to a request that was rejected before an answer "
    "began; search for it in the server's log."
)
MOST_LISTED = 1000
YES = {"true": True, "1": True, "false": False, "0": False}


class TraceSource(Protocol):
    """Where traces are read; all methods block."""

    @property
    def keep_s(self) -> float: ...

    def find(self, answer_id: str, owner: str | None) -> dict[str, Any] | None: ...

    def recent(self, wanted: TraceFilter) -> tuple[list[dict[str, Any]], bool]: ...


async def nobody_else() -> None:
    """Do nothing: there is one process."""


FILTERS = (
    Parameter(name="limit", about="how many at most"),
    Parameter(name="errors", about="`true`: only those that failed"),
    Parameter(name="app", about="only those of this app, route or model"),
    Parameter(name="slower_than", about="only those that took longer, such as `2s`"),
    Parameter(name="before", about="only those that ended before this time, in seconds since 1970"),
)


class TraceRoutes:
    """Handles `GET /v1/traces` and `GET /v1/traces/{id}`."""

    def __init__(
        self,
        current: Current,
        traces: TraceSource,
        flush_others: Callable[[], Awaitable[None]] = nobody_else,
    ) -> None:
        """`flush_others` lets the other workers write what they have not written yet."""
        self.current, self.traces, self.flush_others = current, traces, flush_others
        self._turn = asyncio.Semaphore(1)  # searches must not take all threads

    async def one(self, request: Request) -> Response:
        """Return the trace of an answer that the asker owns.

        Admin keys and the operator see all traces, and so does everybody if there are no keys.
        """
        asker: Asker = request.scope["slipway.asker"]
        owner = None if self._sees_all(asker) else asker.owner
        wanted = request.path_params["id"]
        found = await self._find(wanted, owner)
        if found is None:
            await self.flush_others()
            found = await self._find(wanted, owner)
        if found is None:
            kept = NOT_KEPT.format(kept=in_words(self.traces.keep_s))
            where = REJECTED if wanted.startswith("ref-") else kept
            raise NotFound("There is no trace of this reference.", where, param="id")
        return reply(found)

    async def latest(self, request: Request) -> Response:
        """Return the latest answers of all keys. Raises Forbidden for a key that is no admin."""
        asker: Asker = request.scope["slipway.asker"]
        if not self._sees_all(asker):
            raise Forbidden(
                "This key may not see the answers of other keys.",
                "Ask for one of its own by its id, or ask the operator for a key with "
                "`admin: true`.",
            )
        wanted = filter_of(request.query_params)
        await self.flush_others()
        async with self._turn:
            found, is_cut = await asyncio.to_thread(self.traces.recent, wanted)
        return reply(
            {"object": "list", "kept_s": self.traces.keep_s, "is_cut": is_cut, "data": found}
        )

    async def _find(self, answer_id: str, owner: str | None) -> dict[str, Any] | None:
        async with self._turn:
            return await asyncio.to_thread(self.traces.find, answer_id, owner)

    def _sees_all(self, asker: Asker) -> bool:
        return asker.admin or asker.everything or self.current.pipeline.admission.open

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/traces",
                self.latest,
                methods=["GET"],
                does=Operation(
                    about="the latest answers, for an admin key",
                    query=FILTERS,
                    returns=fields(
                        object=one_of("list"),
                        kept_s=NUMBER,
                        is_cut=YES_NO,
                        data=list_of(OBJECT),
                    ),
                    errors=(Forbidden,),
                ),
            ),
            ApiRoute(
                "/v1/traces/{id}",
                self.one,
                methods=["GET"],
                does=Operation(
                    about="what happened to an answer, by its reference", errors=(NotFound,)
                ),
            ),
        ]


def filter_of(asked: Mapping[str, str]) -> TraceFilter:
    """Return which answers are asked for. Raises BadRequest."""
    return TraceFilter(
        limit=limit_of(asked.get("limit", "50")),
        errors=is_yes(asked.get("errors", "false")),
        app=asked.get("app") or None,
        slower_than_s=duration_of(asked.get("slower_than")),
        before=time_of(asked.get("before")),
    )


def limit_of(sent: str) -> int:
    if not sent.isascii() or not sent.isdigit() or not 1 <= int(sent[:9]) <= MOST_LISTED:
        what = f"`limit` must be a whole number from 1 to {MOST_LISTED}."
        raise BadRequest(what, param="limit")
    return int(sent)


def is_yes(sent: str) -> bool:
    if (found := YES.get(sent.lower())) is None:
        raise BadRequest("`errors` must be `true` or `false`.", param="errors")
    return found


def duration_of(sent: str | None) -> float | None:
    try:
        return None if sent is None else seconds(sent)
    except ValueError as error:
        raise BadRequest(f"`slower_than`: {error}.", param="slower_than") from None


def time_of(sent: str | None) -> float:
    """Return a time in seconds since the epoch; without one, a time after all answers."""
    try:
        found = float("inf") if sent is None else float(sent)
    except ValueError:
        found = float("nan")
    if not found > 0:
        what = (
            "`before` must be a time in seconds since 1970: the `at` of the last row that you have."
        )
        raise BadRequest(what, param="before")
    return found


def in_words(kept_s: float) -> str:
    """Return how long traces are kept, as a person writes it."""
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        if kept_s >= size:
            count = round(kept_s / size, 1)
            return f"{count:g} {unit}{'' if count == 1 else 's'}"
    return f"{kept_s:g} seconds"
