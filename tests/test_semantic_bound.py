"""Test that the bounds of the semantic cache hold, and that the index learns and forgets."""

import random

import pytest

from slipway.cache.semantic_bound import (
    CONFIDENCE,
    LEVELS,
    SHARES,
    ErrorBound,
    Per,
    RateEvidence,
    ServedErrors,
)


def test_the_bound_on_served_errors_holds_at_all_times_under_any_shares() -> None:
    """Errors at the worst moments, with shares that change: the bound breaks in at most 5 %."""
    broken = 0
    for seed in range(150):
        chance, errors, served = random.Random(seed), ServedErrors(1 - CONFIDENCE), 0
        for number in range(80):
            share = SHARES[(number // 20) % len(SHARES)]
            if chance.random() < share:
                errors.found(share)
            else:
                errors.serve(share)
                served += 1
            if served > errors.at_most():
                broken += 1
                break
    assert broken <= 7 + 6, "5 % of 150, and two standard deviations"


def test_the_bound_is_close_to_what_was_served() -> None:
    chance, errors, served = random.Random(1), ServedErrors(0.05), 0
    for _ in range(2000):
        if chance.random() < 1 / 3:
            errors.found(1 / 3)
        else:
            errors.serve(1 / 3)
            served += 1
    assert served < errors.at_most() < 1.2 * served


def test_the_bound_of_a_rate_holds_at_all_times_under_any_shares() -> None:
    """The rate is exactly the limit: it is rarely said to be below, however checks are thinned."""
    broken = 0
    for seed in range(100):
        chance, window = random.Random(seed), RateEvidence(0.2, 1)
        for number in range(300):
            share = (1.0, 1 / 2, 1 / 5)[number // 100]
            is_found = chance.random() < 0.2 and chance.random() < share
            window.see(len(LEVELS), is_found / share, share)
            if window.bounds()[0] <= 0.2:
                broken += 1
                break
    assert broken <= 100 * window.alpha + 3


def test_the_bound_of_a_rate_falls_with_evidence() -> None:
    window = RateEvidence(0.02, 0)
    assert set(window.bounds()) == {1.0}
    for _ in range(800):
        window.see(5, 0.0, 1.0)
    assert list(window.bounds() <= 0.02) == [True] * 5 + [False] * (len(LEVELS) - 5)
    assert window.earned(0.02) == [0, 1, 2, 3], "0.9 is below the lowest start of a series"


def played(bound: ErrorBound, error: float, requests: int, seed: int = 0) -> tuple[int, int]:
    """Send candidates with good scores of which this share is wrong; return (served, wrong)."""
    chance, served, wrong = random.Random(seed), 0, 0
    for _ in range(requests):
        is_wrong = chance.random() < error
        verdict, share = bound.decide(0.999)
        if verdict == "serve":
            served, wrong = served + 1, wrong + is_wrong
        else:
            bound.learn(0.999, is_wrong, verdict, share)
    return served, wrong


@pytest.mark.parametrize("per", ["hit", "request"])
def test_nothing_is_served_before_it_is_earned(per: Per) -> None:
    bound = ErrorBound(0.05, per, random.Random(0).random)
    assert played(bound, 0.0, 150) == (0, 0)
    assert not bound.state().serving
    served, wrong = played(bound, 0.0, 3000)
    assert served > 1300
    assert wrong == 0
    assert bound.state().serving
    assert bound.state().share < 0.2
    assert bound.state().per_request <= 0.05


def test_what_is_wrong_too_often_is_never_served() -> None:
    bound = ErrorBound(0.02, "hit", random.Random(0).random)
    assert played(bound, 0.04, 5000)[0] == 0
    assert bound.state().per_hit > 0.02


def test_serving_ends_when_the_answers_become_wrong() -> None:
    bound = ErrorBound(0.02, "hit", random.Random(0).random)
    played(bound, 0.0, 3000)
    served, _wrong = played(bound, 0.5, 3000, seed=1)
    assert served < 150
    assert not bound.state().serving


def test_reports_of_readers_count_as_errors() -> None:
    bound = ErrorBound(0.02, "hit", random.Random(0).random)
    played(bound, 0.0, 1500)
    assert bound.state().serving
    for _ in range(60):
        bound.report(0.999)
    assert not bound.state().serving
    assert bound.state().reported == 60


def test_a_check_without_an_answer_stops_serving_until_one_brings_it() -> None:
    bound = ErrorBound(0.02, "hit", random.Random(0).random)
    played(bound, 0.0, 3000)
    while (made := bound.decide(0.999))[0] != "check":
        pass
    bound.undecided(made[0])
    assert [bound.decide(0.999) for _ in range(50)] == [("check", 1.0)] * 50
    bound.learn(0.999, False, "check", 1.0)
    assert "serve" in [bound.decide(0.999)[0] for _ in range(50)]
