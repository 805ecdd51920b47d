"""`slipway trace`: what happened to an answer, or to the latest ones."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import click

from slipway.app.loading import load_settings
from slipway.app.stores import LazyRecords
from slipway.commands.options import CONFIG, JSON
from slipway.commands.server_calls import NoServer, ServerPlace, call_server
from slipway.errors import BadRequest
from slipway.settings import Flags
from slipway.telemetry.traces import TraceFilter, Traces

BAR = 24  # characters of the time line
MOST_LISTED = 1000
USUAL = {"role": "primary", "kind": "first", "used": True, "status": 200}  # not worth printing
SHORT_S = 0.001  # a shorter wait is not worth reading
UNITS = {"ttft_s": "first words after", "waited_s": "waited"}
COLUMNS = ("ended", "id", "app", "answered by", "outcome", "took", "first", "tokens", "USD")


class WantedTraces(NamedTuple):
    """Which answers a list shows, as the flags say."""

    last: int
    errors: bool
    app: str | None
    slower_than: str | None

    def query(self) -> dict[str, str]:
        """Return the parameters of GET /v1/traces."""
        found = {"limit": str(self.last), "errors": str(self.errors).lower()}
        found |= {"app": self.app} if self.app else {}
        return found | ({"slower_than": self.slower_than} if self.slower_than else {})


@click.command("trace")
@click.argument("ref", required=False)
@click.option(
    "--last",
    type=click.IntRange(1, MOST_LISTED),
    help="List so many of the latest answers instead; needs an admin key.",
)
@click.option("--errors", is_flag=True, help="List only answers that failed.")
@click.option("--app", help="List only answers of this app, route or model.")
@click.option("--slower-than", metavar="TIME", help="List only slower answers, such as 2s.")
@CONFIG
@click.option("--url", help="Ask this server instead, such as http://127.0.0.1:8080.")
@click.option(
    "--key", envvar="SLIPWAY_KEY", help="Key that asked the question; SLIPWAY_KEY is read too."
)
@JSON
def command(
    ref: str | None,
    last: int | None,
    errors: bool,
    app: str | None,
    slower_than: str | None,
    config: Any,
    url: str | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Show what happened to the answer REF: each stage and each call of a model, when it began, how
    long it took, what it cost and how it ended.

    The server keeps this for a day (the setting `traces`). It is read from the disk if no server
    runs here.

    \b
    slipway trace ans-9fa37b23d3459b667ac4c5e7e6caa026
    slipway trace --last 20 --errors --app support
    """
    is_list = last is not None or errors or app is not None or slower_than is not None
    if is_list == (ref is not None):
        raise BadRequest(
            "Either a reference or a list is shown.",
            "Write `slipway trace ID` or `slipway trace --last 20`.",
        )
    place = ServerPlace(Flags(config=config), url, key)
    if ref is not None:
        found = fetch_trace(ref, place)
        text = lines(found)
    else:
        found = fetch_list(WantedTraces(last or 20, errors, app, slower_than), place)
        text = list_lines(found["data"])
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(text))


def fetch_trace(ref: str, place: ServerPlace) -> dict[str, Any]:
    """Return the trace as GET /v1/traces/{id} gives it.

    Raises BadRequest if there is none.
    """
    if not re.fullmatch(r"[\w-]+", ref, re.ASCII):
        raise BadRequest(f"`{ref}` is not a reference.", "References begin with `ans-` or `ref-`.")
    try:
        return call_server(place, "GET", f"/v1/traces/{ref}")
    except NoServer:
        if (traces := kept_traces(place)) is None:
            raise
        found = traces.find(ref, None)
    if found is None:
        raise BadRequest("There is no trace of this reference.", "No server runs here, either.")
    return found


def fetch_list(wanted: WantedTraces, place: ServerPlace) -> dict[str, Any]:
    """Return the latest answers as GET /v1/traces gives them. Raises BadRequest."""
    from slipway.web.traces import filter_of

    chosen: TraceFilter = filter_of(wanted.query())
    try:
        return call_server(place, "GET", "/v1/traces", query=wanted.query())
    except NoServer:
        if (traces := kept_traces(place)) is None:
            raise
        found, is_cut = traces.recent(chosen)
    return {"object": "list", "kept_s": traces.keep_s, "is_cut": is_cut, "data": found}


def kept_traces(place: ServerPlace) -> Traces | None:
    """Return the traces that a server left on this machine; None if a server was named."""
    if place.url is not None:
        return None
    settings = load_settings(place.flags).settings
    folder = LazyRecords(settings).folder / "traces"
    kept = settings.traces
    return Traces(folder, kept.keep, kept.at_most_bytes) if folder.is_dir() else None


# One answer


def lines(trace: Mapping[str, Any]) -> Iterator[str]:
    """Yield each try of the answer, with what happened on a time line, for a person to read."""
    yield trace["id"]
    for each in trace["tries"]:
        yield from try_lines(each)


def try_lines(tried: Mapping[str, Any]) -> Iterator[str]:
    answer, spans = tried["answer"], tried["spans"]
    total_s = max((s["start_s"] + s["duration_s"] for s in spans), default=0.0)
    if answer is None:
        yield "  in progress"
    else:
        yield f"  {outcome_of(answer)}"
        total_s = max(total_s, answer["duration_s"])
    for rule in tried["rules"]:
        shadow = " (shadow: it did not answer)" if rule["shadow"] else ""
        yield f"  rule {rule['rule']} {rule['version']}, {rule['kind']}: {rule['reason']}{shadow}"
    if not spans:
        return
    widest = max(len(name_of(span)) for span in spans)
    yield f"  {'start':>9} {'took':>9}  {'':{BAR}}  {'':{widest}}"
    for span in spans:
        bar = bar_of(span["start_s"], span["duration_s"], total_s)
        yield (
            f"  {clock(span['start_s']):>9} {clock(span['duration_s']):>9}  {bar}  "
            f"{name_of(span):{widest}}  {facts_of(span)}"
        ).rstrip()


def outcome_of(answer: Mapping[str, Any]) -> str:
    """Return in one line how an answer ended."""
    day = datetime.fromtimestamp(answer["began_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    said = [
        f"answer of {answer['app']}: {answer['error'] or 'done'} after {clock(answer['duration_s'])}"
    ]
    if answer["ttft_s"] is not None:
        said.append(f"first words after {clock(answer['ttft_s'])}")
    if answer["served_by"]:
        writer = f" ({answer['model']})" if answer["model"] else ""
        said.append(f"served by {answer['served_by']}{writer}")
    if answer["cache"]:
        said.append(f"cache {answer['cache']}")
    usage = answer["usage"]
    if usage:
        said.append(f"{usage['input_tokens']} + {usage['output_tokens']} tokens")
    said.append(cost_of(answer.get("cost_usd")))
    return f"{day}  {', '.join(said)}"


def cost_of(cost_usd: str | None) -> str:
    return "cost unknown" if cost_usd is None else f"${cost_usd}"


def clock(time_s: float) -> str:
    """Return a duration with three digits that matter."""
    return f"{time_s * 1000:.1f} ms" if time_s < 1 else f"{time_s:.2f} s"


def bar_of(start_s: float, duration_s: float, total_s: float) -> str:
    """Return where a span lies on the time line."""
    full, empty = ("█", "·") if "utf" in (sys.stdout.encoding or "").lower() else ("#", ".")
    scale = BAR / total_s if total_s > 0 else 0.0
    first = min(BAR - 1, int(start_s * scale))
    length = max(1, min(BAR - first, round(duration_s * scale)))
    return empty * first + full * length + empty * (BAR - first - length)


def name_of(span: Mapping[str, Any]) -> str:
    return f"  model {span['name']}" if span["kind"] == "attempt" else str(span["name"])


def facts_of(span: Mapping[str, Any]) -> str:
    """Return how a span ended, what it cost, and its facts that are worth reading."""
    said = []
    if span["kind"] == "attempt":
        said = [span["error"] or "done", cost_of(span["cost_usd"])]
    elif span["error"]:
        said = [span["error"]]
    for name, value in span["facts"].items():
        if not is_worth_reading(name, value):
            continue
        said.append(f"{UNITS.get(name, name.replace('_', ' '))} {plain(name, value)}")
    return ", ".join(said)


def is_worth_reading(name: str, value: Any) -> bool:
    if name == "waited_s":
        return value is not None and bool(value >= SHORT_S)
    return value not in (None, "", 0, False, {}, []) and USUAL.get(name) != value


def plain(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {each}" for key, each in value.items())
    if value is True:
        return "yes"
    return clock(value) if name in UNITS else str(value)


# Several answers


def list_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table of answers, the latest first."""
    if not rows:
        yield "No such answer is kept."
        return
    table = [COLUMNS, *map(cells, rows)]
    widths = [max(len(row[at]) for row in table) for at in range(len(COLUMNS))]
    for row in table:
        yield "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    when = datetime.fromtimestamp(row["at"]).astimezone().strftime("%m-%d %H:%M:%S")
    writer = row["model"] or row["served_by"] or ""
    if row["served_by"] not in (None, "model") and row["model"]:
        writer = f"{row['served_by']} ({row['model']})"
    tokens = "" if row["input_tokens"] is None else f"{row['input_tokens']}+{row['output_tokens']}"
    return (
        when,
        row["id"],
        row["app"],
        writer,
        row["error"] or "done",
        clock(row["duration_s"]),
        "" if row["ttft_s"] is None else clock(row["ttft_s"]),
        tokens,
        "?" if row["cost_usd"] is None else row["cost_usd"],
    )
