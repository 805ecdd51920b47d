"""Test intents: similar questions are answered if that was measured to be right, else not."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from slipway.rules import RuleBook, RuleQuestion, read_rules
from slipway.types import Asker

INTENTS = {
    "lost-card": (
        ("I", "I think I", "Help, I", "Yesterday I", "Somehow I"),
        ("lost my card", "lost my bank card", "left my card on the train", "cannot find my card"),
        ("", "what do I do", "can you block it"),
    ),
    "exchange-rate": (
        ("What is", "Tell me", "Please show me", "Where do I see", "I need"),
        ("the exchange rate", "the rate for exchanging currency", "your currency rate"),
        ("", "for EUR", "today", "for transfers abroad"),
    ),
    "top-up": (
        ("How do I", "Can I", "Is there a way to", "I want to", "I am trying to"),
        ("top up my account", "add money to my account", "top up with Apple Pay"),
        ("", "from my phone", "again", "without fees"),
    ),
}
COUNTER = ["How do I order a new card", "Has my card been sent", "Is my card a debit card"]
ASKER = Asker(owner="x")


def examples(name: str) -> list[str]:
    return [" ".join(filter(None, parts)) for parts in itertools.product(*INTENTS[name])]


def book_of(folder: Path, precision: float, *names: str, every: int = 1, **more: Any) -> RuleBook:
    rules = [
        {"name": name, "answer": name, "examples": examples(name)[::every], **more}
        for name in names or INTENTS
    ]
    file = folder / "rules.yaml"
    file.write_text(json.dumps({"rules": rules}))
    return RuleBook(read_rules(file), precision)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> RuleBook:
    folder = tmp_path_factory.mktemp("intents")
    rules = [
        {
            "name": name,
            "answer": name,
            "examples": examples(name),
            **({"counter_examples": COUNTER} if name == "lost-card" else {}),
        }
        for name in INTENTS
    ]
    (folder / "rules.yaml").write_text(json.dumps({"rules": rules}))
    return RuleBook(read_rules(folder / "rules.yaml"), 0.95)


def rule_for(book: RuleBook, asked: str) -> str | None:
    match = book.match(RuleQuestion(text=asked, asker=ASKER)).match
    return match.rule if match is not None else None


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ("I lost my card yesterday, can you block it?", "lost-card"),
        ("Help, I left my bank card on the train", "lost-card"),
        ("Where do I see the exchange rate today for transfers?", "exchange-rate"),
        ("Is there a way to add money to my account from my phone?", "top-up"),
    ],
)
def test_a_similar_question_is_answered(book: RuleBook, asked: str, rule: str) -> None:
    assert rule_for(book, asked) == rule


@pytest.mark.parametrize(
    "asked",
    [
        "I did not lose my card",
        "I lost 2 cards, can you block them",
        "Can I top up with Google Pay",
        "Can I top up my account with fees",
        "What is the exchange rate for GBP",
        "How do I order a new card today",
        "What is the capital of France?",
        "Who wrote the book on my table",
        "法国的首都是哪里",
        "card",
    ],
)
def test_a_question_that_only_looks_alike_is_not(book: RuleBook, asked: str) -> None:
    assert rule_for(book, asked) is None


def test_what_was_measured_is_above_the_bound(book: RuleBook) -> None:
    for name in INTENTS:
        measure = book.measure(name)
        assert measure is not None
        assert measure.precision is not None
        assert measure.precision >= 0.95
        assert 10 < measure.served <= measure.examples
        assert not measure.why_not


def test_too_few_examples_answer_nothing_but_themselves(tmp_path: Path) -> None:
    book = book_of(tmp_path, 0.98, every=10)
    assert rule_for(book, examples("top-up")[0]) == "top-up"
    assert rule_for(book, "How do I top up my account from my phone again") is None
    measure = book.measure("top-up")
    assert measure is not None
    assert "a precision of 98.0% cannot be shown: that takes 81 held-out" in measure.why_not


def test_an_intent_alone_cannot_be_measured(tmp_path: Path) -> None:
    book = book_of(tmp_path, 0.9, "top-up")
    assert rule_for(book, "What is the capital of France?") is None
    measure = book.measure("top-up")
    assert measure is not None
    assert "add `counter_examples` or other rules with questions" in measure.why_not


def test_the_same_file_gives_the_same_thresholds(tmp_path: Path) -> None:
    one, other = book_of(tmp_path, 0.95), book_of(tmp_path, 0.95)
    assert [one.measure(n) for n in INTENTS] == [other.measure(n) for n in INTENTS]
