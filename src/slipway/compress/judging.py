"""What was measured beside what was asked for: each target's check, and what to do next."""

from collections.abc import Sequence
from math import isfinite, log, sqrt

from msgspec.structs import replace

from slipway.compress.gate import DELTA, Check, Targets, Verdict, at_most, not_worse, paired
from slipway.compress.jobs import Scores
from slipway.compress.measuring import Paces
from slipway.compress.results import DOMAIN, OTHER, RESULT, Planned, ResultFile

# half of the 95 % interval of a median, by the range of the middle half and the root of the number
_OF_MEDIAN = 1.96 * 1.2533 / 1.349


def recovered(original: ResultFile, pruned: ResultFile, distilled: ResultFile) -> dict[str, float]:
    """By how much of what pruning lost in log-perplexity the distilled model is better again."""
    found = dict[str, float]()
    for name in original.readings:
        lost, left = log(pruned.readings[name].ratio), log(distilled.readings[name].ratio)
        if lost > 0:
            found[name] = 1 - left / lost
    return found


def checks_of(
    targets: Targets, result: ResultFile, paces: Paces | None, scores: Scores | None
) -> list[Check]:
    found = list[Check]()
    if not all(isfinite(each.perplexity) for each in result.readings.values()):
        found.append(
            Check(name="numbers", wanted="a model that predicts", found="it predicts no numbers: a "
                  "weight does not fit into 16 bits, or is none in the source", verdict="reject")
        )  # fmt: skip
    if targets.size is not None:
        fits = result.bytes <= targets.size
        wanted, size = f"at most {targets.size / 1e6:.1f} MB", f"{result.bytes / 1e6:.1f} MB"
        found.append(
            Check(name="size", wanted=wanted, found=size, verdict="keep" if fits else "reject")
        )
    if targets.speed is not None:
        found.append(_fast_enough(targets.speed, paces))
    if targets.perplexity is not None:
        found.append(_close_enough(targets.perplexity, result))
    if scores:
        delta = DELTA if targets.points is None else targets.points
        found.append(not_worse(paired(*scores), delta))
    elif targets.points is not None:
        what = "not measured: give --questions and --docs"
        found.append(
            Check(name="answers", wanted=f"no more than {targets.points:.1%} lost", found=what,
                  verdict="undecided")
        )  # fmt: skip
    return found


def _fast_enough(wanted: float, paces: Paces | None) -> Check:
    name, words = "speed", f"at least {wanted:.2f}x the original's tokens a second"
    if paces is None or paces.why:
        why = paces.why if paces else "timing was left out"
        return Check(name=name, wanted=words, found=why, verdict="undecided")
    pace = paces.models[RESULT]
    got = pace.speed_ratio
    margin = _OF_MEDIAN * pace.speed_spread * got / sqrt(paces.rounds)
    low, high = got - margin, got + margin
    verdict: Verdict = "keep" if low >= wanted else "reject" if high < wanted else "undecided"
    found = f"{got:.2f}x [{low:.2f}, {high:.2f}]"
    if verdict == "undecided":
        found += "; more --rounds, or a quieter machine, would decide it"
    return Check(name=name, wanted=words, found=found, verdict=verdict)


def _close_enough(wanted: float, result: ResultFile) -> Check:
    reading = result.readings.get(DOMAIN) or result.readings[OTHER]
    shares = (reading.ratio - 1, reading.low - 1, reading.high - 1)
    check = at_most("perplexity", wanted, *shares, form="+.1%")
    if DOMAIN in result.readings:
        return check
    found = f"{check.found} on general text, since none of your domain was given"
    return replace(check, found=found)


def advice_of(checks: Sequence[Check], planned: Planned) -> str:
    missed = {check.name for check in checks if check.verdict == "reject"}
    if "perplexity" in missed or "answers" in missed:
        return (
            "give text by --distil, or more --minutes"
            if not planned.distils
            else ("give more --minutes or more text, or choose a form of more bits")
        )
    if "speed" in missed:
        return f"the nearest is this one; with --distil TEXT, --prune depth:N is faster than {planned.form}"
    return ""
