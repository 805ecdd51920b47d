"""Test the extractors on 500 outputs, each with the answer that a person reads in it: 338 were
written for this test in many forms, 162 are worked answers of GSM8K and BIG-Bench Hard.
"""

import json
from typing import Any

import pytest

from processes import ROOT
from slipway.evals.extracting import EXTRACTORS, value_of
from slipway.evals.items import Item
from slipway.evals.questions import Gold
from slipway.evals.scoring import SCORERS, Cited, score, scorer_of

LINES = (ROOT / "tests" / "data" / "extractor-outputs.jsonl").read_text().splitlines()
OUTPUTS: list[dict[str, Any]] = [json.loads(line) for line in LINES]


def test_99_of_100_outputs_are_read_as_a_person_reads_them() -> None:
    assert len(OUTPUTS) == 500
    for reading in ("strict", "flexible"):
        wrong = [
            o
            for o in OUTPUTS
            if getattr(EXTRACTORS[o["kind"]](o["output"], o["choices"]), reading) != o[reading]
        ]
        assert len(wrong) <= 5, wrong


def test_a_strict_reading_is_also_the_flexible_reading() -> None:
    for o in OUTPUTS:
        read = EXTRACTORS[o["kind"]](o["output"], o["choices"])
        assert read.strict is None or read.strict == read.flexible


@pytest.mark.parametrize(
    ("scorer", "output", "reference", "choices", "strict", "flexible"),
    [
        ("letter", "Answer: B", "B", ("x", "y"), 1, 1),
        ("letter", "The answer is B.", "B", ("x", "y"), 0, 1),
        ("letter", "Answer: A", "B", ("x", "y"), 0, 0),
        ("number", "Answer: 1,200", "1200", (), 1, 1),
        ("number", "It is 0.75 of them", "3/4", (), 0, 1),
        ("number", "Answer: 18.00", "18", (), 1, 1),
        ("word", "Answer: no", "No", ("Yes", "No"), 1, 1),
        ("exact", "Answer: the Seine!", "The Seine", (), 1, 1),
        ("exact", "Answer: ] )", "])", (), 1, 1),
        ("contains", "You have 30 days of leave.", "30 days", (), 1, 1),
        ("contains", "You have 130 days of leave.", "30 days", (), 0, 0),
        ("contains", "您有三十天年假。", "三十天", (), 1, 1),
        ("f1", "The Seine flows there", "the Seine", (), 0.5, 0.5),
        ("reference", "So the answer is (B).", "(B)", (), 0, 1),
        ("reference", "Answer: -35", "-35", (), 1, 1),
        ("reference", "Answer: invalid", "invalid", ("valid", "invalid"), 1, 1),
        ("reference", "Answer: a b c", "a b c", (), 1, 1),
    ],
)
def test_outputs_are_scored(
    scorer: str,
    output: str,
    reference: str,
    choices: tuple[str, ...],
    strict: float,
    flexible: float,
) -> None:
    item = Item(id="1", question="?", reference=reference, choices=choices)
    found = score(scorer, output, item)
    assert (found.strict, found.flexible) == (strict, flexible)


def test_a_cited_place_counts_and_strictly_no_other() -> None:
    item = Item(id="1", question="?", gold=(Gold(page="leave.md", heading="Days"),))
    right, other = (
        Cited(path="hr/leave.md", heading="Days"),
        Cited(path="hr/sick.md", heading="Days"),
    )
    assert [
        score("cited", "", item, cited).flexible
        for cited in ((), (right,), (right, other), (other,))
    ] == [0, 1, 1, 0]
    assert [
        score("cited", "", item, cited).strict for cited in ((), (right,), (right, other), (other,))
    ] == [0, 1, 0, 0]


def test_every_scorer_but_one_has_an_extractor() -> None:
    assert {s.extractor for name, s in SCORERS.items() if name != "reference"} <= set(EXTRACTORS)
    assert (
        scorer_of("reference", Item(id="1", question="?", reference="B", choices=("x", "y")))
        == "letter"
    )


def test_text_without_a_number_has_no_value() -> None:
    assert [value_of(text) for text in ("x", "1/0", "")] == [None, None, None]
