"""Test `slipway eval knowledge`, and that searching the project's own docs gets no worse."""

import json
from pathlib import Path

import pytest

from knowledge_base import OPERATOR, KnowledgeBase
from processes import ROOT, run
from slipway.errors import SettingsError
from slipway.evals.knowledge import METRICS, measure
from slipway.evals.questions import Gold, GoldQuestion, questions_in
from slipway.knowledge.embedding import Embedder
from slipway.knowledge.fusion import Ranked
from slipway.types import Passage

QUESTIONS = ROOT / "tests" / "data" / "docs-questions.jsonl"
PAGES = [
    ROOT / "tests" / "data" / "pages"
]  # the project's own docs, as they once were, so that a change of the search shows, and none of theirs


@pytest.fixture(scope="module")
def docs() -> KnowledgeBase:
    """Read the project's own docs and, if the weights are here, embed them."""
    known = KnowledgeBase(PAGES, embedding="minilm")
    known.build()
    known.knowledge.synchronizer.embed()
    return known


def searched(docs: KnowledgeBase, *, by_meaning: bool) -> dict[str, float]:
    questions = questions_in(QUESTIONS, docs.knowledge.places(OPERATOR))
    report = measure(
        questions,
        {
            "it": (
                lambda q, limit: docs.knowledge.ranked(q, OPERATOR, limit, by_meaning=by_meaning),
                lambda question, ranked: 0.5,
            )
        },
    )
    return {metric: measured.value for metric, measured in report.measured["it"].items()}


def test_gate_keywords_find_the_answers_in_our_own_docs(docs: KnowledgeBase) -> None:
    found = searched(docs, by_meaning=False)
    assert found["recall@3"] >= 0.58
    assert found["mrr@3"] >= 0.46


@pytest.mark.usefixtures("embedder")
def test_gate_keywords_and_vectors_find_more(docs: KnowledgeBase) -> None:
    found = searched(docs, by_meaning=True)
    assert found["recall@3"] >= 0.60
    assert found["mrr@3"] >= 0.56


def passage(path: str, heading: str) -> Passage:
    return Passage(
        id=f"{path}{heading}",
        path=path,
        title="",
        heading=heading,
        trail=(heading,),
        start=0,
        end=1,
        text="x",
        version="",
    )


def test_a_search_is_measured_against_hand_made_rankings() -> None:
    ranked = [
        Ranked(passage=passage(*at), score=1.0)
        for at in (("x.md", "X"), ("a/one.md", "Gold"), ("two.md", "Any"), ("two.md", "Other"))
    ]
    gold = (Gold(page="one.md", heading="Gold"), Gold(page="two.md"), Gold(page="three.md"))
    report = measure(
        [GoldQuestion(id="1", question="?", gold=gold)],
        {"it": (lambda _, limit: ranked[:limit], lambda _, found: float(len(found)))},
    )
    found = {metric: measured.value for metric, measured in report.measured["it"].items()}
    assert found == pytest.approx(
        {
            "recall@3": 2 / 3,
            "recall@10": 2 / 3,
            "mrr@3": 1 / 2,
            "ndcg@10": (0.63093 + 0.5) / 2.13093,
            "abstention_auroc": 1.0,
        },
        abs=1e-4,
    )
    assert report.differences == {}


BAD_LINES = {
    '{"question": 3, "gold": []}': ":1: question: expected `str`, got `int`",
    '{"question": "Why?"}': ":1: gold: it names no place; name the places that answer the question",
    '{"question": "Why?", "gold": []}': ":1: gold: it names no place; name the places that answer the question",
    '{"question": " ", "gold": [{"page": "a.md"}]}': ":1: question: it is empty",
    '{"question": "Why?", "gold": [{"heading": "A"}]}': ":1: gold[0]: object missing required field `page`",
    '{"question": "Why?", "gold": [{"page": "a.md"}, {"page": "a.md", "heading": "Z"}]}': ":1: gold[1].heading: `Z` is no heading of a.md",
    '{"question": "Why?", "gold": [{"page": "z.md", "heading": "A"}]}': ":1: gold[0].page: `z.md` is not there",
    '{"question": "Why?", "gold": [{"page": "a.md"}], "unanswerable": true}': ":1: unanswerable: it has gold places too",
    "{": ":1: input data was truncated",
    "Why?": ":1: JSON is malformed: invalid character",
    "": ": there are no questions in it;",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_with_its_field(tmp_path: Path, line: str) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(SettingsError) as raised:
        questions_in(file, [("a.md", "A", None)])
    assert [
        problem.startswith(f"{file}{BAD_LINES[line]}") for problem in raised.value.problems
    ] == [True], raised.value.problems


def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_bytes(
        b'\xef\xbb\xbf{"question": "Why?", "gold": [{"page": "a.md"}]}\r\n'
    )
    assert [
        each.question for each in questions_in(tmp_path / "q.jsonl", [("a.md", "A", None)])
    ] == ["Why?"]


def test_bad_questions_are_reported_before_any_document_is_read(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# A\n\ntext\n")
    done = run(
        "eval",
        "knowledge",
        "--docs",
        str(tmp_path / "docs"),
        "--questions",
        str(tmp_path / "none.jsonl"),
    )
    assert (
        done.stderr
        == f"slipway: --questions: {tmp_path / 'none.jsonl'} cannot be read: no such file or directory\n"
    )


@pytest.fixture
def asked(tmp_path: Path) -> list[str]:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "leave.md").write_text(
        "# Leave\n\n## Days\n\nEveryone has 30 days of leave.\n\n## Illness\n\nCall before nine.\n"
    )
    gold = {
        "question": "How many days of leave?",
        "gold": [{"page": "leave.md", "heading": "Days"}],
    }
    (tmp_path / "questions.jsonl").write_text(json.dumps(gold))
    return [
        "eval",
        "knowledge",
        "--docs",
        str(tmp_path / "docs"),
        "--questions",
        str(tmp_path / "questions.jsonl"),
    ]


def test_without_weights_keywords_are_measured_and_the_command_names_the_missing_weights(
    asked: list[str], tmp_path: Path
) -> None:
    done = run(*asked, "--json", env={"SLIPWAY_CACHE": str(tmp_path)})
    reported = json.loads(done.stdout)
    assert set(reported) == {"keyword", "n", "intervals", "differences"}
    assert (
        reported["n"],
        reported["keyword"]["recall@3"],
        reported["intervals"]["keyword"]["mrr@3"],
    ) == (
        1,
        1.0,
        [1.0, 1.0],
    )
    assert "slipway weights pull minilm" in done.stderr


def test_with_weights_both_kinds_of_search_are_compared(
    asked: list[str], embedder: Embedder
) -> None:
    reported = json.loads(run(*asked, "--json").stdout)
    assert set(reported["fused"]) == set(reported["keyword"]) == {*METRICS, "abstention_auroc"}
    assert set(reported["differences"]["recall@3"]) == {"value", "interval"}
    assert "difference" in run(*asked).stdout


def test_the_command_ends_with_a_sentence_about_the_mistake(tmp_path: Path) -> None:
    done = run(
        "eval", "knowledge", "--docs", str(tmp_path / "nowhere"), "--questions", str(QUESTIONS)
    )
    assert done.returncode == 2
    assert "there is no folder or file" in done.stderr


@pytest.mark.usefixtures("embedder")
def test_how_sure_it_is_falls_without_the_gold(docs: KnowledgeBase) -> None:
    question = "How do I put it behind nginx?"
    found = docs.knowledge.ranked(question, OPERATOR, 20)
    sure = docs.knowledge.confidence(question, found)
    assert sure > 0.8
    assert (
        docs.knowledge.confidence(
            question, [each for each in found if each.place[0] != "deploy.md"]
        )
        < sure - 0.2
    )
