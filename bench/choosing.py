"""Measure how reliable choices are: on real answers, how soon the better model is known and how
often a wrong one is named; how often intervals contain the truth; a plan's cost beside the bill of
a real trace.

Needs ../shared/data beside the checkout. Prints one JSON object; takes a minute on one core.
"""

import gzip
import json
import random
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from slipway.evals.statistics import Race, clustered_mean, paired_shares, wilson
from slipway.planner import costs, demand, models, simulation
from slipway.planner.catalogue import load
from slipway.planner.deciding import decide
from slipway.planner.requirements import parsed, read

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
RUNS, SIZES = 1000, (20, 50, 100, 300, 1000)
MACHINE = models.Machine(
    id="m",
    gpu="A10",
    memory_gb=24,
    bandwidth_gbs=600,
    hour_usd=0.75,
    serverless=True,
    source="",
    as_of="",
)
SERVED = {"machine": "m", "ttft_p95": 0.5, "tpot_p95": 0.05, "service": 4.0, "at_once": 4}


def peeking(name: str) -> dict[str, Any]:
    """Replay real answers in 1,000 orders, and test after each item; then with labels swapped."""
    data = gzip.decompress((DATA / "evals" / f"routellm_{name}_per_item.jsonl.gz").read_bytes())
    rows = [json.loads(line) for line in data.splitlines()]
    pairs = [(row["gpt-4-1106"], row["mixtral-8x7b"]) for row in rows]
    chance, stops, wrong, false = random.Random(1), [], 0, 0
    for _ in range(RUNS):
        race = Race(["a", "b"])
        for one, other in chance.sample(pairs, min(2000, len(pairs))):
            race.see({"a": one, "b": other})
            if race.winner is not None:
                break
        stops.append(race.items)
        wrong += race.winner != "a"
        race = Race(["a", "b"])
        for one, other in chance.sample(pairs, min(1300, len(pairs))):
            swap = chance.random() < 0.5
            race.see({"a": other if swap else one, "b": one if swap else other})
            if race.winner is not None:
                false += 1
                break
    stops.sort()
    return {
        "items": len(pairs),
        "stops_p50": stops[RUNS // 2],
        "stops_p90": stops[int(0.9 * RUNS)],
        "wrong_or_undecided": wrong,
        "false_winners": false / RUNS,
    }


def coverage(n: int) -> dict[str, float]:
    """Count how often each interval contains the truth, for sets of n items."""
    chance = np.random.default_rng(n)
    shares = chance.uniform(0.5, 0.99, size=20_000)
    right = chance.binomial(n, shares)
    known = {k: wilson(k, n) for k in range(n + 1)}
    held = np.mean([known[k].low <= p <= known[k].high for k, p in zip(right, shares, strict=True)])
    counts = chance.multinomial(n, [0.15, 0.07, 0.78], size=20_000)
    pairs = {tuple(c): paired_shares(int(c[0]), int(c[1]), n) for c in np.unique(counts, axis=0)}
    paired = np.mean([pairs[tuple(c)].low <= 0.08 <= pairs[tuple(c)].high for c in counts])
    rounds = 1000
    means, clusters = 0, 0
    for _ in range(rounds):
        found = clustered_mean([float(v) for v in chance.beta(2, 1, size=n)])
        means += found.low <= 2 / 3 <= found.high
        centres = chance.normal(0, 1, size=n)
        values = [float(c + e) for c in centres for e in chance.normal(0, 0.5, size=4)]
        found = clustered_mean(values, [c for c in range(n) for _ in range(4)])
        clusters += found.low <= 0 <= found.high
    return {
        "share": round(float(held), 4),
        "paired_difference": round(float(paired), 4),
        "mean": means / rounds,
        "clustered_mean": clusters / rounds,
    }


def bills() -> dict[str, float]:
    """Compare a plan's month with the bill of a real trace, for each way to run a model."""
    trace = str(DATA / "traces" / "azure" / "code.csv.gz")
    catalogue = load()
    own, other = (
        catalogue.models[i]
        for i in ("open/qwen2.5-7b-instruct", "deepinfra/Qwen/Qwen2.5-7B-Instruct")
    )
    found = {}
    for served in (False, True):
        serving = {own.id: SERVED} if served else {}
        needs = parsed({"traffic": {"trace": trace}, "serving": serving}, "")
        wanted = demand.demand_of(needs)
        for option in costs.options_for(own, wanted, needs, [MACHINE], other):
            bill = simulation.simulated(wanted.trace, option, own, MACHINE, other)
            name = f"{option.kind}, {'measured' if served else 'estimated'}"
            found[name] = round(option.month_usd / bill.month_usd - 1, 4)
    return found


def decisions() -> dict[str, float]:
    """Return the milliseconds of one core for a decision, over the tests' requirement files."""
    import time

    catalogue, took = load(), []
    for file in sorted((ROOT / "tests" / "data" / "requirements").glob("*.yaml")):
        needs, before = read(file), time.process_time()
        decide(needs, catalogue, date(2026, 11, 28))
        took.append(1000 * (time.process_time() - before))
    took.sort()
    return {"files": len(took), "p50": round(took[len(took) // 2], 1), "max": round(took[-1], 1)}


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "peeking": {name: peeking(name) for name in ("mmlu", "gsm8k")},
                "coverage": {n: coverage(n) for n in SIZES},
                "bills": bills(),
                "decisions_ms": decisions(),
            },
            indent=2,
        )
    )
