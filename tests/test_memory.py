"""Memory does not grow with the answers that were given: 100,000 over documents in `make soak`."""

import asyncio
import gc
import http.client
import json
import os
import random
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple

import msgspec
import pytest

from processes import Serving, serving
from slipway.bounded import BoundedCache
from slipway.cache import AnswerCache
from slipway.cache.entries import KeptAnswer, Lifetime, SearchedSection
from slipway.cache.memory import MemoryEntries
from slipway.cache.semantic import LookUp
from slipway.cache.semantic_cache import SemanticCache, SemanticPolicy
from slipway.cache.semantic_guards import KEPT_READINGS, read
from slipway.errors import Overloaded
from slipway.feedback import Feedback
from slipway.knowledge.access import Access, is_alike
from slipway.knowledge.claims import kept_facts
from slipway.knowledge.keyword_table import DocumentFilter
from slipway.knowledge.languages import kept_language, language_of
from slipway.knowledge.patterns import glob
from slipway.knowledge.pointers import pointed_number
from slipway.knowledge.reader_index import reader_index
from slipway.knowledge.stems import kept_stem, stem
from slipway.knowledge.words import KEPT_WORDS, Words
from slipway.routing.blame import Blame, Origin
from slipway.telemetry.access_log import MOST_PATHS, AccessLog, RequestSeen
from slipway.types import Answered, Asker, Message, Question, Within
from slipway.web.runs import Runs
from waiting import until_async

TOPICS = ("leave", "pay", "travel", "tools", "visits", "keys", "parking", "lunch")
SENTENCE = "The rule number {n} on {topic} allows {n} days, {m} euros and a form of kind K-{m}."
AT_ONCE = 8
MIB = 1024.0


def rss_mib(server: Serving) -> float:
    """Return the memory of the server's process that is in use."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    line = next(each for each in status.splitlines() if each.startswith("VmRSS"))
    return int(line.split()[1]) / MIB


def write_documents(folder: Path) -> None:
    folder.mkdir()
    for topic in TOPICS:
        sections = [
            f"## {topic} {n}\n\n" + SENTENCE.format(n=n, m=n * 7, topic=topic) for n in range(30)
        ]
        (folder / f"{topic}.md").write_text(f"# {topic}\n\n" + "\n\n".join(sections))


def ask_many(server: Serving, count: int, seed: int) -> None:
    """Ask questions on one connection after the other; half of them through the OpenAI API."""
    draw = random.Random(seed)
    line = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for _ in range(count):
        question = (
            f"What does rule {draw.randrange(30)} on {draw.choice(TOPICS)} allow? {draw.random()}"
        )
        own = {"question": question}
        chat = {"model": "docs", "messages": [{"role": "user", "content": question}]}
        path, body = draw.choice([("/v1/answers", own), ("/v1/chat/completions", chat)])
        line.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        reply = line.getresponse()
        reply.read()
        assert reply.status == 200
    line.close()


def ask_at_once(server: Serving, count: int, seed: int) -> None:
    threads = [
        threading.Thread(target=ask_many, args=(server, count // AT_ONCE, seed * AT_ONCE + n))
        for n in range(AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Filling(NamedTuple):
    """How a cache is filled: `add` adds an entry that is as large as a client can make it."""

    add: Callable[[int], object]
    times: int
    most: Callable[[], float] = lambda: 0  # entries that it may hold; 0: `times` are more than that
    most_mib: float = 32


SIGNS = "".join(chr(0x20000 + number * 7919 % 40_000) for number in range(40_000)) * 4


def text(number: int, size: int, word: int = 3) -> str:
    """Return a text that begins with a number, of words of so many signs of four bytes each."""
    signs = SIGNS[number * 37 % 40_000 :][:size]
    words = " ".join(signs[at : at + word] for at in range(0, size, word))
    return f"{number} {words}"[:size]


def most_of(cache: BoundedCache[Any]) -> Callable[[], float]:
    """Return how many such entries fit, by what the cache says of its bytes; it is emptied, since
    other tests may have used it.
    """
    cache.clear()
    return lambda: cache.most_bytes / (cache.bytes / len(cache))


def kept_in(cache: Any) -> Callable[[], float]:
    return lambda: float(cache.cache_parameters()["maxsize"])


def kept_answer(number: int) -> KeptAnswer:
    long = text(number, 50_000, 50_000)
    searched = SearchedSection(text=long[1:], title="", passages=("psg-1",), is_asked=True)
    return KeptAnswer(
        key=f"key-{number}",
        app="docs",
        tenant="acme",
        kept_at=0.0,
        lifetime=Lifetime(fresh=60.0),
        form="whole",
        body=bytes(10),
        understood=long,
        tags=(long[2:],),
        documents=(long[3:],),
        searched=(searched,),
    )


def answered(number: int) -> Answered:
    return Answered(
        id=f"ans-{number}",
        at=0.0,
        tenant="acme",
        owner="key",
        app="docs",
        model=None,
        served_by="quote",
        prompt=None,
        question=text(number, 100_000, 100_000),
    )


def feedback_filling() -> Filling:
    class Rows:
        def add(self, row: object) -> None:
            """Keep nothing."""

    feedback = Feedback(lambda: None, Rows(), lambda given: None)  # type: ignore[arg-type, return-value]
    return Filling(lambda n: feedback.note(answered(n)), 200, most_mib=40)


def semantic_filling() -> Filling:
    semantic = SemanticCache()
    policy = SemanticPolicy(
        max_error=0.01, per="hit", compare="facts", entries=9, embed=lambda text: None
    )
    index = semantic.index("acme", "docs", policy)
    found = LookUp(text="", partition="", vector=None, verdict="serve")
    return Filling(lambda n: semantic.note(f"ans-{n:032x}", index, f"key-{n:064x}", found), 25_000)


def reader_filling() -> Filling:
    """Look words up in what one of 32 readers sees of an index."""

    class State:
        readers: ClassVar[dict[int, Any]] = {}

        def documents_with(self, *_: str) -> list[int]:
            return []

    index: Any = SimpleNamespace(state=State())
    none = DocumentFilter(documents=frozenset())
    reader: Any = reader_index(index, none, {})
    return Filling(lambda n: reader.idf(text(n, 60, 60)), 3_000, most_mib=1)


def log_filling() -> Filling:
    log = AccessLog(file=os.open(os.devnull, os.O_WRONLY))

    def seen(number: int) -> None:
        path = "/" + text(number, 60_000, 60_000)
        log.note(
            RequestSeen(
                at=0.0,
                duration_s=0.0,
                method="GET",
                path=path,
                head=b"HTTP/1.1 404 Not Found",
                ref=None,
                tenant=None,
                key=None,
            )
        )
        log.write()

    return Filling(seen, 100, lambda: MOST_PATHS)


def filters_filling() -> Filling:
    access = Access(sources=[Path("docs")])
    documents = {
        n: SimpleNamespace(
            path=f"{n}.md", file="", home="", tags=frozenset(), date="", groups=(frozenset({"hr"}),)
        )
        for n in range(500)
    }
    asker = Asker(owner="key")
    within = [Within(path=f"{n}*/**") for n in range(41)]
    return Filling(lambda n: access.document_filter(asker, within[n], documents, 1), 40)


WORDS, BLAME, MEMORY, ANSWERS = Words(), Blame(), MemoryEntries(8 << 20), AnswerCache()
FILLINGS: dict[str, Callable[[], Filling]] = {
    "language": lambda: Filling(lambda n: language_of(text(n, 60_000)), 10, kept_in(kept_language)),
    "stems": lambda: Filling(lambda n: stem(text(n, 40, 40)), 500, kept_in(kept_stem)),
    "words": lambda: Filling(lambda n: WORDS.all(text(n, 500)), 50, most_of(KEPT_WORDS)),
    "long words": lambda: Filling(lambda n: WORDS.all(text(n, 9_000)), 5),
    "readings": lambda: Filling(lambda n: read(text(n, 300, 2)), 25, most_of(KEPT_READINGS)),
    "long readings": lambda: Filling(lambda n: read(text(n, 3_000)), 3),
    "numbers": lambda: Filling(lambda n: pointed_number(f"clause 1{'.1' * 9_000}.{n}?"), 20),
    "patterns": lambda: Filling(
        lambda n: glob(f"{n}" + "/**a" * 8 + "/*b" * 150), 8, kept_in(glob)
    ),
    "names": lambda: Filling(
        lambda n: is_alike(text(n, 64, 64), text(-n, 64, 64)), 200, kept_in(is_alike)
    ),
    "facts": lambda: Filling(
        lambda n: kept_facts(" ".join(str(n + 7 * m) for m in range(800))), 8, kept_in(kept_facts)
    ),
    "blame": lambda: Filling(
        lambda n: BLAME.is_on_model(Origin(owner=text(n, 64, 64), prompt=n), 1.0), 3_000
    ),
    "kept answers": lambda: Filling(lambda n: MEMORY.put(kept_answer(n)), 30, most_mib=10),
    "answers with a key": lambda: Filling(
        lambda n: ANSWERS.note_answer(f"ans-{n:032x}", f"key-{n:064x}"), 12_000
    ),
    "similar answers": semantic_filling,
    "feedback": feedback_filling,
    "counts of a reader": reader_filling,
    "paths of the log": log_filling,
    "filters": filters_filling,
}


def memory_after(add: Callable[[int], object], times: int) -> int:
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, times + 1):
            add(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", FILLINGS)
def test_every_cache_is_bounded_in_bytes(name: str) -> None:
    """Whatever clients send: fill it with the largest, and count what all that it may hold takes."""
    filling = FILLINGS[name]()
    filling.add(0)
    grown = memory_after(filling.add, filling.times)
    most = grown * max(1.0, filling.most() / filling.times)
    assert most <= filling.most_mib * 2**20, f"{most / 2**20:.1f} MiB"


def test_a_bounded_cache_says_what_it_takes() -> None:
    cache = BoundedCache[tuple[str, ...]](2**20)
    grown = memory_after(lambda n: cache.put(text(n, 50), tuple(text(n, 300).split())), 1000)
    assert grown <= 2**20
    assert 100 < len(cache) < 1000
    assert cache.get(text(1000, 50)) == tuple(text(1000, 300).split())
    assert cache.get(text(1, 50)) is None
    for number in range(1000, 2000):  # what is in use stays
        cache.put(text(number, 50), tuple(text(number, 300).split()))
        assert cache.get(text(1000, 50)) is not None


def test_answers_that_may_be_read_again_are_bounded_in_bytes() -> None:
    """Answers that failed keep their conversations, so that they can be tried again."""

    async def fail(question: Question, draft: object, emit: object) -> None:
        raise Overloaded("No model answers.")

    async def ask_all() -> int:
        runs = Runs()
        for number in range(200):
            part = {"type": "text", "text": text(number, 50_000, 50_000)}
            body = msgspec.json.encode({"messages": [{"role": "user", "content": [part]}]})
            question = Question(
                id=f"ans-{number}",
                app="docs",
                text="Why?",
                messages=(Message(role="user", content=[part]),),
                asker=Asker(owner="key"),
                asked_at=0.0,
            )
            runs.start(question, body, fail)
            del part, body, question
        await until_async(lambda: sum(run.size for run in runs.runs.values()) <= 2**25)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        assert asyncio.run(ask_all()) <= 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.soak
def test_memory_stays_flat_over_answers_from_documents(tmp_path: Path) -> None:
    write_documents(tmp_path / "docs")
    settings = {"apps": {"docs": {"knowledge": ["./docs"]}}, "embedding": "none"}
    sizes = list[float]()
    with serving(tmp_path, settings=settings) as server:
        for part, count in enumerate((1_000, 9_000, 40_000, 50_000)):
            ask_at_once(server, count, part)
            sizes.append(round(rss_mib(server), 1))
    assert sizes[-1] <= 160, sizes
    assert sizes[-1] - sizes[-2] <= 8, f"it still grows: {sizes}"
