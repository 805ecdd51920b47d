"""Summarise a run: quality, cost and speed of each candidate, and which one is better.

All is computed from logs alone, always in the same way: the same logs give the same bytes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import combinations
from pathlib import Path

from slipway import ledger
from slipway.errors import SettingsError
from slipway.evals import extracting, judging
from slipway.evals.items import Item
from slipway.evals.runlog import AnswerLine, RunLine, RunLog
from slipway.evals.scoring import SCORERS, Scored, score
from slipway.evals.statistics import (
    Agreement,
    Measured,
    Pair,
    Race,
    clustered_mean,
    compared_scores,
    holm,
    measured,
    quantile,
    standard_error,
    wilson,
)
from slipway.types import Record

ALPHA = 0.05
FEW = 6  # items below which nothing has an interval


class ScoredRow(Record, frozen=True, kw_only=True):
    """One item of one candidate, with what its output is worth."""

    item: Item
    answer: AnswerLine
    scored: Scored

    @property
    def failed(self) -> bool:
        return bool(self.answer.reply.error)


class CandidateSummary(Record, frozen=True, kw_only=True):
    """One candidate. Times are of answers that were made in this run, not of cached ones; `cost` is
    of one answer, `total_usd` of all, exact, of those whose price is known.
    """

    name: str
    about: str
    n: int
    failed: int
    cached: int
    unpriced: int
    strict: Measured
    flexible: Measured
    detectable: float
    ttft_p50: Measured
    ttft_p95: Measured
    tpot_p50: Measured
    tpot_p95: Measured
    cost: Measured
    total_usd: str
    input_tokens: float
    output_tokens: float
    served_by: Mapping[str, int]
    tags: Mapping[str, Measured]
    first_error: str = ""


class Comparison(Record, frozen=True, kw_only=True):
    """`one` less `other`. `p` is corrected for all pairs (Holm); `decided_at` is after how many
    items somebody who looked after each would have known, and `p_always` what they know now.
    """

    one: str
    other: str
    pair: Pair
    p: float
    p_always: float
    decided_at: int | None

    @property
    def sure(self) -> bool:
        return self.p < ALPHA

    @property
    def better(self) -> str | None:
        if not self.sure:
            return None
        return self.one if self.pair.difference.value > 0 else self.other


class Summary(Record, frozen=True, kw_only=True):
    """All that a report shows."""

    run: RunLine
    files: tuple[str, ...]
    n: int
    asked: int
    rows: Mapping[str, Sequence[ScoredRow]]
    candidates: Mapping[str, CandidateSummary]
    comparisons: Sequence[Comparison]
    winner: str | None
    judge: Agreement | None
    notes: Sequence[str]


def summary_of(files: Sequence[Path], only_tag: str | None = None) -> Summary:
    """Summarise one or more logs of the same set. Raises SettingsError."""
    logs = [RunLog(file) for file in files]
    runs = [log.run for log in logs if log.run is not None]
    if len({(run.digest, run.scorer) for run in runs}) > 1:
        names = ", ".join(f"{file}: {run.set}" for file, run in zip(files, runs, strict=True))
        raise SettingsError(
            [f"LOG: these are runs of different sets, which cannot be compared ({names})"]
        )
    rows = _rows(logs, only_tag)
    if not any(rows.values()):
        raise SettingsError(
            [f"LOG: there are no answers to report{f' with tag {only_tag}' if only_tag else ''}"]
        )
    # A candidate that stopped early has fewer items: each is measured on the items it answered, a
    # pair on the items that both answered.
    run = runs[-1]
    abouts = {name: about for each in runs for name, about in each.candidates.items()}
    candidates = {name: _candidate(name, abouts.get(name, ""), each) for name, each in rows.items()}
    race = _race(rows)
    comparisons = _comparisons(rows, race)
    verdicts = [line.verdicts for log in logs for line in log.verdicts.values()]
    agreed = judging.with_itself(verdicts)
    return Summary(
        run=run,
        files=tuple(map(str, files)),
        n=max(len(each) for each in rows.values()),
        asked=len(run.order),
        rows=rows,
        candidates=candidates,
        comparisons=comparisons,
        winner=_winner(candidates, comparisons),
        judge=agreed,
        notes=list(_notes(run, candidates, comparisons, rows)),
    )


def _rows(logs: Sequence[RunLog], only_tag: str | None) -> dict[str, list[ScoredRow]]:
    """Return the answers by the candidate's name, in the order in which items were asked."""
    found: dict[str, list[ScoredRow]] = {}
    for number, log in enumerate(logs, 1):
        run = log.run
        if run is None:
            continue
        for name in run.candidates:
            rows = [row for id_ in run.order if (row := _row(log, run, name, id_)) is not None]
            rows = [row for row in rows if only_tag is None or only_tag in row.item.tags]
            found[name if name not in found else f"{name} ({number})"] = rows
    return {name: rows for name, rows in found.items() if rows}


def _row(log: RunLog, run: RunLine, name: str, id_: str) -> ScoredRow | None:
    answer, item = log.answers.get((name, id_)), log.items.get(id_)
    if answer is None or item is None:
        return None
    if answer.item_hash != item.hash:
        return None  # the item has changed since, and was not asked again
    line = log.verdict(answer)
    if answer.reply.error:
        return ScoredRow(item=item, answer=answer, scored=Scored(strict=0.0, flexible=0.0))
    verdict = line.verdicts[0] if line is not None else None
    scored = score(run.scorer, answer.reply.text, item, answer.reply.cited, verdict)
    return ScoredRow(item=item, answer=answer, scored=scored)


def _clusters(rows: Sequence[ScoredRow]) -> list[str] | None:
    """Return the cluster of each item; None if no two items belong together."""
    found = [row.item.cluster or f"\0{row.item.id}" for row in rows]
    return found if len(set(found)) < len(found) else None


def share(values: Sequence[float], clusters: Sequence[str] | None) -> Measured:
    """Return Wilson's interval for right and wrong, the bootstrap's for everything else."""
    if clusters is None and all(value in (0, 1) for value in values):
        found = wilson(sum(values), len(values))
        return found if found.n >= FEW else _bare(found)
    return clustered_mean(values, clusters)


def _bare(found: Measured) -> Measured:
    return Measured(value=found.value, low=math.nan, high=math.nan, n=found.n)


def _candidate(name: str, about: str, rows: Sequence[ScoredRow]) -> CandidateSummary:
    clusters = _clusters(rows)
    replies = [row.answer.reply for row in rows]
    fresh = [row.answer.reply for row in rows if not row.answer.cached and not row.failed]
    costs = [Decimal(reply.cost_usd) for reply in replies if reply.cost_usd is not None]
    flexible = [row.scored.flexible for row in rows]
    served: dict[str, int] = {}
    for reply in replies:
        key = reply.served_by or ("failed" if reply.error else "model")
        served[key] = served.get(key, 0) + 1
    tags = sorted({tag for row in rows for tag in row.item.tags})
    return CandidateSummary(
        name=name,
        about=about,
        n=len(rows),
        failed=sum(row.failed for row in rows),
        cached=sum(row.answer.cached for row in rows),
        unpriced=sum(reply.cost_usd is None for reply in replies),
        strict=share([row.scored.strict for row in rows], clusters),
        flexible=share(flexible, clusters),
        detectable=_detectable(flexible, clusters),
        ttft_p50=_quantile(0.5, [reply.ttft_s for reply in fresh]),
        ttft_p95=_quantile(0.95, [reply.ttft_s for reply in fresh]),
        tpot_p50=_quantile(0.5, [reply.tpot_s for reply in fresh]),
        tpot_p95=_quantile(0.95, [reply.tpot_s for reply in fresh]),
        cost=clustered_mean([float(cost) for cost in costs]) if costs else _nothing(),
        total_usd=ledger.format_usd(sum(costs, Decimal())) or "0",
        input_tokens=_mean([reply.input_tokens for reply in replies]),
        output_tokens=_mean([reply.output_tokens for reply in replies]),
        served_by=served,
        tags={tag: _tagged(rows, tag) for tag in tags},
        first_error=next((reply.error for reply in replies if reply.error), ""),
    )


def _detectable(scores: Sequence[float], clusters: Sequence[str] | None) -> float:
    """Return the smallest difference to a candidate much like this one that so many items would
    show in four of five runs; with paired answers, less is enough.
    """
    n = len(scores)
    if n < 2:
        return math.nan
    mean_ = (sum(scores) + 2) / (n + 4)  # also if all are right (Agresti and Coull 1998)
    error = max(standard_error(scores, clusters), math.sqrt(mean_ * (1 - mean_) / (n + 4)))
    return (1.959964 + 0.841621) * math.sqrt(2) * error


def _nothing() -> Measured:
    return Measured(value=math.nan, low=math.nan, high=math.nan, n=0)


def _mean(values: Sequence[int | None]) -> float:
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else math.nan


def _quantile(q: float, values: Sequence[float | None]) -> Measured:
    """Return a quantile with an interval, if there are enough values for one."""
    there = sorted(value for value in values if value is not None)
    if not there:
        return _nothing()
    statistic = quantile(q, there)
    if len(there) < 20:
        return Measured(
            value=statistic(range(len(there))), low=math.nan, high=math.nan, n=len(there)
        )
    if len(there) <= 1000:
        return measured(statistic, len(there))
    z, n = 1.959964, len(there)  # ranks of order statistics (David and Nagaraja 2003)
    half = z * math.sqrt(n * q * (1 - q))
    low, high = there[max(0, math.floor(n * q - half))], there[min(n - 1, math.ceil(n * q + half))]
    return Measured(value=statistic(range(n)), low=low, high=high, n=n)


def _tagged(rows: Sequence[ScoredRow], tag: str) -> Measured:
    there = [row for row in rows if tag in row.item.tags]
    return share([row.scored.flexible for row in there], _clusters(there))


# Who is better


def _race(rows: Mapping[str, Sequence[ScoredRow]]) -> Race:
    """Replay the run item after item, as it looked after each one."""
    race = Race(list(rows), ALPHA)
    scores: dict[str, dict[str, float]] = {}
    for name, each in rows.items():
        for row in each:
            scores.setdefault(row.item.id, {})[name] = row.scored.flexible
    for at in scores.values():
        if all(name in at for name in race.left):
            race.see(at)
    return race


def _comparisons(rows: Mapping[str, Sequence[ScoredRow]], race: Race) -> list[Comparison]:
    found = []
    for one, other in combinations(rows, 2):
        there = {row.item.id: row for row in rows[other]}
        both = [(row, there[row.item.id]) for row in rows[one] if row.item.id in there]
        if both:
            pair = compared_scores(
                [a.scored.flexible for a, _ in both],
                [b.scored.flexible for _, b in both],
                _clusters([a for a, _ in both]),
            )
            found.append((one, other, pair))
    ps = holm([pair.p for _, _, pair in found])
    return [
        Comparison(
            one=one,
            other=other,
            pair=pair,
            p=p,
            p_always=race.p(one, other),
            decided_at=_decided(race, one, other),
        )
        for (one, other, pair), p in zip(found, ps, strict=True)
    ]


def _decided(race: Race, one: str, other: str) -> int | None:
    for loser, winner in ((one, other), (other, one)):
        by, at = race.beaten.get(loser, ("", 0))
        if by == winner:
            return at
    return None


def _winner(
    candidates: Mapping[str, CandidateSummary], comparisons: Sequence[Comparison]
) -> str | None:
    """Return the candidate that is surely better than every other, if there is one."""
    for name in candidates:
        against = [each for each in comparisons if name in (each.one, each.other)]
        if (
            against
            and all(each.better == name for each in against)
            and len(against) == len(candidates) - 1
        ):
            return name
    return None


def _notes(
    run: RunLine,
    candidates: Mapping[str, CandidateSummary],
    comparisons: Sequence[Comparison],
    rows: Mapping[str, Sequence[ScoredRow]],
) -> Iterator[str]:
    yield (
        f"The scorer is `{run.scorer}`: {SCORERS[run.scorer].meaning}. What counts is the "
        "flexible reading."
    )
    if run.extractor != extracting.VERSION:
        yield (
            f"The run was made with version {run.extractor} of the extractors, and is read with "
            f"{extracting.VERSION}: scores may differ from what it printed."
        )
    for each in candidates.values():
        yield from _notes_of(each, run)
    for pair in comparisons:
        if not pair.sure:
            yield _undecided(pair)
    if any(_clusters(each) for each in rows.values()):
        yield (
            "Some items belong together, such as questions about one passage; intervals and tests "
            "draw those together."
        )
    if run.judge is not None:
        yield (
            f"The judge is {run.judge}. Measure it against people too: slipway eval judge "
            "--labels FILE."
        )


def _notes_of(each: CandidateSummary, run: RunLine) -> Iterator[str]:
    gap = each.flexible.value - each.strict.value
    if gap >= 0.05:
        yield (
            f"{each.name}: {gap:.1%} of the items are right only in the flexible reading: the "
            "model does not keep to the form that was asked for."
        )
    if each.failed:
        yield (
            f"{each.name}: {each.failed} of {each.n} answers failed and count as wrong; the first "
            f"error: {each.first_error}"
        )
    if each.n < len(run.order):
        yield (
            f"{each.name}: {each.n} of {len(run.order)} items were asked, in an order that was "
            "drawn before the run."
        )
    if each.cached:
        yield (
            f"{each.name}: {each.cached} of {each.n} answers come from the cache: they cost "
            "nothing now, and have no times."
        )
    if each.unpriced:
        yield (
            f"{each.name}: the cost of {each.unpriced} of {each.n} answers is unknown, and is not "
            "0: give the model a `price`."
        )


def _undecided(pair: Comparison) -> str:
    needed = pair.pair.needed
    more = (
        f" A true difference as large as this one would take about {needed:,} items."
        if needed
        else ""
    )
    return (
        f"{pair.one} and {pair.other}: no difference beyond chance was found. On these items, a "
        f"difference of {pair.pair.detectable:.1%} or more would have been found in four of five "
        f"runs.{more} Take the cheaper one."
    )
