"""Cut streams at any byte, let another model continue them, and compare with the whole text.

10,000 streams run in `make soak`. Every call of the first model is cut, at a byte drawn evenly
from all of its reply: in the role's chunk, inside characters, between events, in the finish
reason, the usage and [DONE]. Before the first words another model answers instead; after the
finish reason an error event says that the end was not sent. If the other model continues exactly,
the text must be the whole text; for its other habits, rates are printed (`pytest -s`). How long
the reader waits at the cut is measured while neither the client nor the server is busy.
"""

import asyncio
import contextlib
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import plain_http
from chat_client import ChatReply, ask
from processes import Serving, mock_process, serving

STREAMS = {"exact": 4000, "repeat": 1500, "restart": 1500, "preface": 1500, "space": 1500}
FEW = 60  # of each habit, in the usual run
AT_ONCE = 32
EACH = 4  # streams that begin with the same model: more failures would open its breaker
LENGTHS = ["--tokens", "90", "--spread", "0.6"]  # from 20 to 400 tokens, but for a few
GAP_S = 0.3


class Joined(NamedTuple):
    """`twice` and `missing` are characters at the joint, beside the truth."""

    seen: ChatReply
    truth: str
    twice: int
    missing: int

    @property
    def is_exact(self) -> bool:
        return self.seen.text == self.truth


class Soak:
    def __init__(self, server: Serving, other: str) -> None:
        self.server, self.other = server, other
        self.client: httpx.AsyncClient
        self.turn: list[dict[str, Any]] = []  # what an app puts before a question

    async def run(self, streams: int, at_once: int = AT_ONCE) -> list[Joined]:
        """Ask half of them by chat completions, half as answers of an app."""
        gate = asyncio.Semaphore(at_once)

        async def one(number: int) -> Joined:
            async with gate:
                return await self.one(number)

        async with plain_http.AsyncClient(
            limits=httpx.Limits(max_connections=at_once), timeout=60
        ) as self.client:
            self.turn = await self.before()
            return await asyncio.gather(*map(one, range(streams)))

    async def before(self) -> list[dict[str, Any]]:
        await self.answer("uncut", "?")
        sent = (await self.client.get(f"{self.other}/requests")).json()
        return list(sent[-1]["body"]["messages"][:-1])

    async def one(self, number: int) -> Joined:
        question, name = f"What floats, and why? ({number})", f"{number // (2 * EACH)}"
        user = [{"role": "user", "content": question}]
        if number % 2:
            seen, messages = await self.answer(f"app{name}", question), [*self.turn, *user]
        else:
            body = {"model": f"route{name}", "messages": user, "stream": True}
            seen, messages = (
                await ask(self.client, f"{self.server.url}/v1", body, patience_s=60),
                user,
            )
        reported = await self.client.post(
            f"{self.other}/truth", json={"model": "m", "messages": messages}
        )
        truth = str(reported.json()["text"])
        return Joined(seen, truth, *apart(seen.text, truth))

    async def answer(self, app: str, question: str) -> ChatReply:
        """Return an app's events as the `ChatReply` of a stream."""
        seen, name = ChatReply(streamed=True), ""
        body = {"app": app, "question": question, "stream": True}
        async with self.client.stream("POST", f"{self.server.url}/v1/answers", json=body) as reply:
            seen.status = reply.status_code
            async for line in reply.aiter_lines():
                if line.startswith("event: "):
                    name = line[7:]
                elif line.startswith("data: "):
                    take(seen, name, json.loads(line[6:]))
        return seen


def take(seen: ChatReply, name: str, data: dict[str, Any]) -> None:
    if name == "delta":
        seen.say(data["text"])
    elif name == "notice":
        seen.notices.append(data["code"])
    elif name == "error":
        seen.error = data
    elif name == "done":
        seen.is_done, seen.finish = True, "stop"


def apart(text: str, truth: str) -> tuple[int, int]:
    """(characters that `text` has too many, characters that it lacks), where both part and come
    together again.
    """
    shorter = min(len(text), len(truth))
    start = next((n for n in range(shorter) if text[n] != truth[n]), shorter)
    end = next(
        (n for n in range(shorter - start) if text[-1 - n] != truth[-1 - n]), shorter - start
    )
    return len(text) - start - end, len(truth) - start - end


@contextlib.contextmanager
def soaking(tmp_path: Path, habit: str, streams: int, tpot_s: float = 0.0) -> Iterator[Soak]:
    speed = ["--tpot", str(tpot_s), *LENGTHS]
    with (
        mock_process(*speed, "--script", "cutany") as first,
        mock_process(*speed, "--continues", habit) as other,
    ):
        groups = range(-(-streams // (2 * EACH)))
        routes = {
            f"{way}{n}": [f"{way}{n}.first", "other"] for way in ("route", "by") for n in groups
        }
        models = {"other": {"base_url": other, "name": "m"}} | {
            f"{name}.first": {"base_url": first, "name": "m"} for name in routes
        }
        apps = {f"app{n}": {"route": f"by{n}"} for n in groups} | {"uncut": {"route": "other"}}
        with serving(
            tmp_path, settings={"models": models, "routes": routes, "apps": apps}
        ) as server:
            yield Soak(server, other)


def summary_of(habit: str, joined: list[Joined]) -> str:
    went_on = [each for each in joined if each.seen.word == "continued"]
    exact = sum(each.is_exact for each in went_on)
    lengths = statistics.quantiles([len(each.truth) for each in joined], n=20)
    return (
        f"{habit}: {len(joined)} streams of {lengths[0]:.0f} to {lengths[-1]:.0f} characters, "
        f"{len(went_on)} continued, "
        f"{exact} of them exact ({exact / len(went_on):.2%}); "
        f"{sum(each.twice for each in went_on)} characters too many, "
        f"{sum(each.missing for each in went_on)} missing"
    )


def check(habit: str, joined: list[Joined]) -> None:
    print(summary_of(habit, joined))  # noqa: T201 - the rates are what is wanted
    assert {each.seen.word for each in joined} <= {"whole", "continued", "error event"}
    assert all(each.is_exact for each in joined if each.seen.word != "continued")
    if habit == "exact":
        assert [each for each in joined if not each.is_exact] == []


@pytest.mark.parametrize("habit", STREAMS)
def test_streams_that_are_cut_anywhere(tmp_path: Path, habit: str) -> None:
    with soaking(tmp_path, habit, FEW) as soak:
        check(habit, asyncio.run(soak.run(FEW)))
        assert "Traceback" not in soak.server.log


def test_the_reader_hardly_waits_at_the_joint(tmp_path: Path) -> None:
    with soaking(tmp_path, "exact", FEW // 2, tpot_s=0.003) as soak:
        joined = asyncio.run(soak.run(FEW // 2, at_once=2))
    gaps = sorted(each.seen.gap_s for each in joined if each.seen.gap_s is not None)
    print(  # noqa: T201
        f"gap: {len(gaps)} joints, p50 {statistics.median(gaps) * 1000:.0f} ms, p95 "
        f"{gaps[int(0.95 * len(gaps))] * 1000:.0f} ms"
    )
    assert len(gaps) > FEW / 4
    assert gaps[int(0.95 * len(gaps))] <= GAP_S


@pytest.mark.soak
@pytest.mark.parametrize("habit", STREAMS)
def test_ten_thousand_streams_that_are_cut_anywhere(tmp_path: Path, habit: str) -> None:
    with soaking(tmp_path, habit, STREAMS[habit]) as soak:
        check(habit, asyncio.run(soak.run(STREAMS[habit])))
        assert "slipway_answers_in_flight 0.0" in soak.server.get("/metrics").text
        assert "Traceback" not in soak.server.log
