"""`slipway eval judge`: how far a judge can be trusted."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from slipway.commands.eval_candidates import asked
from slipway.evals.items import Item
from slipway.evals.judging import Judge, Labelled, labelled_in, with_itself
from slipway.evals.run_reports import kappa, share
from slipway.evals.statistics import Agreement, agreement
from slipway.settings import Flags
from slipway.terminal import Bar
from slipway.types import Record

Verdicts = tuple[bool | None, bool | None]


class Trust(Record, frozen=True, kw_only=True):
    """What came of it, for people and for scripts."""

    lines: tuple[str, ...]
    data: dict[str, Any]


def measured(
    labels: Path, model: str, config: Path | None, concurrency: int, *, shown: bool
) -> Trust:
    """Raises SlipwayError."""
    known = labelled_in(labels)
    with asked(Flags(config=config), (), model, shown=shown) as whom:
        judge = whom.judge
        if judge is None:
            raise AssertionError("a judge was named")

        async def go() -> list[Verdicts]:
            try:
                return await _verdicts(judge, known, concurrency, shown=shown)
            finally:
                await whom.close()

        verdicts = asyncio.run(go())
    return _trust(judge.name, known, verdicts)


async def _verdicts(
    judge: Judge, known: Sequence[Labelled], concurrency: int, *, shown: bool
) -> list[Verdicts]:
    gate, bar, done = asyncio.Semaphore(concurrency), Bar("judging  ", shown), 0

    async def one(number: int, each: Labelled) -> Verdicts:
        nonlocal done
        async with gate:
            item = Item(id=str(number), question=each.question, reference=each.reference)
            found, _ = await judge.verdicts(item, each.answer)
        done += 1
        bar.update(done, len(known))
        return found

    try:
        return list(await asyncio.gather(*(one(n, each) for n, each in enumerate(known))))
    finally:
        bar.end()


def _trust(name: str, known: Sequence[Labelled], verdicts: Sequence[Verdicts]) -> Trust:
    said = [
        (each.right, verdict[0])
        for each, verdict in zip(known, verdicts, strict=True)
        if verdict[0] is not None
    ]
    people = agreement([a for a, _ in said], [b for _, b in said])
    itself = with_itself(verdicts)
    lenient = sum(b is True and not a for a, b in said)
    strict = sum(b is False and a for a, b in said)
    silent = len(known) - len(said)
    lines = [
        f"{name}, {len(known)} answers that people have judged",
        f"  as people do                {_told(people)}",
        f"  as itself, in both orders   {_told(itself) if itself else '-'}",
        f"  called right what is wrong  {lenient}",
        f"  called wrong what is right  {strict}",
        f"  said neither, or failed     {silent}",
    ]
    data = {
        "judge": name,
        "n": len(known),
        "people": msgspec.to_builtins(people),
        "itself": msgspec.to_builtins(itself),
        "lenient": lenient,
        "strict": strict,
        "silent": silent,
    }
    return Trust(lines=tuple(lines), data=data)


def _told(found: Agreement) -> str:
    return f"{share(found.share)}, Cohen's kappa {kappa(found.kappa)}"
