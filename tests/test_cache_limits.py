"""Test that a limit of the key that began a shared call refuses nobody else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from processes import Serving, mocking, serving
from slipway.providers.mock import MockServer
from waiting import until

FREE, DEAR = {"input": 0, "output": 0}, {"input": 1000, "output": 1000}
KEYS = {name: f"sk-of-the-{name}-one" for name in ("poor", "quoted", "rich")}
LITTLE = {"usd_per_day": "0.001"}


@pytest.fixture(scope="module")
def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Serving, MockServer]]:
    """Serve a free model that stalls, and a second one that only one of two keys can pay."""
    folder = tmp_path_factory.mktemp("limits")
    (folder / "docs").mkdir()
    (folder / "docs" / "tea.md").write_text("# Tea\n\nGreen tea is brewed at 80 degrees.\n")
    with mocking(ttft_s=60) as slow, mocking(text="The dear one answers.") as dear:
        settings = {
            "keys": [
                {"key": KEYS["poor"], "tenant": "t", "limits": LITTLE},
                {
                    "key": KEYS["quoted"],
                    "tenant": "t",
                    "limits": {**LITTLE, "at_limit": "quote"},
                },
                {"key": KEYS["rich"], "tenant": "t", "limits": {"usd_per_day": "10", "rpm": 100}},
            ],
            "models": {
                **{
                    f"slow-{n}": {
                        "base_url": slow.url,
                        "price": FREE,
                        "retries": 0,
                        "cache": {},
                        "connection": {"first_token": "1500ms", "first_byte": "1500ms"},
                    }
                    for n in range(4)  # each fails too seldom to be taken out of use
                },
                "dear": {"base_url": dear.url, "price": DEAR, "retries": 0},
                "kept": {"base_url": dear.url, "price": FREE, "cache": {"exact": "1h"}},
            },
            "routes": {f"both-{n}": [f"slow-{n}", "dear"] for n in range(4)},
            "embedding": "none",
            "apps": {
                **{f"app-{n}": {"route": f"both-{n}", "cache": {}} for n in (2, 3)},
                "docs": {"route": "dear", "knowledge": str(folder / "docs"), "cache": "1h"},
            },
        }
        with serving(folder, settings=settings) as server:
            yield server, slow


@pytest.mark.parametrize("stream", [False, True])
def test_a_kept_answer_names_what_is_left_to_the_one_who_gets_it(
    served: tuple[Serving, MockServer], *, stream: bool
) -> None:
    server, _ = served
    question = {"role": "user", "content": f"What is left to me? {stream}"}
    asked = {"model": "kept", "messages": [question], "stream": stream}
    headers = {"Authorization": f"Bearer {KEYS['rich']}"}
    found = [server.post("/v1/chat/completions", asked, headers=headers).headers for _ in range(2)]
    assert [each["x-slipway-cache"] for each in found] == ["miss", "hit"]
    left = [int(each["x-ratelimit-remaining-requests"]) for each in found]
    assert left[1] == left[0] - 1


@pytest.mark.parametrize(
    ("model", "streamed"),
    [("both-0", True), ("both-1", False), ("app-2", True), ("app-3", False)],
)
def test_a_limit_of_the_key_that_began_a_call_is_not_that_of_others(
    served: tuple[Serving, MockServer], model: str, streamed: bool
) -> None:
    server, slow = served

    def ask(key: str) -> httpx.Response:
        question: Any = {"role": "user", "content": f"Of {model}?"}
        body = {"model": model, "messages": [question], "stream": streamed, "max_tokens": 9}
        headers = {"Authorization": f"Bearer {KEYS[key]}"}
        return server.post("/v1/chat/completions", body, headers=headers)

    before = len(slow.requests)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask, "poor")
        until(lambda: len(slow.requests) > before)
        second = pool.submit(ask, "rich")
        poor, rich = first.result(), second.result()
    assert '"error"' in poor.text
    assert rich.status_code == 200, rich.text
    assert "dear" in rich.text
    assert '"error"' not in rich.text


def test_what_was_quoted_since_one_key_is_at_its_limit_is_not_kept(
    served: tuple[Serving, MockServer],
) -> None:
    server, _ = served

    def ask(key: str) -> dict[str, Any]:
        body = {"app": "docs", "question": "How hot is green tea brewed?"}
        headers = {"Authorization": f"Bearer {KEYS[key]}"}
        answer: dict[str, Any] = server.post("/v1/answers", body, headers=headers).json()
        return answer

    assert [notice["code"] for notice in ask("quoted")["notices"]] == ["at_limit"]
    assert ask("rich")["served_by"] == "model"
