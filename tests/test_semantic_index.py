"""Test the index of questions that lies beside the exact cache."""

import random

import numpy as np
import pytest

from slipway.cache.semantic import LookUp, SemanticIndex
from slipway.cache.semantic_bound import ErrorBound
from slipway.cache.semantic_cache import SemanticCache, SemanticPolicy
from slipway.cache.semantic_scoring import PairFacts, PairScorer

ASKED = "How do I reset my password?"


def vector(*near: float) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    made = np.array([*near, 0.0, 0.0, 0.0][:4], np.float32)
    return made / np.linalg.norm(made)


def index() -> SemanticIndex:
    return SemanticIndex(ErrorBound(0.05, "hit", random.Random(0).random))


def keep(into: SemanticIndex, key: str, text: str, *near: float, partition: str = "a") -> LookUp:
    found = into.decide(into.find(text, vector(*near), partition))
    into.learn(found, [], key)
    return found


def test_other_partitions_are_never_seen() -> None:
    kept = index()
    keep(kept, "1", ASKED, 1, partition="red")
    assert kept.find("How can I reset my password?", vector(1), "red").best is not None
    assert kept.find("How can I reset my password?", vector(1), "blue").near == ()


def test_the_nearest_allowed_question_is_the_candidate_and_refused_ones_are_shown() -> None:
    kept = index()
    keep(kept, "1", "The alarm rings every night, can I turn it off?", 1)
    keep(kept, "2", "Where is the switch of the alarm?", 1, 0.5)
    found = kept.find("How do I turn on the alarm in my flat?", vector(1), "a")
    assert [(near.key, near.refused) for near in found.near] == [("1", "opposite"), ("2", None)]
    assert found.best is not None
    assert found.best.key == "2"


def test_a_changed_question_is_not_answered_through_another_one_of_the_same_answer() -> None:
    kept = index()
    first = keep(kept, "1", "How do I turn off the alarm in my flat?", 1)
    second = kept.find("Which button ends the alarm?", vector(1, 0.5), "a")
    kept.learn(second, [True], "2")
    assert kept.find("How do I turn on the alarm in my flat?", vector(1), "a").best is None
    assert first.best is None
    third = kept.find("How do I turn on the alarm of my flat?", vector(1, 0.1), "a")
    kept.learn(third, [], "3")
    best = kept.find("How do I turn on the alarm in my flat?", vector(1), "a").best
    assert best is not None
    assert best.key == "3", "it is as much alike as the one that is refused"


def test_questions_with_the_same_answer_share_a_group() -> None:
    kept = index()
    keep(kept, "1", ASKED, 1)
    found = kept.find("I forgot my password, what now?", vector(1, 0.3), "a")
    kept.learn(found, [True], "2")
    near = kept.find("Lost my password", vector(1, 0.2), "a").near
    assert len({each.group for each in near}) == 1


def test_an_app_keeps_so_many_questions_of_all_tenants() -> None:
    cache = SemanticCache()
    policy = SemanticPolicy(
        max_error=0.05, per="hit", compare="exact", entries=3, embed=lambda text: vector(1)
    )
    for tenant in ("red", "blue"):
        for number in range(5):
            kept = cache.index(tenant, "desk", policy)
            keep(kept, f"{tenant}{number}", f"Question about subject{number}", 1, number / 10)
    red, blue = (cache.index(tenant, "desk", policy) for tenant in ("red", "blue"))
    assert (len(red), len(blue)) == (0, 3)
    near = blue.find("Question about subject4", vector(1), "a").near
    assert {each.key for each in near} == {"blue2", "blue3", "blue4"}


def test_what_is_gone_is_not_found() -> None:
    gone = {"4"}
    kept = SemanticIndex(ErrorBound(0.05), alive=lambda key: key not in gone)
    keep(kept, "3", ASKED, 1)
    keep(kept, "4", "Where do I change my password?", 1, 0.1)
    assert [near.key for near in kept.find(ASKED, vector(1), "a").near] == ["3"]
    assert len(kept) == 1


def test_a_report_removes_the_question() -> None:
    kept = index()
    keep(kept, "1", ASKED, 1)
    kept.report("1", 0.9)
    assert len(kept) == 0
    assert kept.bound.state().reported == 1


def test_the_scorer_learns_which_answers_are_confused() -> None:
    scorer, chance = PairScorer(), random.Random(0)
    facts = PairFacts(
        similarity=0.9, rival=0.5, agreement=0.8, support=8, vote=0.9, likeness=0.5,
        length=1.0, words=8, refused=0.0,
    )  # fmt: skip
    poor = PairFacts(
        similarity=0.9, rival=0.88, agreement=0.4, support=4, vote=0.5, likeness=0.5,
        length=1.0, words=8, refused=0.0, answer=(3, 5),
    )  # fmt: skip
    for _ in range(200):
        scorer.learn(facts, chance.random() < 0.99)
        scorer.learn(poor, chance.random() < 0.5)
    assert scorer.score(facts) > 0.95
    assert scorer.score(poor) == pytest.approx(0.5, abs=0.15)
