"""A run: items of a set asked of candidates side by side, each answer kept as soon as it is there.

A candidate is a callable that takes messages and parameters, so that nothing here knows whether it
is an app of the production pipeline, a model of a route, or a server somewhere else.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

import slipway
from slipway.evals import extracting, wording
from slipway.evals.items import EvalSet, Item, Style, digest
from slipway.evals.judging import Judge
from slipway.evals.runlog import AnswerLine, Cache, ItemLine, Reply, RunLine, RunLog, VerdictLine
from slipway.evals.scoring import score
from slipway.evals.statistics import Race
from slipway.types import Record

Ask = Callable[[list[dict[str, Any]], dict[str, Any]], Awaitable[Reply]]
Ended = Literal["done", "decided", "budget"]


class EvalCandidate(Record, frozen=True, kw_only=True):
    """Somebody to ask. `state` is another one after each change of its settings or documents.

    `priced`: what it costs is known, so that a budget can hold.
    """

    name: str
    about: str
    state: str
    ask: Ask
    priced: bool = False


class Plan(Record, frozen=True, kw_only=True):
    """What to ask, and how. `stop` ends the run once a candidate has won, and asks those that are
    beaten no more.
    """

    found: EvalSet
    candidates: tuple[EvalCandidate, ...]
    style: Style
    parameters: dict[str, Any]
    examples: bool = False
    limit: int | None = None
    seed: int = 0
    concurrency: int = 4
    stop: bool = False
    budget_usd: float | None = None
    judge: Judge | None = None

    @property
    def items(self) -> list[Item]:
        """Return the items in an order that is drawn once for each seed: the first N are a fair
        sample.
        """
        items = list(self.found.items)
        random.Random(self.seed).shuffle(items)  # noqa: S311 - drawn again in the same way
        return items[: self.limit]

    def prompt(self, item: Item) -> list[dict[str, Any]]:
        return wording.messages(self.found, item, self.style, examples=self.examples)

    def made(self, candidate: EvalCandidate, prompt_hash: str) -> str:
        parts = [candidate.state, prompt_hash, self.parameters]
        return digest(msgspec.json.encode(parts, order="deterministic"))

    def header(self) -> RunLine:
        return RunLine(
            set=self.found.name,
            digest=self.found.digest,
            title=self.found.title,
            scorer=self.found.scorer,
            style=self.style,
            examples=self.examples,
            parameters=self.parameters,
            extractor=extracting.VERSION,
            wording=wording.VERSION,
            version=slipway.__version__,
            candidates={each.name: each.about for each in self.candidates},
            order=tuple(item.id for item in self.items),
            at=time.time(),
            stop=self.stop,
            budget_usd=self.budget_usd,
            judge=self.judge.name if self.judge is not None else None,
        )


def hash_of(messages: Sequence[Mapping[str, Any]]) -> str:
    return digest(msgspec.json.encode(messages, order="deterministic"))


class EvalRunner:
    """Asks what the log does not have yet."""

    def __init__(self, plan: Plan, log: RunLog, cache: Cache | None) -> None:
        self.plan, self.log, self.cache = plan, log, cache
        self.race = Race([each.name for each in plan.candidates])
        self.spent = Decimal(0)
        self.asked = 0
        self._dearest = Decimal(0)  # the most that one answer has cost
        self._under_way = 0
        self._scores: dict[int, dict[str, float]] = {}  # of items that are answered out of order
        self._next = 0

    async def run(self, tell: Callable[[int, int], None]) -> Ended:
        """Until all is asked, a candidate has won, or the budget is spent."""
        items = self.plan.items
        self.log.keep(self.plan.header())
        self.log.keep(*(ItemLine(item=item, hash=item.hash) for item in items))
        waiting, done = self._items(items), 0

        async def work() -> None:
            nonlocal done
            for number, item in waiting:
                await self._item(number, item)
                done += 1
                tell(done, len(items))

        await _all(work() for _ in range(self.plan.concurrency))
        if self._over:
            return "budget"
        return "decided" if self.plan.stop and self.race.winner is not None else "done"

    def _items(self, items: Sequence[Item]) -> Iterator[tuple[int, Item]]:
        for number, item in enumerate(items):
            if self._over or (self.plan.stop and self.race.winner is not None):
                return
            yield number, item

    @property
    def _over(self) -> bool:
        """Return whether the next answer might cost more than is left; what is under way counts."""
        budget = self.plan.budget_usd
        if budget is None:
            return False
        return self.spent + self._dearest * (self._under_way + 1) > Decimal(str(budget))

    async def _item(self, number: int, item: Item) -> None:
        """Return one item of all candidates that are left; who is asked first takes turns."""
        turn = number % len(self.plan.candidates)
        candidates = self.plan.candidates[turn:] + self.plan.candidates[:turn]
        scores = {}
        for candidate in candidates:
            if self.plan.stop and candidate.name in self.race.beaten:
                continue
            answer = await self._answer(candidate, item)
            if answer is None:  # the budget is spent
                return
            scores[candidate.name] = await self._score(answer, item)
        self._seen(number, scores)

    def _seen(self, number: int, scores: dict[str, float]) -> None:
        """Shows the race whole items in their order, so that a log gives the same verdict again."""
        self._scores[number] = scores
        while self._next in self._scores:
            scores = self._scores.pop(self._next)
            self._next += 1
            if all(name in scores for name in self.race.left):
                self.race.see(scores)

    async def _answer(self, candidate: EvalCandidate, item: Item) -> AnswerLine | None:
        messages = self.plan.prompt(item)
        prompt_hash = hash_of(messages)
        made = self.plan.made(candidate, prompt_hash)
        if (known := self.log.answered(candidate.name, item, made)) is not None:
            return known
        reply = self.cache.get(made) if self.cache is not None else None
        cached = reply is not None
        if reply is None:
            if self._over:
                return None
            reply = await self._ask(candidate, messages)
            if self.cache is not None and not reply.error:
                self.cache.put(made, reply)
        answer = AnswerLine(
            candidate=candidate.name,
            item=item.id,
            item_hash=item.hash,
            prompt_hash=prompt_hash,
            made=made,
            at=time.time(),
            reply=reply,
            cached=cached,
        )
        self.log.keep(answer)
        return answer

    async def _ask(self, candidate: EvalCandidate, messages: list[dict[str, Any]]) -> Reply:
        self._under_way += 1
        self.asked += 1
        try:
            reply = await candidate.ask(messages, self.plan.parameters)
        finally:
            self._under_way -= 1
        self._pay(reply.cost_usd)
        return reply

    def _pay(self, cost_usd: str | None) -> None:
        cost = Decimal(cost_usd or 0)
        self.spent += cost
        self._dearest = max(self._dearest, cost)

    async def _score(self, answer: AnswerLine, item: Item) -> float:
        verdict = None
        if self.plan.judge is not None and not answer.reply.error:
            verdict = (self.log.verdict(answer) or await self._judged(answer, item)).verdicts[0]
        return worth(self.plan.found.scorer, answer, item, verdict)

    async def _judged(self, answer: AnswerLine, item: Item) -> VerdictLine:
        judge = self.plan.judge
        if judge is None:
            raise AssertionError("there is no judge")
        verdicts, cost = await judge.verdicts(item, answer.reply.text)
        self._pay(cost)
        line = VerdictLine(
            candidate=answer.candidate,
            item=answer.item,
            made=answer.made,
            judge=judge.name,
            verdicts=verdicts,
            cost_usd=cost,
        )
        self.log.keep(line)
        return line


def worth(scorer: str, answer: AnswerLine, item: Item, verdict: bool | None) -> float:
    """Return the score that counts: of the flexible reading. A failure is worth nothing."""
    if answer.reply.error:
        return 0.0
    return score(scorer, answer.reply.text, item, answer.reply.cited, verdict).flexible


async def _all(works: Iterator[Awaitable[None]]) -> None:
    """Wait for all of them; the first failure cancels the others, and is raised as it is."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
