"""Intervals and tests against scipy and statsmodels, and against simulation."""

import gzip
import json
import math
import random

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats import multitest, proportion
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of
from statsmodels.stats.inter_rater import cohens_kappa

from processes import ROOT
from slipway.evals.statistics import (
    Race,
    agreement,
    clustered_mean,
    compared_scores,
    evidence,
    holm,
    mcnemar,
    paired_shares,
    standard_error,
    t_quantile,
    wilson,
)

SIZES = (20, 50, 100, 300, 1000)
PER_ITEM = ROOT.parent / "shared" / "data" / "evals"


# Against others


@pytest.mark.parametrize("n", SIZES)
def test_wilsons_interval_is_that_of_statsmodels(n: int) -> None:
    for right in range(0, n + 1, max(1, n // 20)):
        found = wilson(right, n)
        low, high = proportion.proportion_confint(right, n, method="wilson")
        assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@pytest.mark.parametrize(
    ("wins", "losses"), [(0, 0), (1, 0), (8, 2), (15, 15), (40, 22), (200, 150)]
)
def test_mcnemars_test_is_that_of_statsmodels(wins: int, losses: int) -> None:
    theirs = mcnemar_of([[10, wins], [losses, 10]], exact=True).pvalue
    assert mcnemar(wins, losses) == pytest.approx(theirs, abs=1e-12)


def test_holms_correction_is_that_of_statsmodels() -> None:
    chance = random.Random(4)
    for many in (1, 2, 5, 12):
        ps = [chance.random() ** 3 for _ in range(many)]
        assert holm(ps) == pytest.approx(list(multitest.multipletests(ps, method="holm")[1]))


def test_students_quantile_is_that_of_scipy() -> None:
    for freedom in range(5, 200):
        for p in (0.9, 0.95, 0.975, 0.99):
            assert t_quantile(p, freedom) == pytest.approx(stats.t.ppf(p, freedom), abs=0.002)


def test_cohens_kappa_is_that_of_statsmodels() -> None:
    chance = random.Random(8)
    one = [chance.random() < 0.7 for _ in range(200)]
    other = [a if chance.random() < 0.8 else not a for a in one]
    table = [
        [sum(a == x and b == y for a, b in zip(one, other, strict=True)) for y in (True, False)]
        for x in (True, False)
    ]
    found = agreement(one, other)
    assert found.kappa == pytest.approx(cohens_kappa(table).kappa)
    assert found.share.value == sum(a == b for a, b in zip(one, other, strict=True)) / 200
    assert math.isnan(agreement([True] * 5, [True] * 5).kappa)


def test_the_standard_error_is_that_of_scipy_and_grows_with_clusters() -> None:
    chance = np.random.default_rng(2)
    values = [float(v) for v in chance.normal(size=80)]
    assert standard_error(values) == pytest.approx(stats.sem(values))
    same = [v for v in values for _ in range(3)]  # each three times: nothing more is known
    clusters = [n for n in range(80) for _ in range(3)]
    assert standard_error(same, clusters) == pytest.approx(standard_error(values))
    assert standard_error(same) < standard_error(values)


def test_the_bootstrap_is_that_of_scipy_with_students_width() -> None:
    chance = np.random.default_rng(3)
    for n in (20, 60, 400):
        values = [float(v) for v in chance.beta(2, 1, size=n)]
        theirs = stats.bootstrap(
            (values,), np.mean, method="percentile", n_resamples=4000, rng=chance
        )
        interval, found = theirs.confidence_interval, clustered_mean(values)
        width = (found.high - found.low) / (interval.high - interval.low)
        wider = math.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1) / stats.norm.ppf(0.975)
        assert width == pytest.approx(wider, rel=0.06)
        assert found.value == pytest.approx(np.mean(values))


def test_a_paired_test_without_zeros_and_ones_agrees_with_scipys() -> None:
    chance = np.random.default_rng(7)
    for shift in (0.0, 0.03, 0.08):
        one = chance.beta(4, 2, size=150)
        other = one - shift + chance.normal(0, 0.15, size=150)
        pair = compared_scores(list(one), list(other))
        theirs = stats.ttest_rel(one, other).pvalue
        assert pair.test == "paired bootstrap"
        assert pair.p == pytest.approx(theirs, abs=0.03)
        assert (pair.p < 0.05) == (theirs < 0.05)


# Against simulation


def exact_coverage(n: int, p: float) -> float:
    """Compute how often Wilson's interval contains p: the sum over all outcomes."""
    outcomes = stats.binom.pmf(range(n + 1), n, p)
    intervals = [wilson(k, n) for k in range(n + 1)]
    return float(
        sum(chance for chance, m in zip(outcomes, intervals, strict=True) if m.low <= p <= m.high)
    )


@pytest.mark.parametrize("n", SIZES)
def test_wilsons_interval_holds_the_truth_in_93_to_97_of_100_sets(n: int) -> None:
    """Averages over the shares, since at single shares whole numbers of items make it jump."""
    shares = np.linspace(0.5, 0.99, 99)
    assert 0.93 <= float(np.mean([exact_coverage(n, p) for p in shares])) <= 0.97


@pytest.mark.parametrize("n", [20, 50, 100])
def test_intervals_of_means_and_of_clusters_hold_the_truth(n: int) -> None:
    chance = np.random.default_rng(n)
    held = {"alone": 0, "clustered": 0}
    rounds = 400
    for _ in range(rounds):
        found = clustered_mean([float(v) for v in chance.beta(2, 2, size=n)])
        held["alone"] += found.low <= 0.5 <= found.high
        means = chance.normal(0, 1, size=n)  # n clusters of 4 items that are much alike
        values = [float(m + e) for m in means for e in chance.normal(0, 0.5, size=4)]
        found = clustered_mean(values, [c for c in range(n) for _ in range(4)])
        held["clustered"] += found.low <= 0 <= found.high
    for name, count in held.items():
        assert 0.92 <= count / rounds <= 0.98, name  # 93 to 97, and the chance of 400 rounds


@pytest.mark.parametrize("n", SIZES)
def test_the_interval_of_a_paired_difference_holds_the_truth(n: int) -> None:
    """On average over the shares, since at single ones whole numbers of items make it jump."""
    chance, shares = np.random.default_rng(n + 1), list[float]()
    for up, down in ((0.15, 0.05), (0.1, 0.1), (0.3, 0.1), (0.25, 0.2)):
        counts = chance.multinomial(n, [up, down, 1 - up - down], size=4000)
        known = {
            tuple(c): paired_shares(int(c[0]), int(c[1]), n) for c in np.unique(counts, axis=0)
        }
        held = sum(known[tuple(c)].low <= up - down <= known[tuple(c)].high for c in counts) / 4000
        shares.append(held)
    assert 0.93 <= float(np.mean(shares)) <= 0.97
    assert min(shares) >= 0.93
    assert max(shares) <= 0.98


def test_the_interval_of_a_paired_difference_is_that_of_the_literature() -> None:
    """The example of Fagerland, Lydersen and Laake (2014): airway reactivity of 21 children."""
    found = paired_shares(1, 7, 21)
    assert (round(found.value, 3), round(found.low, 3), round(found.high, 3)) == (
        *(-0.286, -0.517, -0.026),
    )
    never = paired_shares(0, 0, 20)
    assert never.low == pytest.approx(-never.high) == pytest.approx(-0.161, abs=0.001)
    assert paired_shares(20, 0, 20).high == pytest.approx(1.0)


# Looking after every item


def test_evidence_is_the_mean_of_the_likelihood_ratio_over_all_shares() -> None:
    for wins, losses in ((0, 0), (3, 1), (20, 5)):
        grid = (np.arange(20000) + 0.5) / 20000
        ratio = np.mean(grid**wins * (1 - grid) ** losses) * 2 ** (wins + losses)
        assert math.exp(evidence(wins, losses)) == pytest.approx(ratio, rel=1e-3)


def test_testing_after_every_item_seldom_finds_a_false_difference() -> None:
    chance, false, rounds = random.Random(11), 0, 400
    for _ in range(rounds):
        race = Race(["a", "b"])
        for _ in range(400):
            race.see({"a": chance.random() < 0.8, "b": chance.random() < 0.8})
            if race.winner is not None:
                false += 1
                break
    assert false / rounds <= 0.05


def test_of_three_the_beaten_drop_out_and_the_best_wins() -> None:
    chance, race = random.Random(3), Race(["best", "poor", "poorest"])
    while race.winner is None and race.items < 5000:
        race.see(
            {n: chance.random() < p for n, p in (("best", 0.8), ("poor", 0.6), ("poorest", 0.3))}
        )
    assert race.winner == "best"
    assert race.beaten["poorest"][1] < race.beaten["poor"][1]
    assert race.p("best", "poor") < 0.05 / 3


@pytest.mark.skipif(not PER_ITEM.exists(), reason="needs ../shared/data/evals beside the checkout")
@pytest.mark.parametrize(("name", "most"), [("mmlu", 250), ("gsm8k", 250)])
def test_real_models_are_distinguished_within_250_items(name: str, most: int) -> None:
    data = gzip.decompress((PER_ITEM / f"routellm_{name}_per_item.jsonl.gz").read_bytes())
    rows = [json.loads(line) for line in data.splitlines()]
    pairs = [(row["gpt-4-1106"], row["mixtral-8x7b"]) for row in rows]
    chance, stops = random.Random(1), []
    for _ in range(1000):
        race = Race(["gpt-4", "mixtral"])
        for one, other in chance.sample(pairs, min(800, len(pairs))):
            race.see({"gpt-4": one, "mixtral": other})
            if race.winner is not None:
                break
        assert race.winner == "gpt-4"
        stops.append(race.items)
    assert sorted(stops)[int(0.9 * len(stops))] <= most


def test_the_detectable_difference_agrees_with_a_simulation() -> None:
    """At the detectable difference, four of five simulated runs find it."""
    chance, found, rounds = np.random.default_rng(5), 0, 300
    up, down = 0.1725, 0.0775
    detectable = []
    for _ in range(rounds):
        draws = chance.choice([1.0, -1.0, 0.0], p=[up, down, 1 - up - down], size=230)
        pair = compared_scores([float(d > 0) for d in draws], [float(d < 0) for d in draws])
        found += pair.p < 0.05
        detectable.append(pair.detectable)
    assert np.mean(detectable) == pytest.approx(up - down, abs=0.005)
    assert found / rounds == pytest.approx(0.8, abs=0.06)
