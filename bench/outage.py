"""Measure what an outage costs: calls to models that are down, the wait for the first words, the
time until the first model is used again; and what overload does.

    python bench/outage.py                 # about fifteen minutes
    python bench/outage.py --seconds 10    # shorter outages

Slipway and each of its models are separate processes; questions come at a fixed rate, whatever
happens to earlier ones. Each answer is a stream.

- outage: the first model of the route is down for a minute: it refuses connections; or answers 503
  on all of its routes; or only to chats, while its list of models, which is probed, works. Wasted
  calls are those made to it in that time; calls that had begun before and broke off are counted
  separately. First words are those of the fallback once the breaker is open, beside those of the
  first model before. Back is when the first question was asked that the first model answered again
- all down: every model of the route is down; how many calls each gets, as Slipway counts them, and
  when the client gets the error
- overload: five times as many questions as a model with eight slots can answer; which are refused,
  how soon, and how long the others took
"""

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from chat_client import ChatReply, ask
from processes import Serving, mock_process, serving

RATE = 10.0  # questions in a second
HEALTHY_S, AFTER_S = 8.0, 12.0  # before and after an outage
SPEED = ["--ttft", "0.2", "--tpot", "0.005", "--tokens", "40", "--seed", "1"]
OUTAGES = {
    "refuses connections": "refuse",
    "503 on every route": "down",
    "503 to chats alone": "status-503",
}
TURNS, WAIT_S, OVERLOAD = 8, 1.0, 5
FIRST_S, ANSWER_S = 0.2, 0.4  # what first words and a whole answer take at SPEED


class Asked(NamedTuple):
    """One question; it was asked `at_s` seconds after the load began."""

    at_s: float
    seen: ChatReply

    @property
    def writer(self) -> str:
        return self.seen.headers.get("x-slipway-model", "")


@contextlib.contextmanager
def route(count: int, **fields: Any) -> Iterator[tuple[Serving, list[str]]]:
    """Start a server with one route, `r`, over models m0, m1 …, each its own mock; yield the
    addresses.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        urls = [stack.enter_context(mock_process(*SPEED)) for _ in range(count)]
        models = {
            f"m{n}": {"base_url": url, "name": "m", "zone": f"zone {n}", **fields}
            for n, url in enumerate(urls)
        }
        settings = {"models": models, "routes": {"r": list(models)}}
        yield stack.enter_context(serving(Path(folder), settings=settings)), urls


async def load(server: Serving, rate: float, seconds: float) -> list[Asked]:
    """Ask a question every 1/rate seconds, whatever happens to the others (open loop)."""
    loop, began = asyncio.get_running_loop(), time.monotonic()
    body = {
        "model": "r",
        "stream": True,
        "messages": [{"role": "user", "content": "Why do ships float?"}],
    }

    async def one(client: httpx.AsyncClient) -> Asked:
        at_s = time.monotonic() - began
        return Asked(at_s, await ask(client, f"{server.url}/v1", body, patience_s=60))

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client:
        asking = list[asyncio.Task[Asked]]()
        for number in range(round(rate * seconds)):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            asking.append(loop.create_task(one(client)))
        return await asyncio.gather(*asking)


async def script(url: str, *entries: str) -> None:
    async with httpx.AsyncClient() as client:
        (await client.put(f"{url}/script", json=list(entries))).raise_for_status()


def failed(server: Serving) -> Counter[str]:
    """Return the failed calls by model, as Slipway counts them."""
    found = Counter[str]()
    for line in server.get("/metrics").text.splitlines():
        if line.startswith("slipway_attempts_total") and 'error=""' not in line:
            found[line.partition('model="')[2].partition('"')[0]] += round(
                float(line.rpartition(" ")[2])
            )
    return found


def percentile(values: Sequence[float], share: float) -> float:
    return (
        sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else float("nan")
    )


# One model is gone


async def outage(server: Serving, url: str, fault: str, seconds: float) -> list[Asked]:
    """Run the load with an outage that begins at HEALTHY_S."""
    running = asyncio.create_task(load(server, RATE, HEALTHY_S + seconds + AFTER_S))
    await asyncio.sleep(HEALTHY_S)
    await script(url, f"{fault}@0s-{seconds}s")
    return await running


def show_outage(name: str, count: int, asked: list[Asked], failures: int, seconds: float) -> None:
    over_s = HEALTHY_S + seconds
    broken = sum(
        each.at_s < HEALTHY_S and (each.writer != "m0" or "continued" in each.seen.notices)
        for each in asked
    )
    before = [
        each.seen.first_s
        for each in asked
        if each.at_s < HEALTHY_S - 1 and each.seen.first_s is not None
    ]
    during = [
        each.seen.first_s
        for each in asked
        if HEALTHY_S + 1 < each.at_s < over_s
        and each.seen.first_s is not None
        and each.writer == "m1"
    ]
    back_s = (
        min(
            (each.at_s for each in asked if each.at_s >= over_s and each.writer == "m0"),
            default=float("inf"),
        )
        - over_s
    )
    back = (
        f"back after {max(0.0, back_s):.1f} s"
        if back_s < AFTER_S
        else f"not back within {AFTER_S:.0f} s"
    )
    words = Counter(each.seen.word for each in asked)
    print(
        f"{name}, {count} models: {len(asked)} questions, {words['whole'] + words['continued']} "
        "answered; "
        f"{failures - broken} wasted calls, {broken} that were under way; first words p50 "
        f"{statistics.median(before) * 1000:.0f} -> {statistics.median(during) * 1000:.0f} ms "
        f"({statistics.median(during) / statistics.median(before):.2f}x), "
        f"p95 {percentile(before, 0.95) * 1000:.0f} -> {percentile(during, 0.95) * 1000:.0f} ms; "
        f"{back}",
        flush=True,
    )


def outages(seconds: float) -> None:
    for count in (2, 3):
        for name, fault in OUTAGES.items():
            with route(count) as (server, urls):
                asked = asyncio.run(outage(server, urls[0], fault, seconds))
                show_outage(name, count, asked, failed(server)["m0"], seconds)


# All models are gone


async def all_down(server: Serving, urls: list[str], fault: str, seconds: float) -> list[Asked]:
    for url in urls:
        await script(url, f"{fault}@0s-{seconds + 60}s")
    return await load(server, RATE, seconds)


def everything_down(seconds: float) -> None:
    for count in (1, 2, 3):
        for name, fault in {**OUTAGES, "429 to chats": "limit-0"}.items():
            with route(count) as (server, urls):
                asked = asyncio.run(all_down(server, urls, fault, seconds))
                calls = failed(server)
                rates = ", ".join(f"{calls[f'm{n}'] / len(asked):.2f}" for n in range(count))
                words = ", ".join(
                    f"{number} x {word}"
                    for word, number in Counter(each.seen.word for each in asked).most_common()
                )
                took = percentile([each.seen.took_s for each in asked], 0.95)
                print(
                    f"all of {count}, {name}: calls for each question {rates}; {words}; the "
                    f"error came after {took * 1000:.0f} ms (p95)",
                    flush=True,
                )


# Too many questions


def overload(seconds: float) -> None:
    rate = OVERLOAD * TURNS / ANSWER_S
    with route(1, at_once=TURNS, wait=f"{WAIT_S}s") as (server, _):
        asked = asyncio.run(load(server, rate, seconds))
    shed = [each.seen for each in asked if each.seen.status == 503]
    answered = [each.seen for each in asked if each.seen.word == "whole"]
    dated, at_once = (
        sum("retry-after" in seen.headers for seen in shed),
        sum(seen.took_s <= 0.02 for seen in shed),
    )
    print(
        f"overload, {rate:.0f} questions a second of which {TURNS / ANSWER_S:.0f} can be answered: "
        f"{len(answered) / seconds:.1f} a second answered, "
        f"{len(shed)} of {len(asked)} refused, {dated} of them with Retry-After, "
        f"{at_once} within 20 ms ({spread([s.took_s for s in shed])}); "
        f"first words after {spread([s.first_s for s in answered if s.first_s is not None])}, "
        f"allowed are {1000 * (WAIT_S + FIRST_S):.0f} ms, "
        f"answers after {spread([s.took_s for s in answered])}; "
        f"{len(asked) - len(answered) - len(shed)} others",
        flush=True,
    )


def spread(values: Sequence[float]) -> str:
    p50, p95 = percentile(values, 0.5), percentile(values, 0.95)
    return f"p50 {p50 * 1000:.0f}, p95 {p95 * 1000:.0f}, at most {max(values) * 1000:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="of an outage of one model")
    parser.add_argument("--only", choices=["outage", "all", "overload"], help="one part alone")
    options = parser.parse_args()
    if options.only in (None, "outage"):
        outages(options.seconds)
    if options.only in (None, "all"):
        everything_down(options.seconds / 3)
    if options.only in (None, "overload"):
        overload(min(10.0, options.seconds))


if __name__ == "__main__":
    main()
