"""How many questions of Banking77 rules answer without a model, how often they are right, and what
they do with questions that only look alike.

Half of the questions of each intent are the examples of a rules file, the other half are asked.
`--precision 0.98` is the app's bound. Two more tests: questions of intents that the file does not
have, and `must_miss_banking`, where each question is an example with a number, a negation, an
opposite or a name changed.
"""

import argparse
import gzip
import json
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from slipway.evals.statistics import wilson
from slipway.rules import RuleBook, RuleQuestion, read_rules
from slipway.rules.normalising import normal_form
from slipway.types import Asker

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
ASKER = Asker(owner="bench")
Row = tuple[str, str]  # a question and its intent


def rows_of(name: str) -> list[list[str]]:
    """Return the rows of a table of pairs, without its header."""
    with gzip.open(DATA / "pairs" / name, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n").split("\t") for line in file][1:]


def halves(rows: Iterable[Row], seed: int) -> tuple[list[Row], list[Row]]:
    """Split the questions of each intent evenly; a question that is there twice counts once."""
    by_intent, seen = defaultdict[str, list[str]](list), set[str]()
    for text, intent in rows:
        if (form := normal_form(text)) not in seen:
            seen.add(form)
            by_intent[intent].append(text)
    examples, asked = list[Row](), list[Row]()
    for intent, texts in sorted(by_intent.items()):
        random.Random(f"{seed} {intent}").shuffle(texts)
        half = len(texts) // 2
        examples += [(text, intent) for text in texts[:half]]
        asked += [(text, intent) for text in texts[half:]]
    return examples, asked


def book_of(examples: Sequence[Row], folder: Path, precision: float) -> RuleBook:
    """Write a rules file with these examples, as a person would, and read it."""
    by_intent = defaultdict[str, list[str]](list)
    for text, intent in examples:
        by_intent[intent].append(text)
    rules = [
        {"name": intent, "examples": texts, "answer": f"About {intent}."}
        for intent, texts in by_intent.items()
    ]
    file = folder / "rules.yaml"
    file.write_text(json.dumps({"rules": rules}), encoding="utf-8")  # JSON is YAML
    began = time.process_time()
    book = RuleBook(read_rules(file), precision)
    print(
        f"  {len(examples):,} examples read and learned in {time.process_time() - began:.1f} s CPU"
    )
    return book


def served(book: RuleBook, text: str) -> str | None:
    match = book.match(RuleQuestion(text=text, asker=ASKER)).match
    return match.rule if match is not None else None


def in_scope(book: RuleBook, asked: Sequence[Row]) -> None:
    """Print coverage, precision and time of questions that the file has intents for."""
    right, wrong, took = 0, 0, list[float]()
    for text, intent in asked:
        began = time.process_time()
        found = served(book, text)
        took.append(1000 * (time.process_time() - began))
        right += found == intent
        wrong += found not in (None, intent)
    share = wilson(right, max(right + wrong, 1))
    print(
        f"  served {right + wrong:,} of {len(asked):,} ({(right + wrong) / len(asked):.1%}), "
        f"precision {right / max(right + wrong, 1):.2%} (95 %: {share.low:.2%} to {share.high:.2%})"
    )
    cuts = statistics.quantiles(took, n=100)
    print(f"  {cuts[49]:.2f} ms CPU a question, p95 {cuts[94]:.2f} ms, p99 {cuts[98]:.2f} ms")


def foreign(book: RuleBook, name: str, texts: Sequence[str]) -> None:
    count = sum(served(book, text) is not None for text in texts)
    print(f"  {name}: {count} of {len(texts):,} served ({count / max(len(texts), 1):.2%})")


def must_miss(examples: Sequence[Row], rows: Sequence[Row], folder: Path, precision: float) -> None:
    """Ask the changed questions of a file that has every original among its examples."""
    intents = {normal_form(text): intent for text, intent in rows}
    pairs = [row for row in rows_of("must_miss_banking.tsv.gz") if normal_form(row[1]) in intents]
    known = {normal_form(text) for text, _ in examples}
    originals = {normal_form(q): q for _, q, _, _ in pairs if normal_form(q) not in known}
    full = [*examples, *((q, intents[form]) for form, q in originals.items())]
    book = book_of(full, folder, precision)
    asked, hit = Counter[str](), Counter[str]()
    own = {normal_form(text) for text, _ in full}
    for kind, _, changed, _ in pairs:
        if normal_form(changed) in own:
            continue  # the changed question is an example itself, with its own answer
        asked[kind] += 1
        if (found := served(book, changed)) is not None:
            hit[kind] += 1
            print(f"    served: {kind}: {changed} -> {found}")
    parts = ", ".join(f"{kind} {hit[kind]} of {count}" for kind, count in sorted(asked.items()))
    total = sum(asked.values())
    print(f"  served {sum(hit.values())} of {total} ({sum(hit.values()) / total:.2%}): {parts}")


def others() -> list[str]:
    """Return questions and claims that have nothing to do with a bank."""
    lines = (DATA / "rag" / "docs-qa" / "questions.jsonl").read_text().splitlines()
    texts = [json.loads(line)["question"] for line in lines]
    claims = (DATA / "rag" / "scifact" / "queries.jsonl").read_text().splitlines()
    return [*texts, *(json.loads(line)["text"] for line in claims)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", type=float, default=0.98)
    parser.add_argument("--seeds", type=int, default=1, help="number of splits")
    options = parser.parse_args()
    rows = [(text, intent) for text, intent in rows_of("banking77_train.tsv.gz")]
    folder = Path(__file__).parent / ".build" / "rules"
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        examples, asked = halves(rows, seed)
        print(f"Banking77, 77 intents, split {seed}")
        book = book_of(examples, folder, options.precision)
        in_scope(book, asked)
        foreign(book, "questions about other things", others())
    examples, asked = halves(rows, 0)
    names = sorted({intent for _, intent in rows})
    half = set(names[::2])
    print("Banking77, 39 of the intents in the file, the others asked as well")
    book = book_of([row for row in examples if row[1] in half], folder, options.precision)
    in_scope(book, [row for row in asked if row[1] in half])
    foreign(book, "questions of other intents", [text for text, i in asked if i not in half])
    print("must_miss_banking: nothing may be served")
    must_miss(examples, rows, folder, options.precision)


if __name__ == "__main__":
    main()
