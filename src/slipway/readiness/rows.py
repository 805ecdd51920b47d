"""A row of `slipway check`: what was looked at, how it is, and what to do."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Literal

import msgspec

from slipway.errors import SettingsError
from slipway.types import Record

log = logging.getLogger("slipway")
CheckState = Literal["red", "amber", "green", "skipped"]
Facts = Mapping[str, float | int | str | bool | None]
STATES: tuple[CheckState, ...] = ("red", "amber", "green", "skipped")  # the worst first


class CheckRow(Record, frozen=True, kw_only=True):
    """The result of one check. `do` holds what to change, one thing a line; `facts` are numbers
    for programs.
    """

    name: str
    looked_at: str
    state: CheckState
    says: str
    do: tuple[str, ...] = ()
    facts: Facts = msgspec.field(default_factory=dict)


class Readiness(Record, frozen=True, kw_only=True):
    """All rows of one run."""

    of: str  # the settings file or the address that was checked
    at: float
    took_s: float
    rows: tuple[CheckRow, ...]

    @property
    def state(self) -> CheckState:
        """Return the worst state of a row that was not skipped; green if there is none."""
        found = {row.state for row in self.rows}
        return next((state for state in ("red", "amber") if state in found), "green")

    def counts(self) -> dict[CheckState, int]:
        """Return the number of rows in each state."""
        return {state: sum(row.state == state for row in self.rows) for state in STATES}


Check = Callable[[], Awaitable[Iterable[CheckRow]]]


async def run_checks(checks: Mapping[str, tuple[Check, float]]) -> list[CheckRow]:
    """Run checks concurrently, each within its own time, and return their rows in the table's order.

    A check that fails by a bug or does not end in time becomes a row, so that the others are shown.
    """
    found = await asyncio.gather(
        *(_one(name, check, limit_s) for name, (check, limit_s) in checks.items())
    )
    return [row for rows in found for row in rows]


async def _one(name: str, check: Check, limit_s: float) -> list[CheckRow]:
    try:
        async with asyncio.timeout(limit_s):
            return list(await check())
    except TimeoutError:
        says = f"This did not end within {limit_s:g} s."
        do = ("Run the check again; if it happens again, look for what hangs there.",)
        return [CheckRow(name=name, looked_at=name, state="amber", says=says, do=do)]
    except SettingsError as error:
        says, *more = error.problems
        return [CheckRow(name=name, looked_at=name, state="red", says=says, do=tuple(more))]
    except Exception as error:  # a bug of one check must not hide what the others found
        log.debug("bug: the check %s failed", name, exc_info=True)
        says = f"The check itself failed unexpectedly ({type(error).__name__})."
        do = ("Report this as a bug of Slipway.",)
        return [CheckRow(name=name, looked_at=name, state="amber", says=says, do=do)]


def made(of: str, began_at: float, rows: Iterable[CheckRow]) -> Readiness:
    """Return the result of a run that began at this monotonic time."""
    took_s = time.monotonic() - began_at
    return Readiness(of=of, at=time.time(), took_s=took_s, rows=tuple(rows))


def counted(count: int, noun: str) -> str:
    """Return `1 key` or `2 keys`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
