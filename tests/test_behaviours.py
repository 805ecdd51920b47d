"""Whatever a provider does, a client gets a whole answer or an honest error: random behaviours of
`behaviours.py` against a bare model and a route, streamed and not. 10,000 of them in `make soak`.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from behaviours import Behaviour, Upstream, behaviour, running
from processes import Serving, mocking, serving

FEW, MANY = 60, 10_000
LANES = 24  # each with models of its own, so that one behaviour does not open another's breaker
HANGS_S = 60.0  # a busy machine takes its time; the limits of a call are 3 s and less
TWIN = "The twin answers in full."
TIMES = {"connect": "5s", "first_byte": "2s", "between_bytes": "1500ms", "first_token": "4s"}
MODES = [(way, streamed) for way in ("bare", "route") for streamed in (True, False)]


class Outcome(NamedTuple):
    """What a client saw. `text` is None unless it was informed that the answer is complete."""

    status: int
    text: str | None
    model: str = ""
    problem: str = ""
    body: str = ""


@contextmanager
def lanes(tmp_path: Path, seed: str, count: int) -> Iterator[Serving]:
    with running(Upstream(seed)) as url, mocking(text=TWIN) as twin:
        models: dict[str, Any] = {"twin": {"base_url": twin.url, "name": "t"}}
        routes = {}
        for lane in range(count):
            for name in (f"bare{lane}", f"primary{lane}"):
                models[name] = {"base_url": url, "name": "x", "retries": 1, "connection": TIMES}
            routes[f"route{lane}"] = [f"primary{lane}", {"model": "twin", "role": "twin"}]
        with serving(tmp_path, settings={"models": models, "routes": routes}) as server:
            yield server


async def ask(client: httpx.AsyncClient, model: str, text: str, *, streamed: bool) -> Outcome:
    body = {"model": model, "stream": streamed, "messages": [{"role": "user", "content": text}]}
    try:
        async with asyncio.timeout(HANGS_S):
            reply = await client.post("/v1/chat/completions", json=body)
    except TimeoutError:
        return Outcome(0, None, problem="hang")
    except httpx.HTTPError as error:
        return Outcome(0, None, problem=f"connection: {error!r}")
    model = reply.headers.get("x-slipway-model", "")
    if reply.status_code == 500:
        return Outcome(500, None, model, "500", reply.text)
    if reply.status_code != 200:
        return Outcome(reply.status_code, None, model, body=reply.text)
    try:
        said = stream_text(reply.content) if streamed else whole_text(reply.content)
    except ValueError as error:
        return Outcome(200, None, model, f"unreadable: {error}", reply.text)
    return Outcome(200, said, model, body=reply.text)


def whole_text(raw: bytes) -> str:
    choice = json.loads(raw.decode(), parse_constant=refuse)["choices"][0]
    if not choice["finish_reason"]:
        raise ValueError("no finish reason")
    return str(choice["message"]["content"])


def stream_text(raw: bytes) -> str | None:
    """The text of a stream that ended well; None for one that ended with an error event."""
    lines_only = raw.decode().replace("\r\n", "\n").replace("\r", "\n")
    text, ended = "", False
    for event in lines_only.split("\n\n"):
        lines = [line[5:].strip() for line in event.split("\n") if line.startswith("data:")]
        data = "\n".join(lines)
        if data == "[DONE]":
            ended = True
        elif data:
            value = json.loads(data, parse_constant=refuse)
            if value.get("error"):
                return None
            for choice in value.get("choices", []):
                text += (choice.get("delta") or {}).get("content") or ""
    if not ended:
        raise ValueError("neither [DONE] nor an error event")
    return text


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def problem(behaves: Behaviour, way: str, lane: int, seen: Outcome) -> str:
    """What is wrong with an outcome; "" if nothing is."""
    if seen.problem:
        return seen.problem.partition(":")[0]
    if behaves.text is None:
        if seen.text is None or (way == "route" and TWIN in seen.text):
            return ""
        return "false success"
    if seen.text != behaves.text:
        return "lost"
    return "" if way == "bare" or seen.model == f"primary{lane}" else "lost by the first model"


async def walk(server: Serving, seed: str, lane: int, numbers: range) -> list[str]:
    """Ask about each behaviour in each mode, and let the model recover after a failure."""
    found = []
    async with httpx.AsyncClient(base_url=server.url, timeout=None) as client:
        for number in numbers:
            for way, streamed in MODES:
                behaves = behaviour(seed, number, streamed=streamed)
                seen = await ask(client, f"{way}{lane}", f"b {number}", streamed=streamed)
                if problem(behaves, way, lane, seen).startswith("lost"):
                    # A busy machine may be silent for longer than the limits. What the reader does
                    # wrong it does again
                    seen = await ask(client, f"{way}{lane}", f"b {number}", streamed=streamed)
                if wrong := problem(behaves, way, lane, seen):
                    found.append(f"{wrong}: {seed}:{number} {way} {streamed}: {behaves}: {seen}")
                if behaves.text is None or seen.text is None:
                    await recover(client, f"{'bare' if way == 'bare' else 'primary'}{lane}")
    return found


async def recover(client: httpx.AsyncClient, model: str) -> None:
    """Ask plain questions until two were answered, so that the next behaviour meets a closed
    breaker.
    """
    async with asyncio.timeout(60):
        for number in range(2):
            while (await ask(client, model, f"plain {number}", streamed=False)).text is None:  # noqa: ASYNC110
                await asyncio.sleep(0.1)


async def run(server: Serving, seed: str, count: int) -> list[str]:
    walks = [walk(server, seed, lane, range(lane, count, LANES)) for lane in range(LANES)]
    return [wrong for found in await asyncio.gather(*walks) for wrong in found]


def check(tmp_path: Path, seed: str, count: int) -> None:
    with lanes(tmp_path, seed, LANES) as server:
        found = asyncio.run(run(server, seed, count))
        kinds = Counter(wrong.partition(":")[0] for wrong in found)
        assert not found, "\n".join([str(dict(kinds)), *(each[:3000] for each in found[:20])])
        assert "Traceback" not in server.log


def test_no_false_success_no_hang_no_500_and_no_lost_answer(tmp_path: Path) -> None:
    check(tmp_path, "few", FEW)


@pytest.mark.soak
def test_ten_thousand_behaviours(tmp_path: Path) -> None:
    check(tmp_path, "many", MANY)
