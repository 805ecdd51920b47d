"""Write a plan that a manager can read: one HTML file without network or scripts."""

from collections.abc import Iterator, Sequence

import slipway
from slipway.evals import charts
from slipway.evals.markup import Markup, joined, tag
from slipway.evals.run_pages import grid, page
from slipway.evals.statistics import Measured
from slipway.planner.candidacy import LEVELS, Candidacy
from slipway.planner.constraints import counted
from slipway.planner.costs import Option
from slipway.planner.deciding import Decision
from slipway.planner.demand import MONTH_S
from slipway.planner.reports import (
    break_even,
    cost_range,
    headline,
    kind_meaning,
    machines,
    nearest,
    quality,
    reason,
    usd,
)

SHOWN = 12


def html(decision: Decision, assumed: Sequence[str]) -> str:
    """Return the whole report; the same decision gives the same bytes."""
    return page(
        f"Plan: {decision.name}",
        _opening(decision),
        _conditions(decision),
        _deployment(decision),
        _candidates(decision),
        _rejected(decision),
        _needs(decision, assumed),
        _sources(decision),
    )


def _opening(decision: Decision) -> Markup:
    about = f"{decision.today}, Slipway {slipway.__version__}, catalogue {decision.catalogue[:12]}"
    return joined(
        tag("h1", f"Plan: {decision.name}"),
        tag("p", about, class_="soft"),
        tag("p", tag("strong", headline(decision))),
        tag("p", reason(decision)),
        tag("ul", *(tag("li", each) for each in decision.advice), class_="notes")
        if decision.advice
        else "",
    )


def _conditions(decision: Decision) -> Markup:
    if not decision.conditions:
        return tag("p", "All conditions are met: it can go live.", class_="good")
    return joined(
        tag("h2", "Before it goes live"),
        tag("p", "Each of these must be met. Until then, no settings file is written."),
        tag("ul", *(tag("li", each, class_="bad") for each in decision.conditions)),
    )


def _deployment(decision: Decision) -> Markup:
    found = decision.deployment
    if found is None:
        return Markup()
    options = list(found.options[:SHOWN])
    table = [["", "A month", "1,000 requests", "Machines", "What it means"]]
    table += [
        [
            f"{option.kind}{' (chosen)' if option is found.chosen else ''}",
            cost_range(option),
            usd(option.thousand_usd),
            machines(option),
            kind_meaning(option),
        ]
        for option in options
    ]
    rows = [
        charts.Row(label=f"{each.kind} {each.machine}".strip(), values={0: _measured(each)})
        for each in options
    ]
    picture = charts.intervals("A month in USD", rows, lambda v: f"${v:,.0f}", span=(0.0, 0.0))
    error = decision.requirements.assumptions.traffic_error
    return joined(
        tag("h2", "What it costs"),
        tag(
            "figure",
            picture,
            tag(
                "figcaption",
                f"A month in USD; the line is for {error:.0%} less and more traffic than planned",
            ),
        ),
        grid(table, "Ways to run it", "plain"),
        tag("p", f"{break_even(decision)[:1].upper()}{break_even(decision)[1:]}."),
        _traffic(decision),
        tag("h2", "If it fails"),
        tag(
            "p",
            f"Requests go to {' then to '.join(found.chain) or 'nobody'}. Together they answer "
            f"{found.availability:.4%} of the time, if zones and providers fail independently.",
        ),
    )


def _measured(option: Option) -> Measured:
    return Measured(value=option.month_usd, low=option.low_usd, high=option.high_usd, n=1)


def _traffic(decision: Decision) -> Markup:
    """Return what a month costs at more and less traffic: by the token, and on machines."""
    found = decision.deployment
    if found is None or found.break_even is None:
        return Markup()
    api = next((o for each in decision.accepted for o in each.options if o.kind == "api"), None)
    own = next(
        (
            o
            for each in decision.accepted
            for o in each.options
            if o.kind == "on-demand" and o.service
        ),
        None,
    )
    if api is None or own is None or own.service is None:
        return Markup()
    most = 2 * max(found.break_even.rps, decision.demand.mean_rps)
    ratio, guess = (
        decision.demand.peak_rps / decision.demand.mean_rps,
        decision.requirements.assumptions,
    )
    each, hour = api.thousand_usd / 1000, own.month_usd / max(1, own.replicas)
    capacity = own.service.at_once * guess.utilisation / (own.service.service_s * ratio)
    steps: list[tuple[float, float]] = []
    count, rps = max(1, own.zones), 0.0
    while rps < most and count < 500:
        end = min(most, count * capacity)
        steps += [(rps, count * hour), (end, count * hour)]
        rps, count = end, count + 1
    series = {0: [(0.0, 0.0), (most, most * MONTH_S * each)], 1: steps}
    picture = charts.lines(
        "Cost by traffic",
        series,
        lambda v: f"{v:g}/s",
        lambda v: f"${v:,.0f}",
        at=decision.demand.mean_rps,
    )
    caption = "A month by the requests a second; the upright line is what is planned"
    return joined(
        charts.key(["by the token", "on machines"]),
        tag("figure", picture, tag("figcaption", caption)),
    )


def _candidates(decision: Decision) -> Markup:
    if not decision.accepted:
        return Markup()
    shown = decision.accepted[:SHOWN]
    table: list[list[str | Markup]] = [["", "A month", "Quality", "What is known", "On the front"]]
    table += [
        [
            f"{each.rank}. {each.model.id}",
            usd(each.best.month_usd if each.best is not None else None),
            quality(each),
            LEVELS[each.level],
            "yes" if each.on_front else "",
        ]
        for each in shown
    ]
    return joined(
        tag("h2", "Who passes"),
        tag(
            "p",
            f"{len(decision.accepted):,} models pass all constraints; the first {len(shown)} are "
            "shown. Nobody else is as good, as cheap and as fast as one on the front.",
        ),
        _scatter(decision),
        grid(table, "Who passes", "plain"),
    )


def _scatter(decision: Decision) -> Markup:
    shown = [each for each in decision.front if each.quality is not None and each.best is not None][
        :SHOWN
    ]
    others = [
        each
        for each in decision.accepted[:SHOWN]
        if not each.on_front and each.quality is not None and each.best is not None
    ]
    if len(shown) + len(others) < 2:
        return Markup()
    spots = [_spot(each, 0) for each in shown] + [_spot(each, 1) for each in others]
    picture = charts.scatter(
        "Quality and cost", spots, lambda v: f"${v:,.0f}", lambda v: f"{v:.0%}"
    )
    return joined(
        charts.key(["on the front", "beaten on all counts"]),
        tag(
            "figure",
            picture,
            tag(
                "figcaption",
                "Quality by the cost of a month: measured if there is an interval, else a "
                "public score",
            ),
        ),
    )


def _spot(each: Candidacy, series: int) -> charts.Spot:
    value = each.quality or 0.0
    measured = each.evidence
    y = (
        Measured(value=measured.score, low=measured.low, high=measured.high, n=measured.n)
        if measured
        else Measured(value=value, low=float("nan"), high=float("nan"), n=0)
    )
    cost = each.best.month_usd if each.best is not None else 0.0
    return charts.Spot(label=each.model.name, x=cost, y=y, series=series, strong=series == 0)


def _rejected(decision: Decision) -> Markup:
    counts = [
        ["Constraint", "Models"],
        *([name, f"{count:,}"] for name, count in counted(decision.rejected).items()),
    ]
    rows = nearest(decision, 12)
    table = [["", "Violates first", "Has", "Needed", "Would pass there with"]]
    table += [[id_, v.constraint, v.has, v.needs, v.relaxation] for id_, v in rows]
    return joined(
        tag("h2", "Who does not"),
        tag(
            "p",
            f"{len(decision.rejected):,} models are rejected, each by the first constraint that "
            "it violates. The decision file names all.",
        ),
        grid(counts, "Constraints"),
        grid(table, "Nearest", "plain") if rows else "",
        *(
            tag("p", tag("b", "A chain of models"), f" is rejected: {each.sentence}.")
            for each in decision.chains
        ),
    )


def _needs(decision: Decision, assumed: Sequence[str]) -> Markup:
    demand = decision.demand
    lines = [
        (
            f"{demand.mean_rps:.3g} requests a second on average, {demand.peak_rps:.3g} at the "
            "peak, "
            f"{demand.month:,.0f} a month"
        ),
        (
            f"{demand.input_tokens:,.0f} tokens in and {demand.output_tokens:,.0f} out for an "
            "average request"
        ),
        *(["followed through a trace of real requests"] if demand.trace else []),
    ]
    return joined(
        tag("h2", "What was reckoned with"),
        tag("ul", *(tag("li", each) for each in lines)),
        tag("h3", "Assumed, since nobody said") if assumed else "",
        tag("ul", *(tag("li", each) for each in assumed)) if assumed else "",
    )


def _sources(decision: Decision) -> Markup:
    return joined(
        tag("h2", "Where the facts are from"),
        tag("ul", _source_items(decision)),
    )


def _source_items(decision: Decision) -> Iterator[Markup]:
    for each in decision.accepted[:SHOWN]:
        model = each.model
        known = {name: model.source(name) for name in ("tiers", "languages", "regions", "context")}
        said = list(dict.fromkeys(f"{source.says} ({source.as_of})" for source in known.values()))
        if each.prior is not None:
            said.append(
                f"{each.prior.benchmark}: {each.prior.source.says} ({each.prior.source.as_of})"
            )
        if each.evidence is not None:
            said.append(f"measured: {each.evidence.log}")
        yield tag("li", tag("b", model.id), f": {'; '.join(said)}")
