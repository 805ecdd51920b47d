"""The routes of spending: what the asker's own key has spent, and the ledger for admin keys."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from slipway.admission import BudgetState
from slipway.answer import Current
from slipway.errors import BadRequest, Forbidden, NotKept
from slipway.ledger import LedgerRow, format_usd, moment, usd
from slipway.store import Grouping, Ledger, LedgerFilter, LedgerSum, StoreError
from slipway.types import Asker
from slipway.web.descriptions import (
    OBJECT,
    TEXT,
    WHOLE,
    Operation,
    Parameter,
    fields,
    list_of,
    one_of,
)
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute

GROUPINGS: tuple[Grouping, ...] = get_args(Grouping)
OWN = ("day", "app", "model")  # how a key's own use may be added up
MOST_ROWS = 1000
FIELDS = ("key", "tenant", "app", "model", "answer")  # that rows may be chosen by
SINCE = Parameter(name="since", about="a day (`2026-01-31`) or how far back (`7d`)")
UNTIL = Parameter(name="until", about="only what was before this day or time, written as `since`")
ROWS = (
    *(Parameter(name=name, about=f"only calls of this {name}") for name in FIELDS),
    Parameter(name="rows", about="`true` for single calls instead of sums"),
    Parameter(
        name="limit",
        about="how many calls at most",
        schema={"type": "integer", "minimum": 1, "maximum": MOST_ROWS},
    ),
    Parameter(name="after", about="the id of the last call of the page before"),
)
FLUSH_S = 2.0  # how long a report waits for calls that were just booked


class SpendingRoutes:
    """Handles `GET /v1/usage` and `GET /v1/ledger`."""

    def __init__(
        self, current: Current, ledger: Callable[[], Ledger], flush: Callable[[float], bool]
    ) -> None:
        """`ledger` opens the ledger; `flush` waits until what was booked is in it."""
        self.current, self._ledger, self._flush = current, ledger, flush

    async def usage(self, request: Request) -> Response:
        """Return what the asker's key has spent, and what is left of its limits."""
        asker: Asker = request.scope["slipway.asker"]
        asked = request.query_params
        check_names(asked, ("by", "since", "until"))
        by = grouping(asked, OWN)
        which = LedgerFilter(**times(asked), owner=asker.owner)
        sums = await self._read(lambda ledger: ledger.sums(by, which))
        admission = self.current.pipeline.admission
        await admission.hear(asker)
        budgets = admission.budgets(asker)
        return reply(
            {
                "object": "usage",
                "key": asker.owner,
                "tenant": asker.tenant,
                **totals(sums),
                "budgets": [shown(budget) for budget in budgets],
                "data": [sum_of(by, each) for each in sums],
            }
        )

    async def ledger(self, request: Request) -> Response:
        """Return sums of all keys, or single calls with `?rows=true` or `?answer=ID`.

        Raises Forbidden for a key that is no admin.
        """
        asker: Asker = request.scope["slipway.asker"]
        if not (asker.admin or asker.everything or self.current.pipeline.admission.open):
            raise Forbidden(
                "This key may not see what other keys have spent.",
                "Use GET /v1/usage for its own, or ask the operator for a key with `admin: true`.",
            )
        asked = request.query_params
        check_names(asked, ("by", "since", "until", *(each.name for each in ROWS)))
        if asked.get("rows", "true") not in ("true", "false"):
            raise BadRequest("`rows` must be `true` or `false`.", param="rows")
        chosen = {name: asked[name] for name in FIELDS if name in asked}
        which = LedgerFilter(
            **times(asked), owner=chosen.pop("key", None), **cast("dict[str, Any]", chosen)
        )
        if "answer" in asked or asked.get("rows") == "true":
            return await self._rows(which, asked)
        by = grouping(asked, GROUPINGS)
        sums = await self._read(lambda ledger: ledger.sums(by, which))
        return reply({"object": "list", **totals(sums), "data": [sum_of(by, s) for s in sums]})

    async def _rows(self, which: LedgerFilter, asked: Mapping[str, str]) -> Response:
        limit = count(asked, "limit", 100)
        after = asked.get("after", "")
        rows = await self._read(lambda ledger: ledger.rows(which, limit=limit + 1, after=after))
        more, rows = len(rows) > limit, rows[:limit]
        return reply({"object": "list", "has_more": more, "data": [row_of(row) for row in rows]})

    async def _read(self, read: Callable[[Ledger], Any]) -> Any:
        """Read the ledger in a thread, after what was booked until now is in it."""

        def reading() -> Any:
            self._flush(FLUSH_S)
            return read(self._ledger())

        try:
            return await asyncio.to_thread(reading)
        except StoreError as error:
            raise NotKept(f"The ledger cannot be read now ({error}).") from None

    def paths(self) -> list[ApiRoute]:
        return [
            ApiRoute(
                "/v1/usage",
                self.usage,
                methods=["GET"],
                does=Operation(
                    about="what this key has spent, by day, app or model: `?by=app`, `?since=7d`",
                    query=(groups(OWN), SINCE, UNTIL),
                    returns=fields(
                        object=one_of("usage"),
                        key=TEXT,
                        tenant=TEXT,
                        cost_usd=TEXT,
                        calls=WHOLE,
                        budgets=list_of(OBJECT),
                        data=list_of(OBJECT),
                    ),
                    errors=(NotKept,),
                ),
            ),
            ApiRoute(
                "/v1/ledger",
                self.ledger,
                methods=["GET"],
                does=Operation(
                    about="what all keys have spent, for admin keys; `?by=key`, or `?answer=ID` for its calls",
                    query=(groups(GROUPINGS), SINCE, UNTIL, *ROWS),
                    returns=fields(object=one_of("list"), data=list_of(OBJECT)),
                    errors=(Forbidden, NotKept),
                ),
            ),
        ]


def groups(known: tuple[str, ...]) -> Parameter:
    """Return the parameter that names the groups which sums are made for."""
    return Parameter(name="by", about="a sum for each", schema=one_of(*known))


def grouping(asked: Mapping[str, str], known: tuple[str, ...]) -> Grouping:
    by = asked.get("by", "day")
    if by not in known:
        raise BadRequest(
            f"`by` cannot be `{by[:100]}`.", f"Use one of: {', '.join(known)}.", param="by"
        )
    return cast("Grouping", by)


def check_names(asked: Mapping[str, str], known: tuple[str, ...]) -> None:
    """Raise BadRequest for a parameter that would be ignored: the sums would be others."""
    for name in asked:
        if name not in known:
            raise BadRequest(
                f"There is no parameter `{name[:100]}`.",
                f"Use some of: {', '.join(known)}.",
                param=name[:100],
            )


def times(asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the fields of a filter that are times. Raise BadRequest."""
    found = {}
    for name in ("since", "until"):
        if name in asked:
            try:
                found[name] = moment(asked[name])
            except ValueError as error:
                raise BadRequest(f"`{name}`: {error}.", param=name) from None
    return found


def count(asked: Mapping[str, str], name: str, default: int) -> int:
    sent = asked.get(name, str(default))
    if not sent.isascii() or not sent.isdigit() or not 1 <= int(sent[:9]) <= MOST_ROWS:
        what = f"`{name}` must be a whole number from 1 to {MOST_ROWS}."
        raise BadRequest(what, param=name)
    return int(sent)


def totals(sums: list[LedgerSum]) -> dict[str, Any]:
    """Return the sum of all groups. Amounts are text: JSON numbers are not exact everywhere."""
    return {
        "cost_usd": format_usd(usd(sum(each.cost for each in sums))),
        "calls": sum(each.calls for each in sums),
        "unknown": sum(each.unknown for each in sums),
        "estimated": sum(each.estimated for each in sums),
    }


def sum_of(by: str, sums: LedgerSum) -> dict[str, Any]:
    values = msgspec.structs.asdict(sums)
    group, cost = values.pop("group"), values.pop("cost")
    return {by: group, "cost_usd": format_usd(usd(cost)), **values}


def row_of(row: LedgerRow) -> dict[str, Any]:
    values = msgspec.structs.asdict(row)
    values.pop("cost")
    usage = msgspec.structs.asdict(values.pop("usage"))
    key = values.pop("owner")
    return {**values, "key": key, **usage, "cost_usd": format_usd(row.cost_usd)}


def shown(budget: BudgetState) -> dict[str, Any]:
    left = max(0, budget.cap - budget.spent - budget.held)
    return {
        "of": budget.who,
        "period": budget.period,
        "limit_usd": format_usd(usd(budget.cap)),
        "spent_usd": format_usd(usd(budget.spent)),
        "reserved_usd": format_usd(usd(budget.held)),
        "left_usd": format_usd(usd(left)),
        "ends_at": budget.ends,
    }
