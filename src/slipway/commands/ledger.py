"""`slipway ledger`: what was spent."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from slipway.app.loading import load_settings
from slipway.app.stores import saved_records
from slipway.commands.options import CONFIG, JSON, NonEmptyPath, counted
from slipway.errors import SettingsError
from slipway.ledger import LedgerRow, format_usd, moment, usd
from slipway.settings import Flags
from slipway.store import Ledger, LedgerFilter, LedgerSum

GROUPINGS = ("key", "tenant", "app", "model", "day")
NUMBERS = (
    *("calls", "failed", "estimated", "unknown"),
    *("input_tokens", "cached_tokens", "output_tokens"),
)
PAGE = 5_000  # rows that are read at a time
SINCE = click.option(
    "--since", metavar="WHEN", help="Only the last `7d`, `12h` …, or from a day: `2026-01-31`."
)


UNTIL = click.option("--until", metavar="DAY", help="Only what was before this day: `2026-02-01`.")


@click.group("ledger")
def command() -> None:
    """Show what was spent, and compare it with an invoice."""


@command.command("report")
@click.option(
    "--by", type=click.Choice(GROUPINGS), default="model", show_default=True, help="Add up by this."
)
@SINCE
@UNTIL
@click.option("--key", "owner", help="Only this key, by the id that the report shows.")
@click.option("--tenant", help="Only this tenant.")
@click.option("--app", help="Only this app, route or model, by the name that clients call.")
@click.option("--model", help="Only this model.")
@CONFIG
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@JSON
def report(
    by: str,
    since: str | None,
    until: str | None,
    config: Path | None,
    as_csv: bool,
    as_json: bool,
    **which: Any,
) -> None:
    """Add up what was spent; a running server need not be stopped.

    \b
    slipway ledger report --by tenant --since 2026-01-01 --until 2026-02-01
    """
    if as_csv and as_json:
        raise SettingsError(["--csv and --json: choose one of them"])
    sums = read_sums(Flags(config=config), by, between(since, until, **which))
    if not sums and not as_csv and not as_json:
        named = [f"{name} `{shown(value)}`" for name, value in which.items() if value is not None]
        of = f" of the {' and the '.join(named).replace('owner', 'key')}" if named else ""
        click.echo(f"Nothing is in the ledger{of} for this time.")
    elif as_csv:
        click.echo(as_csv_text(by, sums), nl=False)
    elif as_json:
        click.echo(json.dumps([plain(by, each) for each in sums], indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(lines(by, sums)))


@command.command("reconcile")
@click.argument("invoice", type=NonEmptyPath())
@SINCE
@UNTIL
@click.option("--provider", help="Only models of this provider, as the settings name it.")
@CONFIG
@JSON
@click.pass_context
def reconcile(
    context: click.Context,
    invoice: Path,
    since: str | None,
    until: str | None,
    provider: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Compare the ledger with INVOICE, a CSV file of a provider; exit with 1 if they differ.

    \b
    slipway ledger reconcile january.csv --since 2026-01-01 --until 2026-02-01
    """
    from slipway.commands import ledger_reconcile as work

    charged = work.read_invoice(invoice)
    settings = load_settings(Flags(config=config)).settings
    names = {name: model.name or name for name, model in settings.models.items()}
    which = between(since, until)
    with saved_records(settings) as store:
        rows = list(all_rows(store.ledger, which)) if store is not None else []
    if provider is not None:
        rows = of_provider(rows, provider)
    found = work.reconcile(charged, rows, names)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(work.lines(found)))
    context.exit(1 if found.differences else 0)


def of_provider(rows: Sequence[LedgerRow], provider: str) -> list[LedgerRow]:
    """Return the rows of one provider. Raises SettingsError if only others have rows."""
    found = [row for row in rows if row.provider == provider]
    if rows and not found:
        others = ", ".join(f"`{each}`" for each in sorted({row.provider for row in rows}))
        what = f"the ledger has no call of `{shown(provider)}` in this time, but of {others}"
        raise SettingsError([f"--provider: {what}"])
    return found


def all_rows(ledger: Ledger, which: LedgerFilter) -> Iterator[LedgerRow]:
    """Yield all rows that match, page by page."""
    after = ""
    while page := ledger.rows(which, limit=PAGE, after=after):
        yield from page
        after = page[-1].id


def between(since: str | None, until: str | None, **which: Any) -> LedgerFilter:
    """Return a filter for a time that options name. Raises SettingsError."""
    times: dict[str, Any] = {}
    for name, text in (("since", since), ("until", until)):
        try:
            times |= {} if text is None else {name: moment(text)}
        except ValueError as error:
            raise SettingsError([f"--{name}: {error}"]) from None
    if times.get("until", math.inf) <= times.get("since", 0.0):
        raise SettingsError(["--until: it is not after `--since`, so that nothing is between them"])
    return LedgerFilter(**times, **which)


def read_sums(flags: Flags, by: Any, which: LedgerFilter) -> list[LedgerSum]:
    """Return the sums in the store of these settings. Raises SettingsError."""
    with saved_records(load_settings(flags).settings) as store:
        return store.ledger.sums(by, which) if store is not None else []


def plain(by: str, sums: LedgerSum) -> dict[str, Any]:
    """Return a group as JSON values: the amount is text, since JSON has no exact decimals."""
    values = msgspec.structs.asdict(sums)
    group, cost = values.pop("group"), values.pop("cost")
    return {by: group, "cost_usd": format_usd(usd(cost)), **values}


def as_csv_text(by: str, sums: Sequence[LedgerSum]) -> str:
    text = io.StringIO()
    names = [
        "group",
        "cost",
        *(n for n in LedgerSum.__struct_fields__ if n not in ("group", "cost")),
    ]
    writer = csv.DictWriter(text, [by, "cost_usd", *names[2:]])
    writer.writeheader()
    writer.writerows(plain(by, each) for each in sums)
    return text.getvalue()


def lines(by: str, sums: Sequence[LedgerSum]) -> Iterator[str]:
    """Yield the lines that a person reads: a table, the total, and what the numbers leave out."""
    total = sum(each.cost for each in sums)
    heads = [by, "USD", *(name.removesuffix("_tokens") for name in NUMBERS)]
    rows = [
        [
            shown(each.group),
            format_usd(usd(each.cost)) or "0",
            *(f"{getattr(each, name):,}" for name in NUMBERS),
        ]
        for each in sums
    ]
    sums_of = [f"{sum(getattr(each, name) for each in sums):,}" for name in NUMBERS]
    rows.append(["total", format_usd(usd(total)) or "0", *sums_of])
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        first, *others = (
            text.ljust(w) if i == 0 else text.rjust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *others]).rstrip()
    if unknown := sum(each.unknown for each in sums):
        yield (
            f"\nThe cost of {counted(unknown, 'call')} is unknown, and in no amount above: "
            "set `price` of the model in the settings."
        )
    if estimated := sum(each.estimated for each in sums):
        yield (
            f"\n{counted(estimated, 'call')} ended before the provider reported its tokens: they "
            "are counted here."
        )


def shown(group: str) -> str:
    """Return a name without characters that control a terminal."""
    return "".join(c if c.isprintable() else " " for c in group[:60]) or "-"
