"""Memory does not grow with the answers that were given: 100,000 over documents in `make soak`."""

import http.client
import json
import random
import threading
from pathlib import Path

import pytest

from processes import Serving, serving
from slipway.cache.semantic_guards import kept_reading, read
from slipway.knowledge.pointers import pointed_number
from slipway.knowledge.stems import kept_stem, stem
from slipway.knowledge.words import Words

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


def test_what_is_kept_of_texts_is_bounded_in_bytes() -> None:
    """A question may be one word of 60 KB: thousands of such words must not be held."""
    words = Words()
    kept = (kept_stem, Words.kept, kept_reading)
    before = [each.cache_info().currsize for each in kept]
    for n in range(100):
        long = f"{n:04}" + "x" * 60_000
        assert stem(long)
        words.all(long)
        assert read(long).words
        assert len(pointed_number(f"clause 1{'.1' * 9_000}.{n}?")) < 100
    assert [each.cache_info().currsize for each in kept] == before
    stem("configuring")
    words.all("a short text")
    read("a short question?")
    assert all(now.cache_info().currsize > was for now, was in zip(kept, before, strict=True))


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
