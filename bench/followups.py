"""Measure how well the rules complete questions that depend on the history, and whether they leave
complete questions alone.

    python bench/followups.py    # the half of the cases that the rules were not made with
    python bench/followups.py --part tune --show

recall@3 over places (page, heading): 1 if a place that answers is among the first three. `as typed`
searches with the question alone, `joined` with the question before in front of it, `by rules` with
the output of `followups.resolve`, `perfect` with a rewrite by hand. The cases
(tests/data/followups/cases.jsonl) are about docs-qa, our own pages and a handbook in Chinese; every
second one was held back.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from slipway.evals.statistics import Measured, difference, mean
from slipway.followups import resolve
from slipway.knowledge import OFF, Knowledge, opened
from slipway.store import Store
from slipway.types import Asker, Message

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "data" / "followups" / "cases.jsonl"
CORPORA = {
    "docs-qa": ROOT.parent / "shared" / "data" / "rag" / "docs-qa" / "pages",
    "pages": ROOT / "tests" / "data" / "pages",
    "handbook": ROOT / "tests" / "data" / "followups" / "handbook.md",
}
OPERATOR = Asker(owner="bench", everything=True)

Case = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how follow-ups are understood.")
    parser.add_argument("--part", choices=("held", "tune"), default="held")
    parser.add_argument(
        "--docs-qa", type=Path, default=CORPORA["docs-qa"], help="folder of docs-qa's pages"
    )
    parser.add_argument(
        "--embedding",
        default=OFF,
        help="minilm: search by meaning too; embeds 1,000 passages first",
    )
    parser.add_argument(
        "--show", action="store_true", help="print the dependent questions that are not found"
    )
    options = parser.parse_args()
    cases = [
        case
        for case in map(json.loads, CASES.read_text(encoding="utf-8").splitlines())
        if case["part"] == options.part
    ]
    corpora = {
        name: knowledge_of(options.docs_qa if name == "docs-qa" else folder, options.embedding)
        for name, folder in CORPORA.items()
    }
    for line in report(cases, corpora, show=options.show):
        print(line)
    for synchronizer in [each.synchronizer for each in corpora.values()]:
        synchronizer.close()


def knowledge_of(folder: Path, embedding: str) -> Knowledge:
    knowledge = Knowledge(opened(Store.temporary(), [folder], embedding=embedding))
    knowledge.build()
    knowledge.synchronizer.embed()
    return knowledge


def report(cases: Sequence[Case], corpora: dict[str, Knowledge], *, show: bool) -> Iterator[str]:
    leaning = [case for case in cases if case["kind"] == "leans"]
    complete = [case for case in cases if case["kind"] == "complete"]
    found = {
        name: [recall(corpora[case["corpus"]], say(case), case) for case in leaning]
        for name, say in WAYS.items()
    }
    yield f"{len(leaning)} questions that depend on the history, recall@3"
    for name, values in found.items():
        yield f"  {name:12} {interval(mean(values))}"
    for than in ("as typed", "joined"):
        yield f"  by rules beyond {than}: {interval(difference(found['by rules'], found[than]))}"
    changed_count = sum(by_rules(case) != case["question"] for case in leaning)
    yield f"  changed by rules: {changed_count} of {len(leaning)}"
    changed = [case for case in complete if by_rules(case) != case["question"]]
    yield f"{len(complete)} complete questions after another topic: {len(changed)} changed"
    answered = [case for case in complete if case["gold"]]
    for name, say in WAYS.items():
        values = [recall(corpora[case["corpus"]], say(case), case) for case in answered]
        yield f"  {name:12} {interval(mean(values))}"
    with_history = cost_us([case for case in cases if case["history"]])
    without = cost_us([{**case, "history": []} for case in cases])
    yield f"cost: {with_history:.0f} µs with a history, {without:.1f} µs without"
    for case, hit in zip(leaning, found["by rules"], strict=True):
        if show and not hit:
            before = case["history"][-2]["content"]
            yield f"not found: {before} | {case['question']} -> {by_rules(case)}"


def messages(case: Case) -> list[Message]:
    return [
        *(Message(**turn) for turn in case["history"]),
        Message(role="user", content=case["question"]),
    ]


def by_rules(case: Case) -> str:
    return resolve(case["question"], messages(case))


WAYS: dict[str, Callable[[Case], str]] = {
    "as typed": lambda case: case["question"],
    "joined": lambda case: f"{case['history'][-2]['content']} {case['question']}",
    "by rules": by_rules,
    "perfect": lambda case: case["rewrite"],
}


def recall(knowledge: Knowledge, text: str, case: Case) -> float:
    places = {
        (Path(hit.passage.path).name, hit.passage.heading)
        for hit in knowledge.search(text, OPERATOR, 3)
    }
    return float(any((each["page"], each["heading"]) in places for each in case["gold"]))


def interval(measured: Measured) -> str:
    return f"{measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}]"


def cost_us(cases: Sequence[Case], rounds: int = 50) -> float:
    ready = [(case["question"], messages(case)) for case in cases]
    started = time.perf_counter()
    for _ in range(rounds):
        for text, turns in ready:
            resolve(text, turns)
    return (time.perf_counter() - started) * 1e6 / rounds / len(ready)


if __name__ == "__main__":
    main()
