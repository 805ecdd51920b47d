"""Test statistics against values worked out by hand."""

import math

import pytest

from slipway.evals.statistics import (
    all_or_none,
    auroc,
    compared,
    difference,
    mean,
    measured,
    mrr_at,
    ndcg_at,
    paired_auroc,
    quantile,
    ratio,
    recall_at,
)


def test_recall_is_the_share_of_gold_among_the_first() -> None:
    assert recall_at(3, ["x", "a", "b", "c"], {"a", "c"}) == 0.5
    assert recall_at(10, ["x", "a", "b", "c"], {"a", "c"}) == 1
    assert recall_at(3, ["a", "a", "b"], ["a", "a", "b"]) == 1
    assert recall_at(3, [], {"a"}) == 0


def test_mrr_is_one_over_the_rank_of_the_first_gold() -> None:
    assert mrr_at(3, ["x", "a", "b"], {"a", "b"}) == 0.5
    assert mrr_at(3, ["x", "y", "z", "a"], {"a"}) == 0


def test_ndcg_discounts_by_rank() -> None:
    assert ndcg_at(10, ["a", "b"], {"a", "b"}) == 1
    assert ndcg_at(10, ["x", "a"], {"a"}) == pytest.approx(1 / math.log2(3))  # 0.6309
    assert ndcg_at(10, ["a", "x", "b"], {"a", "b"}) == pytest.approx(
        (1 + 0.5) / (1 + 1 / math.log2(3))
    )  # 0.9197
    assert ndcg_at(2, ["x", "y", "a"], {"a"}) == 0
    assert ndcg_at(1, ["a"], {"a", "b", "c"}) == 1  # no more than k can be found


def test_auroc_counts_pairs_in_the_right_order() -> None:
    assert auroc([3, 2], [1, 0]) == 1
    assert auroc([1, 3], [2, 0]) == 0.75
    assert auroc([1, 1], [1, 1]) == 0.5
    assert auroc([2, 1, 1], [1, 0]) == pytest.approx((2 + 1.5 + 1.5) / 6)
    assert math.isnan(auroc([], [1]))


def test_a_mean_has_an_interval_that_holds_it_and_is_always_the_same() -> None:
    values = [0.0] * 30 + [1.0] * 70
    measured = mean(values)
    assert measured == mean(values)
    assert measured.value == 0.7
    assert measured.n == 100
    assert measured.low == pytest.approx(0.7 - 1.96 * math.sqrt(0.7 * 0.3 / 100), abs=0.015)
    assert measured.high == pytest.approx(0.7 + 1.96 * math.sqrt(0.7 * 0.3 / 100), abs=0.015)
    assert math.isnan(mean([]).value)


def test_pairs_stay_together() -> None:
    """Questions differ much and each gains a little: the difference is certain, though the
    intervals of the two overlap.
    """
    before = [i / 50 for i in range(50)]
    after = [value + 0.05 for value in before]
    gain = difference(after, before)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.05, 0.05, 0.05))
    assert mean(after).low < mean(before).high
    area = paired_auroc(
        [value * 7 % 1 + 0.3 for value in before], [value * 3 % 1 for value in before]
    )
    assert 0.5 < area.low < area.value < area.high < 1
    with pytest.raises(ValueError, match="1 positives and 2 negatives"):
        paired_auroc([1], [1, 2])


def test_a_share_of_many_is_not_a_mean_of_shares() -> None:
    """One answer with nine wrong citations and one right, and one answer with one right: 2 of 11,
    not (0.1 + 1) / 2.
    """
    assert measured(ratio([(1, 10), (1, 1)]), 2).value == pytest.approx(2 / 11)
    assert measured(ratio([(1, 2), None, (0, 0)]), 3).value == 0.5
    assert math.isnan(measured(ratio([None, (0, 0)]), 2).value)


def test_draws_in_which_there_is_nothing_are_left_out() -> None:
    share = measured(ratio([(1, 1), *[None] * 9]), 10)
    assert (share.low, share.value, share.high) == (1, 1, 1)


def test_quantiles_lie_between_their_neighbours() -> None:
    values = [4.0, None, 1.0, 2.0, 3.0]
    assert measured(quantile(0.5, values), 5).value == 2.5
    assert measured(quantile(0.95, values), 5).value == pytest.approx(3.85)
    assert measured(quantile(1.0, values), 5).value == 4.0
    assert math.isnan(measured(quantile(0.5, [None]), 1).value)


def test_two_statistics_are_compared_on_the_same_questions() -> None:
    before, after = (
        [(float(i % 7), 1.0) for i in range(40)],
        [(float(i % 7) + 1, 1.0) for i in range(40)],
    )
    gain = measured(compared(ratio(after), ratio(before)), 40)
    assert (gain.low, gain.value, gain.high) == pytest.approx((1, 1, 1))


def test_none_of_fifty_is_not_surely_none() -> None:
    """3.7 / n is the known approximation of the two-sided bound."""
    none, every = all_or_none(mean([0.0] * 50)), all_or_none(mean([1.0] * 50))
    assert (none.low, none.high) == pytest.approx((0, 0.0711), abs=1e-4)
    assert (every.low, every.high) == pytest.approx((1 - 0.0711, 1), abs=1e-4)
