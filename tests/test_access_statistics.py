"""What an asker may not read changes nothing of what it is answered: neither which places come
first, nor how likely they are to answer.
"""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from knowledge_base import KnowledgeBase
from processes import serving
from slipway.settings import AccessRule
from slipway.types import Asker, Within

STAFF = Asker(owner="s", groups=frozenset({"staff"}))
HIDDEN = "secret/**"
RULES = (AccessRule(path=HIDDEN, groups=("board",)),)
WORDS = [
    *("tariff", "harbour", "ferry", "crane", "anchor", "mooring", "pilot", "barge", "cargo"),
    *("船坞", "运费", "港口"),
]
# Nine guesses about the hidden document: five of its words, and four that it does not have
SAID = ("merger", "layoffs", "bankruptcy", "acquisition", "relocation")
NOT_SAID = ("dividend", "expansion", "picnic", "refinancing")
CONTROLS = [f"qz{letter}xv" for letter in "abcdefghi"]  # words that nobody has


def test_nobody_confirms_a_word_of_a_hidden_document_by_the_order_of_their_own(
    tmp_path: Path,
) -> None:
    """The attack: of two equal files, one has the guessed words and one has words that nobody has.
    The rarer word's file comes first, unless the guessed word is in a hidden document as well.
    """
    docs = tmp_path / "docs"
    (docs / "secret").mkdir(parents=True)
    (docs / "secret" / "plan.md").write_text("# Plan\n\n" + f"{' '.join(SAID)} " * 3)
    guesses = [*SAID, *NOT_SAID]
    (docs / "guesses.md").write_text(f"# Mine\n\n{' '.join(guesses)}.")
    (docs / "zcontrol.md").write_text(f"# Mine\n\n{' '.join(CONTROLS)}.")
    app = {
        "knowledge": ["docs"],
        "access": [{"path": "secret/**", "groups": ["board"]}],
    }
    settings = {
        "apps": {"docs": app},
        "keys": [{"key": "sw-attacker"}],
        "embedding": "none",
    }
    key = {"authorization": "Bearer sw-attacker"}
    with serving(tmp_path, settings=settings) as server:
        orders = set()
        for guess, control in zip(guesses, CONTROLS, strict=True):
            question = {"question": f"{guess} {control}"}
            reply = server.post("/v1/answers", question, headers=key).json()
            assert "secret" not in str(reply)
            orders.add(tuple(source["path"] for source in reply["sources"]))
    assert len(orders) == 1, "the order says nothing about the guess"
    assert len(next(iter(orders))) == 2


def texts(draw: random.Random, count: int) -> list[str]:
    """Return documents of very different lengths, some with words that all have."""
    return [
        "\n\n".join(
            f"## {draw.choice(WORDS)} {n}\n\n"
            + " ".join(draw.choices(WORDS, k=draw.choice([3, 20, 200])))
            for n in range(draw.randint(1, 3))
        )
        for _ in range(count)
    ]


def base_of(folder: Path, visible: Sequence[str], hidden: Sequence[str]) -> KnowledgeBase:
    for name, some in (("open", visible), ("secret", hidden)):
        (folder / "docs" / name).mkdir(parents=True, exist_ok=True)
        for n, text in enumerate(some):
            (folder / "docs" / name / f"{n:03}.md").write_text(f"# Page\n\n{text}")
    base = KnowledgeBase([folder / "docs"], rules=RULES)
    base.build()
    return base


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_the_same_as_if_hidden_documents_did_not_exist(
    tmp_path: Path, seed: int
) -> None:
    draw = random.Random(seed)
    visible, hidden = texts(draw, 25), texts(draw, draw.choice([1, 40]))
    alone = base_of(tmp_path / "alone", visible, ["Nothing."])
    beside = base_of(tmp_path / "beside", visible, hidden)
    for _ in range(40):
        question = " ".join(draw.choices(WORDS, k=draw.randint(1, 5)))
        within = draw.choice([None, None, Within(path="open/00*")])
        both = []
        for base in (alone, beside):
            found = base.knowledge.find(question, STAFF, 10, within)
            hits = [
                (h.passage.path, h.passage.heading, h.passage.start, h.score) for h in found.hits
            ]
            both.append((hits, found.confidence))
        assert both[0] == both[1], question
        assert both[0][0]


def test_a_hidden_document_that_changes_changes_nothing_either(tmp_path: Path) -> None:
    draw = random.Random(7)
    base = base_of(tmp_path, texts(draw, 10), texts(draw, 3))
    question = "tariff harbour 运费"
    before = base.knowledge.find(question, STAFF, 10)
    (tmp_path / "docs" / "secret" / "000.md").write_text("# Page\n\n" + "tariff " * 500)
    (tmp_path / "docs" / "secret" / "001.md").unlink()
    base.build()
    after = base.knowledge.find(question, STAFF, 10)
    assert [hit.score for hit in after.hits] == [hit.score for hit in before.hits]
    assert after.confidence == before.confidence
