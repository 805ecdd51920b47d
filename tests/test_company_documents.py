"""Test questions about long documents over HTTP: the right page, slide or sheet comes first."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

import company_documents
import company_workbook
import plain_http
from company_documents import Asked
from processes import serving
from waiting import PATIENCE_S

MADE = {
    "handbook.pdf": company_documents.handbook,
    "manual.docx": company_documents.manual,
    "meeting.pptx": company_documents.slides,
    "book.xlsx": company_workbook.book,
}
RIGHT = {
    "handbook.pdf": 12,
    "manual.docx": 11,
    "meeting.pptx": 12,
    "book.xlsx": 11,
}  # of a dozen or more, without a model and without vectors


class Company(NamedTuple):
    client: httpx.Client
    asked: dict[str, list[Asked]]


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder, asked = tmp_path_factory.mktemp("papers"), dict[str, list[Asked]]()
    (folder / "docs").mkdir()
    for name, make in MADE.items():
        data, asked[name] = make()
        (folder / "docs" / name).write_bytes(data)
    settings = {"apps": {"docs": {"knowledge": ["./docs"]}}, "embedding": "none"}
    with (
        serving(folder, settings=settings) as server,
        plain_http.Client(base_url=server.url, timeout=PATIENCE_S) as client,
    ):
        yield Company(client, asked)


def is_at(source: dict[str, Any], path: str, asked: Asked) -> bool:
    there = source["page"] == asked.page if asked.page else source["heading"] == asked.heading
    return bool(source["path"] == path and there)


@pytest.mark.parametrize("path", MADE)
def test_questions_are_answered_from_the_right_place_of_a_long_document(
    company: Company, path: str
) -> None:
    first, reported = list[str](), list[str]()
    for asked in company.asked[path]:
        answer = company.client.post(
            "/v1/answers", json={"question": asked.question, "stream": False}
        ).json()
        cited = [
            source for source in answer["sources"] if source["cited"] and is_at(source, path, asked)
        ]
        first += [asked.question] if is_at(answer["sources"][0], path, asked) else []
        reported += (
            [asked.question]
            if cited and asked.says in answer["text"] and asked.says in cited[0]["text"]
            else []
        )
        for source in answer["sources"]:
            passage = company.client.get(f"/v1/passages/{source['id']}").json()
            assert {
                key: passage[key] for key in ("path", "page", "heading", "start", "end", "text")
            } == {key: source[key] for key in ("path", "page", "heading", "start", "end", "text")}
            assert passage["end"] - passage["start"] == len(passage["text"])
    questions = [asked.question for asked in company.asked[path]]
    assert len(questions) >= 12
    assert len(first) >= RIGHT[path], [question for question in questions if question not in first]
    assert len(reported) >= RIGHT[path] - 1, [
        question for question in questions if question not in reported
    ]


def test_a_streamed_answer_names_the_same_place(company: Company) -> None:
    for path, (asked, *_) in {path: some[1:] for path, some in company.asked.items()}.items():
        events = company.client.post(
            "/v1/answers", json={"question": asked.question, "stream": True}
        ).text
        data = [
            json.loads(line.removeprefix("data: "))
            for line in events.splitlines()
            if line.startswith("data: ")
        ]
        assert is_at(next(each for each in data if "path" in each), path, asked)
        assert asked.says in "".join(
            each["text"] for each in data if set(each) == {"section", "text"}
        )


def test_two_pages_of_a_chapter_and_two_slides_of_a_name_are_two_sources(company: Company) -> None:
    found = company.client.post(
        "/v1/answers",
        json={"question": "How long do guests stay in the West Wing?", "stream": False},
    ).json()["sources"]
    assert (
        len({(source["path"], source["heading"], source["page"]) for source in found})
        == len(found)
        == 5
    )
