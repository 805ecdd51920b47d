"""The report of a run: lines for the terminal, Markdown, JSON, and HTML with plots."""

import html as html_
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from slipway.compress import plots
from slipway.compress.judging import recovered
from slipway.compress.measuring import Reading, Throughput
from slipway.compress.results import DOMAIN, ORIGINAL, OTHER, Outcome, ResultFile

VERDICTS = {
    "keep": "KEEP: every target is met",
    "reject": "REJECT: a target is missed",
    "undecided": "UNDECIDED: what was measured does not decide every target",
}
NOTE = "not measured"


def write_reports(outcome: Outcome, folder: Path) -> dict[str, Path]:
    """`report.html`, `report.md` and `report.json` in the folder."""
    made = datetime.now(UTC)
    found = {
        "html": (folder / "report.html", page(outcome, made)),
        "md": (folder / "report.md", markdown(outcome, made)),
        "json": (
            folder / "report.json",
            msgspec.json.format(msgspec.json.encode(outcome)).decode(),
        ),
    }
    for path, text in found.values():
        path.write_text(text, encoding="utf-8")
    return {kind: path for kind, (path, _) in found.items()}


def lines(outcome: Outcome) -> Iterator[str]:
    """For the terminal: the table, the checks, the verdict."""
    rows = table(outcome)
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    yield ""
    yield from notes(outcome)
    yield ""
    for check in outcome.gated.checks:
        yield f"{check.name}: wanted {check.wanted}, found {check.found}: {check.verdict}"
    yield VERDICTS[outcome.gated.verdict]
    if outcome.gated.advice:
        yield f"next: {outcome.gated.advice}"
    yield from registered(outcome)


def registered(outcome: Outcome) -> Iterator[str]:
    found = outcome.registered
    if not found.name:
        yield f"not registered: {found.why}"
        return
    yield f"registered as the weights `{found.name}`; taken back by: slipway compress rollback {found.name}"
    if found.route:
        share = f"{found.canary} of the questions to route `{found.route}`"
        yield f"{found.settings}: it answers {share}; add --config {found.settings} to the rollback"
    elif not found.settings:
        yield f"to serve it: models: {{{found.name}: {{provider: local, weights: {found.name}}}}}"


# The table

_COLUMNS: tuple[tuple[str, Callable[[Outcome, str, ResultFile], str]], ...] = (
    ("stage", lambda outcome, name, file: name),
    ("MB", lambda outcome, name, file: f"{file.bytes / 1e6:.1f}"),
    ("bits a weight", lambda outcome, name, file: f"{file.bits:.2f}"),
    ("memory MB", lambda outcome, name, file: _paced(outcome, name, lambda p: f"{p.memory / 1e6:.0f}")),
    ("TTFT ms", lambda outcome, name, file: _paced(outcome, name, _ttft, quiet=True)),
    ("tokens/s", lambda outcome, name, file: _paced(outcome, name, _speed, quiet=True)),
    ("perplexity", lambda outcome, name, file: _read(file, DOMAIN, _perplexity)),
    ("change", lambda outcome, name, file: _read(file, DOMAIN, _change)),
    ("out of domain", lambda outcome, name, file: _read(file, OTHER, _change)),
    ("KL", lambda outcome, name, file: _read(file, DOMAIN, lambda r: f"{r.kl:.4f}")),
    ("same token", lambda outcome, name, file: _read(file, DOMAIN, lambda r: f"{r.same_top:.1%}")),
    ("USD/M tokens", lambda outcome, name, file: _paced(outcome, name, _cost(outcome), quiet=True)),
)  # fmt: skip


def table(outcome: Outcome) -> list[list[str]]:
    """The head and a row for each stage. Columns that nothing was measured for are left out."""
    rows = [
        [make(outcome, name, file) for _, make in _COLUMNS] for name, file in outcome.files.items()
    ]
    kept = [n for n in range(len(_COLUMNS)) if any(row[n] != "-" for row in rows)]
    return [[_COLUMNS[n][0] for n in kept], *([row[n] for n in kept] for row in rows)]


def _paced(
    outcome: Outcome, name: str, shown: Callable[[Throughput], str], *, quiet: bool = False
) -> str:
    """`quiet`: a time, which is not given if the machine was too noisy."""
    paces = outcome.gated.paces
    if paces is None or name not in paces.models or (quiet and paces.why):
        return "-"
    return shown(paces.models[name])


def _ttft(pace: Throughput) -> str:
    return f"{1000 * pace.ttft_s:.0f} ({pace.ttft_ratio:.2f}x)"


def _speed(pace: Throughput) -> str:
    return f"{pace.tokens_a_second:.0f} ({pace.speed_ratio:.2f}x)"


def _cost(outcome: Outcome) -> Callable[[Throughput], str]:
    """Of a million answered tokens, one request at a time, at the given price of an hour."""
    price = outcome.price_hour
    if price is None:
        return lambda pace: "-"
    return lambda pace: f"{price / 3600 / pace.tokens_a_second * 1e6:.3f}"


def _read(file: ResultFile, text: str, shown: Callable[[Reading], str]) -> str:
    return shown(file.readings[text]) if text in file.readings else "-"


def _perplexity(reading: Reading) -> str:
    return f"{reading.perplexity:.2f} ± {reading.error:.2f}"


def _change(reading: Reading) -> str:
    if math.isclose(reading.low, reading.high):
        return "0"
    return f"{reading.ratio - 1:+.1%} [{reading.low - 1:+.1%}, {reading.high - 1:+.1%}]"


def notes(outcome: Outcome) -> Iterator[str]:
    """What a reader must know to read the table rightly."""
    yield from _about_source(outcome)
    kinds = ", ".join(f"{n} {k}" for k, n in outcome.result.kinds.items())
    yield f"The result's types: {kinds}."
    yield from _about_speed(outcome)
    yield from _about_lessons(outcome)
    if found := outcome.gated.answers:
        shares = f"{found.old:.1%} of the facts before, {found.new:.1%} after"
        yield f"Answers to {found.n} questions: {shares}."
    minutes = sum(outcome.seconds.values()) / 60
    memory = f"at most {outcome.memory / 1e9:.2f} GB of memory in one process"
    yield f"Took {minutes:.1f} minutes; {memory}."


def _about_source(outcome: Outcome) -> Iterator[str]:
    ingested, text = outcome.ingested, outcome.texts
    if ingested.lossy:
        kinds = ", ".join(f"{n} {k}" for k, n in ingested.kinds.items() if k not in ("f32", "f16"))
        yield (
            f"The source is quantised already ({kinds}): losses are against that, not against the "
            "weights it was made from. Its size, speed and memory are beside the same weights in 16 "
            f"bits, not beside the source, which has {ingested.bytes / 1e6:.1f} MB."
        )
        if outcome.result.bytes >= ingested.bytes:
            yield "The result is not smaller than the source: choose a form of fewer bits."
    if ingested.twice:
        yield (
            "The source stores the vocabulary's vectors twice; the result stores the finer of the "
            "two, once."
        )
    if DOMAIN not in outcome.original.readings:
        yield (
            "No text of the domain was given (--distil or --test): predictions were compared on "
            "general text only."
        )
    yield f"Text: {text.split}; {text.test} windows of {text.length} tokens are read."


def _about_speed(outcome: Outcome) -> Iterator[str]:
    paces = outcome.gated.paces
    if paces is None:
        yield "No speed is given: timing was left out."
    elif paces.why:
        yield f"No speed is given: {paces.why} (load {paces.load:.1f})."
    else:
        spread = max(max(p.ttft_spread, p.speed_spread) for p in paces.models.values())
        yield (
            f"Speed: medians of {paces.rounds} rounds in turns, threads: {paces.threads}, load "
            f"{paces.load:.1f}; the middle half of the ratios lies within {spread:.1%}."
        )
        if paces.clock == "processor":
            yield (
                "The machine was too busy for the wall's clock: times are of the processor, on one "
                "thread. The ratios hold, the times are none to promise anybody."
            )


def _about_lessons(outcome: Outcome) -> Iterator[str]:
    if outcome.pruned and outcome.pruned.layers:
        yield f"Layers taken out: {', '.join(map(str, outcome.pruned.layers))}."
    if taught := outcome.distilled:
        yield (
            f"Distilled for {taught.steps} steps in {taught.cpu_s / 60:.1f} CPU minutes, with "
            f"{taught.sampled} windows that the original wrote."
        )
        pruned = outcome.pruned
        final = recovered(outcome.original, pruned.file, outcome.result) if pruned else {}
        for text, share in taught.recovered.items():
            yield (
                f"Of the log-perplexity that pruning lost, {share:.0%} came back {text}; with the "
                f"weights rounded as in the lessons, {final.get(text, share):.0%}."
            )


# Pages


def markdown(outcome: Outcome, made: datetime) -> str:
    head, *rows = table(outcome)
    cells = [head, ["---"] * len(head), *rows]
    grid = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    checks = "\n".join(
        f"- {c.name}: wanted {c.wanted}, found {c.found}: **{c.verdict}**"
        for c in outcome.gated.checks
    )
    return (
        f"# {outcome.ingested.name}, compressed\n\n**{VERDICTS[outcome.gated.verdict]}**\n\n"
        f"{checks}\n\n{grid}\n\n" + "\n".join(f"- {note}" for note in notes(outcome))
        + f"\n\n`{outcome.command}`\n\n{_about(outcome)} Made {made:%Y-%m-%d %H:%M} UTC.\n"
    )  # fmt: skip


def _about(outcome: Outcome) -> str:
    it = outcome.ingested
    return (
        f"Source: {it.source}, sha256 {it.sha256}, {it.bytes / 1e6:.1f} MB, {it.architecture}, "
        f"{it.parameters / 1e6:.1f} million weights in {it.layers} layers; licence: {it.licence}."
    )


def page(outcome: Outcome, made: datetime) -> str:
    """One file without scripts, and with nothing that is loaded from elsewhere."""
    head, *rows = table(outcome)
    verdict = outcome.gated.verdict
    parts = [
        f"<p class='verdict {verdict}'>{_safe(VERDICTS[verdict])}</p>",
        _list(
            f"{c.name}: wanted {c.wanted}, found {c.found}: {c.verdict}"
            for c in outcome.gated.checks
        ),
        f"<p>{_safe(outcome.gated.advice)}</p>" if outcome.gated.advice else "",
        "<h2>Stage by stage</h2>",
        _table(head, rows),
        _list(notes(outcome)),
        *_plots(outcome),
        "<h2>How it was made</h2>",
        f"<p>{_safe(_about(outcome))}</p><p>{_safe(outcome.planned.why)}.</p>",
        _table(["stage", "seconds"], [[k, f"{v:.1f}"] for k, v in outcome.seconds.items()]),
        f"<pre>{_safe(outcome.command)}</pre>",
        _list(registered(outcome)),
        f"<p class='soft'>Made {made:%Y-%m-%d %H:%M} UTC by slipway compress.</p>",
    ]
    title = _safe(f"{outcome.ingested.name}, compressed")
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        "<meta http-equiv='Content-Security-Policy' "
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{title}</title><style>{style}</style></head><body><main><h1>{title}</h1>"
        + "".join(parts) + "</main></body></html>"
    )  # fmt: skip


def _plots(outcome: Outcome) -> Iterator[str]:
    files = outcome.files
    yield "<h2>Size and what it cost</h2>"
    yield plots.bars(
        "Size in MB", {name: file.bytes / 1e6 for name, file in files.items()}, "{:.1f}"
    )
    for text in (DOMAIN, OTHER):
        found = {k: f.readings[text] for k, f in files.items() if text in f.readings}
        if found:
            yield plots.intervals(
                f"Perplexity {text}, by that of the original, with 95 % intervals",
                {k: (r.ratio, r.low, r.high) for k, r in found.items()},
            )
    paces = outcome.gated.paces
    if paces is not None and not paces.why:
        yield "<h2>Speed</h2>"
        yield plots.bars(
            "Tokens a second", _of(paces.models, lambda p: p.tokens_a_second), "{:.0f}"
        )
        yield plots.bars(
            "Milliseconds to the first token",
            _of(paces.models, lambda p: 1000 * p.ttft_s),
            "{:.0f}",
        )
    if outcome.pruned:
        yield "<h2>What each layer does</h2>"
        influence = dict(enumerate(outcome.pruned.influence))
        gone = set(outcome.pruned.layers)
        yield plots.columns("Block influence; those taken out are marked", influence, gone)
    if outcome.distilled and outcome.distilled.losses:
        yield "<h2>Distillation</h2>"
        yield plots.curve("KL to the original, step by step", outcome.distilled.losses)


def _of(models: Mapping[str, Throughput], value: Callable[[Throughput], float]) -> dict[str, float]:
    return {name: value(pace) for name, pace in models.items()}


def _safe(text: str) -> str:
    return html_.escape(text)


def _list(items: Iterator[str]) -> str:
    found = "".join(f"<li>{_safe(item)}</li>" for item in items)
    return f"<ul>{found}</ul>" if found else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th scope='col'>{_safe(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th scope='row'>{_safe(row[0])}</th>"
        + "".join(f"<td>{_safe(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )  # fmt: skip
    return (
        "<div class='scroller' tabindex='0' role='region' aria-label='figures'>"
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


__all__ = ["NOTE", "ORIGINAL", "lines", "markdown", "page", "table", "write_reports"]
