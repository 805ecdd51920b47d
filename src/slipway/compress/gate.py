"""Whether the result may be used: each target with what was measured, and the verdict.

`keep` needs every target met, `reject` follows from one that is missed. A speed and a quality in points
are met or missed only beyond doubt, a perplexity is met by its value and missed beyond doubt. A
quality target in points is a test of non-inferiority on the operator's own questions, each answered
by both models: the lower end of the 95 % interval of (new - old) must lie above -delta.
"""

import math
import re
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal

from slipway.compress.refusals import refused
from slipway.types import Record

Verdict = Literal["keep", "reject", "undecided"]
DELTA = 0.02
_MOST = 100_000  # more items than anybody will ask

_WRITTEN = re.compile(
    r"size=(?P<size>\d+(?:\.\d+)?)(?P<unit>[kMG]B)"
    r"|speed=(?P<speed>\d+(?:\.\d+)?)x"
    r"|quality=-(?P<points>\d+(?:\.\d+)?)pp"
    r"|perplexity=\+?(?P<share>\d+(?:\.\d+)?)%"
)
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}


class Targets(Record, frozen=True, kw_only=True):
    size: int | None = None  # bytes of the file, at most
    speed: float | None = None  # tokens a second by those of the original, at least
    points: float | None = None  # of the operator's questions that may be lost, as a share
    perplexity: float | None = None  # how much worse in the domain, as a share, at most


class Check(Record, frozen=True, kw_only=True):
    name: str
    wanted: str
    found: str
    verdict: Verdict


class Paired(Record, frozen=True, kw_only=True):
    """Scores of both models on the same items: new - old, with its 95 % interval."""

    n: int
    old: float
    new: float
    difference: float
    low: float
    high: float


def targets_from(texts: Sequence[str]) -> Targets:
    """Read `size=92MB`, `speed=1.7x`, `quality=-2pp`, `perplexity=+8%`. Raises SettingsError."""
    found = Targets()
    for text in texts:
        match = _WRITTEN.fullmatch(text.strip())
        if match is None:
            raise refused(
                f"--target: `{text}` is not one; write size=92MB, speed=1.7x, quality=-2pp "
                "(points of the answers to --questions) or perplexity=+8%"
            )
        found = Targets(
            size=round(float(match["size"]) * _UNITS[match["unit"]])
            if match["size"]
            else found.size,
            speed=float(match["speed"]) if match["speed"] else found.speed,
            points=float(match["points"]) / 100 if match["points"] else found.points,
            perplexity=float(match["share"]) / 100 if match["share"] else found.perplexity,
        )
    return found


def paired(old: Sequence[float], new: Sequence[float]) -> Paired:
    """The interval is Student's for the mean of differences, 95 %. If every difference is the same,
    that would be sure of itself after two items; then it is as wide as what so many items may have
    missed (Clopper & Pearson 1934, no event of `n`). If few items lost, or few won, Student's interval
    is too short; then it ends where the share of such items may end, by the same bound.
    """
    change = [b - a for a, b in zip(old, new, strict=True)]
    n = len(change)
    if n == 0:
        return Paired(n=0, old=0.0, new=0.0, difference=0.0, low=-1.0, high=1.0)
    mean = fmean(change)
    spread = stdev(change) if n > 1 else 0.0
    margin = _t(n - 1) * spread / math.sqrt(n) if spread else _unseen(n)
    below = max(margin, _rare([-each for each in change if each < 0], n)) if spread else margin
    above = max(margin, _rare([each for each in change if each > 0], n)) if spread else margin
    return Paired(
        n=n, old=fmean(old), new=fmean(new), difference=mean, low=mean - below, high=mean + above
    )


def _rare(sizes: Sequence[float], n: int) -> float:
    """How much more may be lost on average than was seen: items that lost, by the mean of what
    they lost.
    """
    count = len(sizes)
    return (_most_share(count, n) - count / n) * (fmean(sizes) if sizes else 1.0)


def _most_share(count: int, n: int) -> float:
    """The largest share of items, 97.5 %, if `count` of `n` were seen (Clopper & Pearson)."""
    if count == n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(40):
        share = (low + high) / 2
        seen = sum(_chance(k, n, share) for k in range(count + 1))
        low, high = (share, high) if seen > 0.025 else (low, share)
    return high


def _chance(count: int, n: int, share: float) -> float:
    """Of exactly `count` of `n`."""
    ways = math.lgamma(n + 1) - math.lgamma(count + 1) - math.lgamma(n - count + 1)
    return math.exp(ways + count * math.log(share) + (n - count) * math.log1p(-share))


def _unseen(n: int) -> float:
    """The largest share of items that differ of which `n` items show none, 97.5 %."""
    return float(1 - 0.025 ** (1 / n))


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's t (Abramowitz & Stegun 26.7.5, within 0.01 from 4 on)."""
    z = 1.959964
    terms: tuple[float, ...] = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    exact: dict[int, float] = {1: 12.706, 2: 4.303, 3: 3.182}
    series: float = z + sum(term / freedom ** (n + 1) for n, term in enumerate(terms))
    return exact.get(freedom, series)


def not_worse(found: Paired, delta: float) -> Check:
    """Non-inferiority at `delta`; if it is undecided, about how many more items would decide it."""
    words = f"{found.difference:+.1%} points [{found.low:+.1%}, {found.high:+.1%}] on {found.n} questions"
    if found.low > -delta:
        verdict: Verdict = "keep"
    elif found.high < -delta:
        verdict = "reject"
    else:
        verdict = "undecided"
        words += f"; {_more(found, delta)}"
    return Check(
        name="answers", wanted=f"no more than {delta:.1%} lost", found=words, verdict=verdict
    )


def _more(found: Paired, delta: float) -> str:
    if found.n == 0:
        return "undecided, since none of the questions could show a loss"
    away = abs(found.difference + delta)
    if math.isclose(found.high - found.difference, _unseen(found.n)):
        needed = math.ceil(math.log(0.025) / math.log(1 - min(away, 0.99))) if away else _MOST
        return f"undecided, about {max(1, needed - found.n):,} more items would decide it"
    margin = max(found.high - found.difference, found.difference - found.low)
    spread = margin / _t(found.n - 1) * math.sqrt(found.n)
    needed = math.ceil((1.96 * spread / away) ** 2) if away > 1e-9 else _MOST
    if not math.isfinite(needed) or needed >= _MOST:
        return (
            "undecided: the loss is as large as what is allowed, and no number of items decides it"
        )
    return f"undecided, about {max(1, needed - found.n):,} more items would decide it"


def verdict_of(checks: Sequence[Check]) -> Verdict:
    found = {check.verdict for check in checks}
    return "reject" if "reject" in found else "undecided" if "undecided" in found else "keep"


def at_most(name: str, wanted: float, found: float, low: float, high: float, form: str) -> Check:
    """A share that must not be above `wanted`: it is missed if its whole interval is above."""
    verdict: Verdict = "keep" if high <= wanted else "reject" if low > wanted else "undecided"
    if verdict == "undecided" and found <= wanted:
        verdict = "keep"  # the target names the value itself
    words = f"{found:{form}} [{low:{form}}, {high:{form}}]"
    return Check(name=name, wanted=f"at most {wanted:{form}}", found=words, verdict=verdict)
