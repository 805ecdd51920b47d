"""Measure how well the citation check separates true statements from altered ones, and what it
costs for each piece of a stream.

    python bench/citations.py           # docs-qa: each sentence of the gold answers, true and
                                        # altered, with its gold sections as source
    python bench/citations.py --show    # also print the sentences that were judged wrongly

A false alarm is a true sentence that is flagged. A caught alteration is a flag that names the
altered word. Each alteration replaces one number, quotation, identifier or name of a sentence by
another of its kind, from the other sentences, that the source does not have. `gold` are the gold
answers, which use their own words; `verbatim` are the sentences of the pages themselves, each with
its passage as source.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from slipway.evals.knowledge import passages_of
from slipway.knowledge.citations import CitationParser
from slipway.knowledge.claims import Claims
from slipway.types import Passage, Source

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "rag" / "docs-qa"
STOP = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'])|\n+")
KINDS = {
    "number": re.compile(r"(?<![\w.,])\d(?:[\d,.]*\d)?(?![\w)]|[.,]\d)"),
    "quoted": re.compile(r"(?<=\s\")\w[^\"]{2,60}(?=\"[\s.,])|(?<=\s')\w[^']{2,60}(?='[\s.,])"),
    "identifier": re.compile(r"(?<![\w./-])[a-z]+(?:_[a-z0-9]+)+|(?<![\w./-])claude-[\w.-]*\w"),
    "name": re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}(?![\w'])"),
}


class Case(NamedTuple):
    question: str
    sentence: str
    sources: tuple[Source, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the citation check.")
    parser.add_argument(
        "--data", type=Path, default=DATA, help="folder with questions.jsonl and pages/"
    )
    parser.add_argument("--show", action="store_true", help="print what was judged wrongly")
    options = parser.parse_args()
    passages = passages_of([options.data / "pages"])
    for name, cases in {
        "gold": list(gold(options.data, passages)),
        "verbatim": list(verbatim(passages)),
    }.items():
        for row, value in {
            **alarms(cases, show=options.show),
            **caught(cases, show=options.show),
        }.items():
            print(f"{name:9} {row:28} {value}")
    for row, value in stream().items():
        print(f"{row:38} {value}")


def verbatim(passages: Sequence[Passage]) -> Iterator[Case]:
    for passage in passages:
        for sentence in STOP.split(passage.text):
            if len(sentence) > 30 and sentence.rstrip().endswith("."):
                yield Case("", sentence.strip(), (numbered(1, passage),))


def numbered(n: int, p: Passage) -> Source:
    return Source(
        n=n,
        id=p.id,
        path=p.path,
        heading=p.heading,
        start=p.start,
        end=p.end,
        text=p.text,
        version=p.version,
    )


def gold(data: Path, passages: Sequence[Passage]) -> Iterator[Case]:
    for line in (data / "questions.jsonl").read_text().splitlines():
        row: dict[str, Any] = json.loads(line)
        places = {(each["page"], each["heading"]) for each in row["gold"]}
        found = [p for p in passages if (Path(p.path).name, p.heading) in places]
        sources = tuple(numbered(n, p) for n, p in enumerate(found, 1))
        yield from (
            Case(row["question"], sentence, sources)
            for sentence in STOP.split(row["answer"])
            if sentence.strip()
        )


def flags(case: Case, sentence: str) -> tuple[str, ...]:
    return Claims(case.sources, case.question).lacking(
        sentence, {source.n for source in case.sources}
    )


def alarms(cases: Sequence[Case], *, show: bool) -> dict[str, Any]:
    false = [(case, found) for case in cases if (found := flags(case, case.sentence))]
    for case, found in false if show else ():
        print(f"FALSE ALARM {found}: {case.sentence}")
    return {
        "true sentences": len(cases),
        "flagged (false alarms)": f"{len(false)} ({len(false) / len(cases):.1%})",
    }


def caught(cases: Sequence[Case], *, show: bool) -> dict[str, Any]:
    rng, altered, hit = random.Random(7), Counter[str](), Counter[str]()
    for kind, pattern in KINDS.items():
        others = sorted({found[0] for case in cases for found in pattern.finditer(case.sentence)})
        for case in cases:
            has = " ".join(
                [
                    case.question,
                    case.sentence,
                    *(f"{s.heading} {s.path} {s.text}" for s in case.sources),
                ]
            ).lower()
            for found in pattern.finditer(case.sentence):
                new = (
                    number_beside(found[0], has, rng)
                    if kind == "number"
                    else rng.choice([o for o in others if o.lower() not in has])
                )
                sentence = case.sentence[: found.start()] + new + case.sentence[found.end() :]
                altered[kind] += 1
                if any(new in flag or flag in new for flag in flags(case, sentence)):
                    hit[kind] += 1
                elif show:
                    print(f"MISSED {kind} {found[0]!r} -> {new!r}: {sentence}")
    results = {
        f"altered: {kind}": f"{hit[kind]}/{count} caught ({hit[kind] / count:.1%})"
        for kind, count in altered.items()
    }
    return results | {
        "altered: all": (
            f"{hit.total()}/{altered.total()} caught ({hit.total() / altered.total():.1%})"
        )
    }


def number_beside(number: str, has: str, rng: random.Random) -> str:
    """Return an absent number of the same form; a longer one if all of that form occur."""
    for form in (number, number + "7", "4" + number + "7") if len(number) > 1 else (number + "73",):
        for _ in range(50):
            new = "".join(str(rng.randint(1, 9)) if sign.isdigit() else sign for sign in form)
            if not re.search(rf"(?<!\d){re.escape(new)}(?!\d)", has):
                return new
    raise AssertionError(number)


def stream(pieces: int = 200_000) -> dict[str, str]:
    times = {}
    for name, text in {
        "a piece without brackets": " word",
        "a piece of a cited sentence": "so it is [1]. ",
    }.items():
        marker = CitationParser({1})
        started = time.perf_counter()
        for _ in range(pieces):
            marker.feed(text)
        times[name] = f"{(time.perf_counter() - started) / pieces * 1e6:.2f} us"
    return times


if __name__ == "__main__":
    main()
