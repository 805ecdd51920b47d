"""Test how two rankings are fused into one ranking of places."""

import msgspec
import pytest

from slipway.knowledge.fusion import FLOOR, embedded_text, fuse
from slipway.types import Hit, Passage


def passage(path: str, heading: str = "Top", text: str = "text", number: int = 0) -> Passage:
    return Passage(
        id=f"{path}-{heading}-{number}",
        path=path,
        title="",
        heading=heading,
        trail=("Guide", heading),
        start=0,
        end=4,
        text=text,
        version="",
    )


def test_a_place_that_both_rankings_have_comes_first_with_its_nearest_passage() -> None:
    both, words, meaning = passage("both.md"), passage("words.md"), passage("meaning.md")
    nearer = passage("both.md", number=1)
    found = fuse(
        [Hit(passage=words, score=10), Hit(passage=both, score=8)],
        [(both, 0.5), (nearer, 0.7), (words, 0.1), (meaning, 0.72)],
        5,
    )
    assert [each.passage for each in found] == [nearer, words, meaning]
    assert [each.score for each in found] == pytest.approx(
        [0.4 * 0.8 + 0.6 * 0.7, 0.4 + 0.6 * 0.1, 0.6 * 0.72]
    )
    assert [(each.keyword, each.cosine) for each in found] == [(8, 0.7), (10, 0.1), (0, 0.72)]
    assert len(fuse([Hit(passage=words, score=10)], [(both, 0.9)], 1)) == 1


def test_places_differ_by_heading_by_the_headings_above_it_and_by_page() -> None:
    one, other = passage("page.md", "One"), passage("page.md", "Other")
    below = msgspec.structs.replace(one, trail=("Annex", "One"))
    here, there = (msgspec.structs.replace(one, path="page.pdf", page=number) for number in (3, 4))
    found = fuse([], [(each, 0.5) for each in (one, other, below, here, there, one)], 9)
    assert [each.passage for each in found] == [one, other, below, here, there]
    assert [each.place[:2] for each in found[:2]] == [("page.md", "One"), ("page.md", "Other")]


def test_places_without_a_vector_get_the_average_similarity() -> None:
    new, old, last = passage("new.md"), passage("old.md"), passage("last.md")
    found = fuse(
        [Hit(passage=new, score=10), Hit(passage=old, score=8), Hit(passage=last, score=5)],
        [(old, 0.5), (last, 0.3)],
        5,
    )
    assert [each.passage for each in found] == [new, old, last]
    assert found[0].score == pytest.approx(0.4 + 0.6 * 0.4)
    assert found[0].cosine == 0.0


def test_places_that_share_no_word_must_be_similar() -> None:
    near, far, word = passage("near.md"), passage("far.md"), passage("word.md")
    found = fuse(
        [Hit(passage=word, score=1)], [(near, FLOOR), (far, FLOOR - 0.01), (word, -0.2)], 5
    )
    assert [each.passage for each in found] == [word, near]
    assert found[0].score == pytest.approx(0.4)


def test_without_vectors_the_keywords_order_stays() -> None:
    hits = [Hit(passage=passage(f"{n}.md"), score=score) for n, score in enumerate((7.0, 7.0, 2.0))]
    assert [each.passage for each in fuse(hits, [], 10)] == [hit.passage for hit in hits]
    assert fuse([], [], 10) == []


def test_the_headings_above_are_embedded_with_the_text() -> None:
    assert (
        embedded_text(passage("a.md", "Limits", "At most ten.")) == "Guide > Limits\nAt most ten."
    )
