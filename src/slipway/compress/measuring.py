"""What a model is like beside the original: its predictions, its speed, its memory.

Predictions are paired: both models read the same windows, and the error of the difference is taken
over windows. Speed is paired too: rounds in which the models take turns, so that what else the
machine does falls on all of them; if rounds differ too much all the same, no number is given.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from slipway.compress.runner import Clock, Runner, Window
from slipway.settings.environment import thread_count
from slipway.types import Record

ROUNDS = 7
_TURNS = 3  # of each model in a round; the best counts, since other work can only make it slower
_NOISE = 0.10  # half of the rounds must lie within this of each other, or nothing is reported
PROMPT, ANSWER = 128, 32  # tokens


class Reading(Record, frozen=True, kw_only=True):
    """Predictions on one text. `ratio` is perplexity by that of the original, with its 95 %
    interval; `kl` is KL(original || this) in nats a token, `same_top` how often both would say the
    same next token."""

    tokens: int
    perplexity: float
    error: float  # of the perplexity, one standard error
    ratio: float
    low: float
    high: float
    kl: float
    same_top: float


class Throughput(Record, frozen=True, kw_only=True):
    """Speed of one model, medians over rounds; the ratios are to the first model (above 1 is
    better for tokens a second, worse for the time to the first token)."""

    ttft_s: float
    tokens_a_second: float
    ttft_ratio: float
    speed_ratio: float
    ttft_spread: float  # of the ratio: half of the rounds lie within this share of its median
    speed_spread: float
    memory: int


class Paces(Record, frozen=True, kw_only=True):
    """`why` is empty, or says why the machine is too noisy for numbers. By the `processor` clock,
    only the time counts in which a model ran, on one thread: its ratios hold, its times are none to
    promise anybody.
    """

    clock: Clock = "wall"
    rounds: int
    threads: int
    load: float
    models: Mapping[str, Throughput]
    why: str = ""


def read_along(
    runner: Runner, windows: Sequence[Sequence[int]], seen: Callable[[], None]
) -> Reading:
    """The runner must have the original too."""
    found = list[Window]()
    for window in windows:
        found.append(runner.score(window))
        seen()
    return reading_of(found)


def reading_of(found: Sequence[Window]) -> Reading:
    tokens = sum(each.tokens for each in found)
    own = [each.nll / each.tokens for each in found]
    more = [(each.nll - each.nll_original) / each.tokens for each in found]
    mean, change = sum(own) / len(own), sum(more) / len(more)
    margin = 1.96 * _standard_error(more)
    return Reading(
        tokens=tokens,
        perplexity=math.exp(mean),
        error=math.exp(mean) * _standard_error(own),
        ratio=math.exp(change),
        low=math.exp(change - margin),
        high=math.exp(change + margin),
        kl=sum(each.kl for each in found) / tokens,
        same_top=sum(each.same_top for each in found) / tokens,
    )


def _standard_error(values: Sequence[float]) -> float:
    count = len(values)
    if count < 2:
        return math.inf
    mean = sum(values) / count
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1) / count)


def side_by_side(
    models: Mapping[str, Path], seen: Callable[[int, int], None], rounds: int = ROUNDS
) -> Paces:
    """Run the models in turn, `seen(done, total)` counts rounds. If the machine is too busy for the
    wall's clock, they run once more on one thread each by the processor's.
    """
    found = _timed(models, seen, rounds, "wall")
    if not found.why:
        return found
    again = _timed(models, seen, rounds, "processor")
    return found if again.why else again


def _timed(
    models: Mapping[str, Path], seen: Callable[[int, int], None], rounds: int, clock: Clock
) -> Paces:
    runners = dict[str, Runner]()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    count = thread_count() if clock == "wall" else 1
    try:
        for name, path in models.items():
            runners[name] = Runner(path, context=PROMPT + ANSWER, threads=count)
            runners[name].speed(PROMPT, 4)  # warm
        done = 0
        while done < rounds or (done < 2 * rounds and _noise(times)):
            for name, best in _round(runners, done, clock).items():
                times[name].append(best)
            done += 1
            seen(min(done, rounds), rounds)
        memory = {name: runner.memory() for name, runner in runners.items()}
    finally:
        for runner in runners.values():
            runner.close()
    return Paces(
        clock=clock,
        rounds=done,
        threads=count,
        load=os.getloadavg()[0],
        models={name: _pace(times, name, memory[name]) for name in models},
        why=_noise(times),
    )


def _round(
    runners: Mapping[str, Runner], number: int, clock: Clock
) -> dict[str, tuple[float, float]]:
    """The best turn of each; who is first takes turns as well."""
    order = list(runners)
    order = order[number % len(order) :] + order[: number % len(order)]
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in order}
    for _ in range(_TURNS):
        for name in order:
            speed = runners[name].speed(PROMPT, ANSWER, clock)
            turns[name].append((speed.ttft_s, speed.tpot_s))
    return {name: (min(a for a, _ in t), min(b for _, b in t)) for name, t in turns.items()}


def _pace(times: Mapping[str, list[tuple[float, float]]], name: str, memory: int) -> Throughput:
    first = next(iter(times.values()))
    ttft = [mine[0] / its[0] for mine, its in zip(times[name], first, strict=True)]
    speed = [its[1] / mine[1] for mine, its in zip(times[name], first, strict=True)]
    return Throughput(
        ttft_s=median(each[0] for each in times[name]),
        tokens_a_second=1 / median(each[1] for each in times[name]),
        ttft_ratio=median(ttft),
        speed_ratio=median(speed),
        ttft_spread=_spread(ttft),
        speed_spread=_spread(speed),
        memory=memory,
    )


def _spread(values: Sequence[float]) -> float:
    """The range of the middle half, as a share of the median."""
    ordered = sorted(values)
    quarter = len(ordered) // 4
    return (ordered[-1 - quarter] - ordered[quarter]) / median(ordered)


def _noise(times: Mapping[str, list[tuple[float, float]]]) -> str:
    if any(not each for each in times.values()):
        return "nothing was measured"
    paces = {name: _pace(times, name, 0) for name in times}
    worst = max(max(each.ttft_spread, each.speed_spread) for each in paces.values())
    if worst <= _NOISE:
        return ""
    return (
        f"the machine is too busy: the middle half of {len(next(iter(times.values())))} rounds "
        f"differs by {worst:.0%}, more than {_NOISE:.0%}; stop other work and run the command again"
    )
