"""No single request within the limits may hold up the others: an attack of each kind, measured.

`python tests/test_one_request.py` prints the CPU time of the longest callback for each.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

import plain_http
from slipway.routing.token_counts import tokens_in
from slipway.settings import AppSettings, Listen, ModelSettings, Settings
from waiting import comes_below
from watchdog import Watched, replying, watched

LIMIT_S = 0.05  # CPU time of one callback
MIB = 1024 * 1024
DOCUMENT = "# Leave\n\nEveryone has 30 days of leave a year. [1] Ask your manager.\n"


def sse(*texts: str) -> bytes:
    """A stream of these texts, as OpenAI sends it."""
    chunks = [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %b\n\n" % json.dumps(c).encode() for c in chunks) + b"data: [DONE]\n\n"


def whole(text: str) -> bytes:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": "stop",
    }
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


def chat(model: str, content: bytes = b'"Hello"', more: bytes = b"", stream: bool = False) -> bytes:
    head = json.dumps({"model": model, "stream": stream})[:-1].encode()
    return b'%b,%b"messages":[{"role":"user","content":%b}]}' % (head, more, content)


def ask(question: str, **more: Any) -> bytes:
    return json.dumps({"app": "docs", "question": question, **more}).encode()


def fields(count: int, size: int = 0) -> bytes:
    return b"".join(b'"f%d":"%b",' % (n, b"x" * size) for n in range(count))


# name -> path, body
ATTACKS: dict[str, tuple[str, bytes]] = {
    "a model's name of 15 MB": ("/v1/chat/completions", chat("x" * 15 * MIB)),
    "an app's name of 250 kB": ("/v1/answers", ask("x", app="y" * 250_000)),
    "a field's name of 15 MB": ("/v1/chat/completions", b'{"%b":1}' % (b"x" * 15 * MIB)),
    "an answer's field of 250 kB": ("/v1/answers", b'{"%b":1}' % (b"x" * 250_000)),
    "a path of stars": ("/v1/answers", ask("leave", within={"path": "*b" * 250})),
    "a path of more stars": ("/v1/answers", ask("leave", within={"path": "*b" * 100_000})),
    "15 MB of fields to an app": ("/v1/chat/completions", chat("docs", more=fields(1_200_000))),
    "250 kB of fields to an app": ("/v1/chat/completions", chat("docs", more=fields(20_000))),
    "15 MB of fields to a model": ("/v1/chat/completions", chat("whole", more=fields(1_200_000))),
    "150,000 fields to a model": (
        "/v1/chat/completions",
        chat("whole", more=fields(150_000, 80)),
    ),
    "a text of 15 MB": ("/v1/chat/completions", chat("whole", b'"%b"' % (b"x" * 15 * MIB))),
    "15 MB of escapes": ("/v1/chat/completions", chat("whole", b'"%b"' % (rb"\u00e4" * 2 * MIB))),
    "15 MB of Chinese": (
        "/v1/chat/completions",
        chat("whole", b'"%b"' % ("查" * 5 * MIB).encode()),
    ),
    "brackets": ("/v1/chat/completions", chat("whole", b"[" * 15 * MIB)),
    "a list of numbers": (
        "/v1/chat/completions",
        chat("whole", more=b'"n":[%b1],' % (b"1," * 5 * MIB)),
    ),
    "a question of 250 kB": ("/v1/answers", ask("leave days " * 22_000)),
    "a question of one word": ("/v1/answers", ask("x" * 250_000)),
    "a question of signs": ("/v1/answers", ask("[1] " * 60_000)),
    "5,000 messages": (
        "/v1/answers",
        json.dumps(
            {"app": "docs", "messages": [{"role": "user", "content": "leave?"}] * 5_000}
        ).encode(),
    ),
    "a conversation of 250 kB": (
        "/v1/answers",
        json.dumps(
            {
                "app": "docs",
                "messages": [
                    {"role": "user", "content": "leave " * 20_000},
                    {"role": "assistant", "content": "30 days. [1] " * 9_000},
                    {"role": "user", "content": "and how many of them?"},
                ],
            }
        ).encode(),
    ),
    "an event of 15 MB": ("/v1/chat/completions", chat("event", stream=True)),
    "a whole answer of 15 MB": ("/v1/chat/completions", chat("whole-15")),
    "an app's answer of markers": ("/v1/answers", ask("How many days of leave?", app="marked")),
    "an app's streamed markers": (
        "/v1/answers",
        ask("How many days of leave?", app="marked", stream=True),
    ),
}


@contextmanager
def attacked(folder: Path) -> Iterator[Watched]:
    (folder / "docs").mkdir()
    for n in range(20):
        (folder / "docs" / f"leave-{n}.md").write_text(DOCUMENT)
    upstreams = {
        "whole": (whole("Hi"), "application/json"),
        "whole-15": (whole("x" * 15 * MIB), "application/json"),
        "event": (sse("x" * 15 * MIB), "text/event-stream"),
        "markers": (sse("[1] " * 2000), "text/event-stream"),
    }
    with ExitStack() as stack:
        models = {
            name: ModelSettings(base_url=stack.enter_context(replying(*reply)), name=name)
            for name, reply in upstreams.items()
        }
        knowledge = (str(folder / "docs"),)
        settings = Settings(
            listen=Listen(port=0),
            store=f"sqlite:///{folder}/store/slipway.db",
            embedding="none",
            models=models,
            apps={
                "docs": AppSettings(knowledge=knowledge),
                "marked": AppSettings(knowledge=knowledge, route="markers"),
            },
        )
        seen = stack.enter_context(watched(settings))
        warm = {"app": "marked", "question": "How many days of leave are there?"}
        plain_http.post(f"{seen.url}/v1/answers", json=warm, timeout=60)
        yield seen


def attack(seen: Watched, path: str, body: bytes) -> tuple[int, int, float]:
    """The status, the size of the response, and the CPU seconds of the longest callback."""
    seen.clear()
    response = plain_http.post(
        seen.url + path, content=body, headers={"content-type": "application/json"}, timeout=100
    )
    return response.status_code, len(response.content), seen.longest_s


@pytest.fixture(scope="module", name="seen")
def attacked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with attacked(tmp_path_factory.mktemp("attacked")) as seen:
        yield seen


@pytest.mark.parametrize("name", ATTACKS)
def test_no_request_holds_up_the_others(seen: Watched, name: str) -> None:
    """The best of three counts: a garbage collection may fall into one of them."""
    path, body = ATTACKS[name]
    results = [attack(seen, path, body)]
    while min(took_s for *_, took_s in results) > LIMIT_S and len(results) < 3:
        results.append(attack(seen, path, body))
    assert min(took_s for *_, took_s in results) <= LIMIT_S, results
    status, size, _ = results[-1]
    assert status < 500
    assert status == 200 or size < 5000  # an error does not echo what was sent


@pytest.mark.parametrize("text", ["查", "查 ", "é", "𠀀"])
def test_the_tokens_of_a_long_text_are_counted_at_once(text: str) -> None:
    """Where a limit holds, they are counted for each request; elsewhere for a few of them."""

    def took_s() -> float:
        began_at = time.thread_time()
        tokens_in(long)
        return time.thread_time() - began_at

    long = text * (15 * MIB // len(text.encode()))
    assert comes_below(LIMIT_S, took_s)
    assert tokens_in("查询 ab cd 한국어") == 5 + 2


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, attacked(Path(folder)) as target:
        for name, (path, body) in ATTACKS.items():
            status, size, took_s = attack(target, path, body)
            sys.stdout.write(f"{name:28} {status} {size:9,} bytes {1000 * took_s:8.1f} ms\n")
