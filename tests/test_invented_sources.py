"""Test that each citation resolves to a readable passage, even if the model invents sources.

Few answers here, through the pipeline and a real server; 100,000 in `make soak`.
"""

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from markdown_it import MarkdownIt

import plain_http
from processes import Serving, mocking, models, serving
from slipway.admission import Admission
from slipway.answer import App, Pipeline, answer
from slipway.answer.draft import Draft
from slipway.knowledge import Knowledge, opened
from slipway.providers import Call, Completion, Reachable
from slipway.providers.mock import lies, words
from slipway.routing import Candidate, Route
from slipway.settings import Price
from slipway.store import Store
from slipway.types import (
    AnswerDone,
    Asker,
    Citation,
    Delta,
    Done,
    Event,
    Message,
    Piece,
    PipelineRecord,
    Question,
    SourceFound,
)

TEA = """# Tea

## Green tea

Green tea is brewed at 80 degrees for 2 minutes. Kyoto sells 1,200 tons of green tea a year.

## Black tea

Black tea takes boiling water and 4 minutes. Assam black tea came in 1839.

## 白茶

白茶用 85 度的水泡 5 分钟。白茶来自福建。

## How is tea stored?

Tea is stored dry, at most 24 months. Tins hold 250 grams of tea.
"""
QUESTIONS = [
    "How hot is green tea brewed?",
    "How long does black tea take?",
    "白茶用多少度的水？",
    "How is green or black tea stored?",
]
LEFT = re.compile(
    r"(?<!_list)(?<!\b[a-z](?=\[))(?<![a-zA-Z0-9](?=\[0+\]))[\[【［]{1,2}\^?0*(\d{1,9})[\]】］](?!\()"
)
KEY, OTHER = {"authorization": "Bearer test-key-1"}, {"authorization": "Bearer test-key-2"}
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("reference")


def prose(text: str) -> Iterator[str]:
    """Return what a reader sees as text, by a second Markdown parser: without code and links."""
    for token in MARKDOWN.parse(text):
        shown, links = "", 0
        for child in token.children or []:
            links += child.nesting if child.type.startswith("link_") else 0
            shown += (
                child.content
                if child.type == "text" and not links
                else "\n"
                if "break" in child.type
                else "\0"
            )
        yield from shown.split("\n")


def wrongs(
    text: str, citations: list[tuple[int, int, int]], sent: set[int], abstained: bool = False
) -> list[str]:
    """Return what must not be in an answer with these citations (n, start, end), if these sources
    were sent.
    """
    found = [f"[{n}] names no source" for n, _, _ in citations if n not in sent]
    found += [
        f"{text[start:end]!r} does not end with [{n}]"
        for n, start, end in citations
        if not text[start:end].endswith(f"[{n}]")
    ]
    links = [
        str(c.attrs.get("href"))
        for token in MARKDOWN.parse(text)
        for c in token.children or []
        if c.type == "link_open"
    ]
    found += [
        f"a link to {href}, which the model made up" for href in links if "/v1/passages/" in href
    ]
    found += ["citations of an abstention"] * (abstained and bool(citations))
    for line in prose(text):
        defines = re.match(r"\[\d+\]: ?https?:", line)
        left = (
            {int(n) for n in LEFT.findall(line[defines.end() if defines else 0 :])} - sent - {2024}
        )
        found += [f"{n} is left in {line!r}" for n in left]
    return found


# Through the pipeline itself


class Liar:
    """A provider whose replies are the mock's lies."""

    name, kind, zone = "liar", "mock", "here"
    price: Price | None = None
    parallel: int | None = None
    state: str | None = None

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    async def chat(self, call: Call) -> "Lie":
        asked = json.loads(call.body)["messages"][-1]["content"]
        return Lie(
            lies.shred(self.rng, lies.write(self.rng, words.numbered_passages(asked), asked)),
            self.rng,
        )

    def start(self) -> None: ...

    async def probe(self) -> Reachable:
        return "well"

    def retire(self) -> None: ...

    async def close(self) -> None: ...


class Lie:
    def __init__(self, pieces: tuple[str, ...], rng: random.Random) -> None:
        self.left, self.rng = list(pieces)[::-1], rng

    async def pieces(self) -> list[Piece]:
        count = min(self.rng.randint(1, 6), len(self.left))
        return [Piece(raw=b"", text=self.left.pop(), spoke=True) for _ in range(count)]

    def push_usual(self, take: Callable[[bytes, list[str]], bool]) -> None: ...

    async def whole(self) -> Completion:
        raise NotImplementedError

    def rate_limits(self) -> Sequence[tuple[bytes, bytes]]:
        return ()

    def close(self) -> None: ...


def road_of_lies(folder: Path, seed: int, records: list[PipelineRecord]) -> Pipeline:
    (folder / "tea.md").write_text(TEA)
    knowledge = Knowledge(opened(Store.temporary(), [folder]))
    knowledge.build()
    route = Route(name="liar", candidates=(Candidate(model=Liar(seed)),))
    return Pipeline(
        admission=Admission([], 10),
        apps={"tea": App(name="tea", knowledge=knowledge, route=route)},
        routes={},
        emit=records.append,
    )


async def lied_to(pipeline: Pipeline, count: int) -> Counter[str]:
    app, asker, received = pipeline.apps["tea"], Asker(owner="x"), Counter[str]()
    for n in range(count):
        text = QUESTIONS[n % len(QUESTIONS)]
        events: list[Event] = []
        question = Question(
            id="ans-1",
            app="tea",
            text=text,
            messages=(Message(role="user", content=text),),
            asker=asker,
            asked_at=0.0,
        )
        await answer(pipeline, app, question, Draft(), "test", events.append)
        sources = {e.source.n: e.source for e in events if isinstance(e, SourceFound)}
        shown = "".join(e.text for e in events if isinstance(e, Delta))
        citations = [e for e in events if isinstance(e, Citation)]
        assert isinstance(done := events[-1], Done)
        assert (
            wrongs(shown, [(c.n, c.start, c.end) for c in citations], set(sources), done.abstained)
            == []
        ), shown
        assert app.knowledge is not None
        assert all(app.knowledge.passage(sources[c.n].id, asker) for c in citations)
        received.update(
            answers=1, citations=len(citations), flagged=sum(bool(c.flags) for c in citations)
        )
    return received


def check(folder: Path, count: int, seed: int) -> None:
    records: list[PipelineRecord] = []
    received = asyncio.run(lied_to(road_of_lies(folder, seed, records), count))
    done = [r for r in records if isinstance(r, AnswerDone)]
    assert (
        sum(r.citations_kept + r.citations_flagged for r in done)
        == received["citations"]
        > count / 2
    )
    assert sum(r.citations_dropped for r in done) > count / 2
    assert received["flagged"] > count / 20
    # The soak's figures
    print(dict(received), "dropped", sum(r.citations_dropped for r in done))  # noqa: T201


def test_thousands_of_lies_and_no_citation_dangles(tmp_path: Path) -> None:
    check(tmp_path, 2_000, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_lies(tmp_path: Path) -> None:
    check(tmp_path, 100_000, seed=2)


def test_where_it_is_known_that_the_documents_do_not_say_no_model_is_asked(tmp_path: Path) -> None:
    records: list[PipelineRecord] = []
    pipeline, events, text = (
        road_of_lies(tmp_path, 3, records),
        list[Event](),
        "Which bicycle was sold to the mayor?",
    )
    question = Question(
        id="ans-1",
        app="tea",
        text=text,
        messages=(Message(role="user", content=text),),
        asker=Asker(owner="x"),
        asked_at=0.0,
    )
    asyncio.run(answer(pipeline, pipeline.apps["tea"], question, Draft(), "test", events.append))
    assert isinstance(done := events[-1], Done)
    assert done.abstained
    assert next(e.text for e in events if isinstance(e, Delta)).startswith(
        "The documents do not say."
    )
    assert [type(record) for record in records] == [AnswerDone]
    assert not any(isinstance(e, Citation) for e in events)


# Through a real server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("lies")
    (folder / "tea.md").write_text(TEA)
    with (
        mocking(script=("lies", "split")) as mock,
        mocking(text="NOT IN THE DOCUMENTS. But [1].") as honest,
        mocking(text="Hot.") as mute,
    ):
        settings = models(mock.url, "liar")
        settings["models"] |= (
            models(honest.url, "honest")["models"] | models(mute.url, "mute")["models"]
        )
        settings["apps"] = {
            name: {"knowledge": str(folder / "tea.md"), "route": name}
            for name in ("liar", "honest", "mute")
        }
        settings["apps"] = {f"{name}-tea": app for name, app in settings["apps"].items()}
        settings["keys"] = [{"key": "test-key-1"}, {"key": "test-key-2", "apps": ["liar"]}]
        with serving(folder, settings=settings) as server:
            yield server


def ask(
    client: httpx.Client, path: str, question: str, stream: bool, app: str = "liar-tea"
) -> dict[str, Any]:
    """Return text, sources, citations (n, start, end), annotations and the final fields: the same
    in all four forms.
    """
    said = (
        {"question": question, "app": app}
        if path == "/v1/answers"
        else {"model": app, "messages": [{"role": "user", "content": question}]}
    )
    reply = client.post(path, json={**said, "stream": stream})
    assert reply.status_code == 200, reply.text
    if path == "/v1/answers":
        return from_events(reply.text) if stream else from_answer(reply.json())
    return from_chunks(reply.text) if stream else from_message(reply.json())


def from_answer(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "annotations": []}


def from_events(body: str) -> dict[str, Any]:
    received: list[tuple[str, Any]] = []
    for block in body.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if not line.startswith(":")
        )
        if "data" in fields:
            received.append((fields["event"], json.loads(fields["data"])))

    def of(name: str) -> list[Any]:
        return [data for kind, data in received if kind == name]

    text = "".join(data["text"] for data in of("delta"))
    return {
        "text": text,
        "sources": of("source"),
        "citations": of("citation"),
        "notices": of("notice"),
        "annotations": [],
        **of("done")[0],
    }


def from_message(body: dict[str, Any]) -> dict[str, Any]:
    message = body["choices"][0]["message"]
    return {
        **body["slipway"],
        "text": message["content"],
        "citations": [],
        "annotations": message["annotations"],
    }


def from_chunks(body: str) -> dict[str, Any]:
    assert body.endswith("data: [DONE]\n\n")
    chunks = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
    deltas = [c["choices"][0]["delta"] for c in chunks if c["choices"]]
    text, marks = (
        "".join(d.get("content") or "" for d in deltas),
        [a for d in deltas for a in d.get("annotations", [])],
    )
    return {**chunks[-1]["slipway"], "text": text, "citations": [], "annotations": marks}


@pytest.mark.parametrize("path", ["/v1/answers", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_lies_through_a_server(server: Serving, path: str, stream: bool) -> None:
    cited = 0
    with plain_http.Client(base_url=server.url, headers=KEY, timeout=20) as client:
        for n in range(14):
            found = ask(client, path, f"{QUESTIONS[n % len(QUESTIONS)]} ({n})", stream)
            ids = {s["id"]: s["n"] for s in found["sources"]}
            citations = [(c["n"], c["start"], c["end"]) for c in found["citations"]]
            for mark in (a["url_citation"] for a in found["annotations"]):
                passage = client.get(mark["url"])
                assert passage.status_code == 200
                citations.append(
                    (ids[passage.json()["id"]], mark["start_index"], mark["end_index"])
                )
            assert wrongs(found["text"], citations, set(ids.values()), found["abstained"]) == [], (
                found["text"]
            )
            cited += len(citations)
    assert cited > 5


def test_a_passage_is_readable_only_with_a_key_for_its_app(server: Serving) -> None:
    with plain_http.Client(base_url=server.url, headers=KEY, timeout=20) as client:
        source = ask(client, "/v1/answers", QUESTIONS[0], stream=False)["sources"][0]
        assert client.get(f"/v1/passages/{source['id']}").status_code == 200
        assert client.get(f"/v1/passages/{source['id']}", headers=OTHER).status_code == 404


@pytest.mark.parametrize("path", ["/v1/answers", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_finds_no_answer_cites_nothing(
    server: Serving, path: str, stream: bool
) -> None:
    with plain_http.Client(base_url=server.url, headers=KEY, timeout=20) as client:
        found = ask(client, path, QUESTIONS[0], stream, app="honest-tea")
        chinese = ask(client, path, QUESTIONS[2], stream, app="honest-tea")
    assert found["text"].startswith("The documents do not say. Nearest pages: Green tea (tea.md)")
    assert chinese["text"].startswith("文档中没有说明。最相关的页面：")
    for each in (found, chinese):
        assert each["abstained"]
        assert each["citations"] == each["annotations"] == each["notices"] == []
        assert not any(s["cited"] for s in each["sources"])


def test_an_answer_without_a_citation_says_so(server: Serving) -> None:
    with plain_http.Client(base_url=server.url, headers=KEY, timeout=20) as client:
        found = ask(client, "/v1/answers", QUESTIONS[0], stream=False, app="mute-tea")
    assert [n["code"] for n in found["notices"]] == ["uncited"]


def test_a_link_definition_of_a_model_does_not_hide_its_citations(tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text(TEA)
    with mocking(text="Green tea takes 80 degrees [1].\n\n[1]: https://evil.invalid/x\n") as mock:
        settings = models(mock.url, "m")
        settings["apps"] = {"tea": {"knowledge": str(tmp_path / "tea.md"), "route": "m"}}
        with (
            serving(tmp_path, settings=settings) as server,
            plain_http.Client(base_url=server.url, timeout=20) as client,
        ):
            found = ask(client, "/v1/answers", QUESTIONS[0], stream=False, app="tea")
    assert [c["n"] for c in found["citations"]] == [1]
    assert "degrees [1]." in found["text"]


def test_a_sentence_that_its_source_does_not_support_is_marked_everywhere(tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text(TEA)
    with mocking(text="Green tea is brewed at 95 degrees [1]. Then [9].") as mock:
        settings = models(mock.url, "m")
        settings["apps"] = {"tea": {"knowledge": str(tmp_path / "tea.md"), "route": "m"}}
        with (
            serving(tmp_path, settings=settings) as server,
            plain_http.Client(base_url=server.url, timeout=20) as client,
        ):
            whole = ask(client, "/v1/answers", QUESTIONS[0], stream=False, app="tea")
            assert [c["flags"] for c in whole["citations"]] == [["95"]]
            assert whole["notices"] == [
                {"code": "unsupported", "text": "Not found in the cited source: 95.", "section": 0}
            ]
            for stream in (False, True):
                found = ask(client, "/v1/chat/completions", QUESTIONS[0], stream, app="tea")
                assert [a["slipway"] for a in found["annotations"]] == [{"flags": ["95"]}]
            metrics = client.get("/metrics").text
    assert 'slipway_citations_total{app="tea",model="m",outcome="flagged"} 3.0' in metrics
    assert 'slipway_citations_total{app="tea",model="m",outcome="dropped"} 3.0' in metrics
