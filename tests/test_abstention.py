"""Test that an answer of "the documents do not say" is recognised before anything is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.answer.abstention import AbstentionDetector, abstention_text
from slipway.types import Source

SAID = [
    "NOT IN THE DOCUMENTS",
    "NOT IN THE DOCUMENTS.",
    "**NOT IN THE DOCUMENTS**\n\nBut in general, tea is hot [1].",
    '"Not in the documents."',
    "# NOT IN THE DOCUMENTS\n",
    "\n Not in the documents: nothing is said of it.",
    "NOT IN THE DOCUMENTS (the passages are about tea)",
    "文档中没有答案。",
    "不在文档中",
    "**文档中没有**。文档只说茶。",
    "The documents do not say. Nearest pages: Tea (tea.md).",
]
NOT_SAID = [
    "",
    "Not in the documents folder, but beside it [1].",
    "Not everything is in the documents [1].",
    "文档中没有规定温度的上限 [1]。",
    "It is hot [1].\n\nNOT IN THE DOCUMENTS",
    "- NOT A LIST",
    "**",
    "No",
]


def heard(text: str, sizes: list[int]) -> tuple[str, bool]:
    opening, shown, at = AbstentionDetector(), "", 0
    for size in sizes * (len(text) // len(sizes) + 1):
        shown, at = shown + opening.feed(text[at : at + size]), at + size
    return shown + opening.end(), opening.abstained


@pytest.mark.parametrize("text", SAID)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_the_model_says_that_the_documents_do_not_say(text: str, sizes: list[int]) -> None:
    assert heard(text, sizes) == ("", True)


@pytest.mark.parametrize("text", NOT_SAID)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9))
def test_other_answers_are_shown_whole(text: str, sizes: list[int]) -> None:
    assert heard(text, sizes) == (text, False)


def test_the_first_words_of_an_answer_are_not_held_back() -> None:
    assert AbstentionDetector().feed("The ") == ""
    assert AbstentionDetector().feed("Tea") == "Tea"
    assert AbstentionDetector().feed("Notes") == "Notes"


def test_without_documents_nothing_is_listened_for() -> None:
    assert AbstentionDetector(listens=False).feed("NOT IN THE DOCUMENTS") == "NOT IN THE DOCUMENTS"


def test_the_notice_is_in_the_language_of_the_question() -> None:
    pages = [
        Source(
            n=n,
            id="x",
            path=f"{name}.md",
            heading=name.upper(),
            start=0,
            end=0,
            text="",
            version="v",
        )
        for n, name in enumerate(("a", "a", "b", "c", "d"), 1)
    ]
    assert (
        abstention_text("How?", pages)
        == "The documents do not say. Nearest pages: A (a.md), B (b.md), C (c.md)."
    )
    assert (
        abstention_text("多热？", pages[:3])
        == "文档中没有说明。最相关的页面：A（a.md）、B（b.md）。"
    )
    assert abstention_text("How?", []) == "The documents do not say."
