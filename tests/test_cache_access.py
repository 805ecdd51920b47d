"""Test that a kept answer serves only those who may read all that it was written from, as it is now.

The questions are asked of the pipeline itself, since there are many. What an asker may read is
decided a second time here, by a rule of one line.
"""

import asyncio
import itertools
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from knowledge_base import KnowledgeBase
from slipway.admission import Admission
from slipway.answer import App, Pipeline, answer_kept
from slipway.answer.draft import Draft
from slipway.cache import CachePolicy, Lifetime
from slipway.knowledge import Knowledge
from slipway.knowledge.access import Access
from slipway.settings import AccessRule
from slipway.types import Asker, Done, Event, Message, Question, Source, SourceFound, new_id

GROUPS = ("sales", "hr", "board")
TENANTS = ("red", "blue")
TOPICS = ("mooring", "towing", "anchoring", "docking", "painting", "fuelling", "sailing", "rowing")
QUESTIONS = [f"What does {topic} cost?" for topic in TOPICS]
MANY = int(os.environ.get("SLIPWAY_LOOKUPS", "1000000"))


class World:
    """Documents, rules that change, and askers; `ask` checks each answer."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.versions = Counter[str]()
        for topic in TOPICS:
            self.write(topic)
        self.rules: tuple[AccessRule, ...] = ()
        self.base = KnowledgeBase([folder])
        self.base.build()
        found = Knowledge(
            self.base.knowledge.synchronizer, Access(lambda: self.rules, [folder], folder)
        )
        self.policy = CachePolicy(identity="docs", lifetime=Lifetime(fresh=3600.0))
        self.app = App(name="docs", knowledge=found, cache=self.policy, sections=1)
        self.pipeline = Pipeline(
            admission=Admission([], 1000), apps={"docs": self.app}, routes={}, emit=self.count
        )
        self.states = Counter[str]()
        self.tenant_of: dict[str, str] = {}

    def count(self, record: object) -> None: ...

    def write(self, topic: str) -> None:
        self.versions[topic] += 1
        text = (
            f"# {topic.capitalize()}\n\n{topic.capitalize()} costs {self.versions[topic]} crowns.\n"
        )
        beside = self.folder / f".{topic}"
        beside.write_text(text)
        beside.replace(self.folder / f"{topic}.md")

    def may_read(self, asker: Asker, path: str) -> bool:
        """The oracle: the first rule that names the file decides."""
        groups = next((rule.groups for rule in self.rules if rule.path == path), ("*",))
        return "*" in groups or not asker.groups.isdisjoint(groups)

    def asker(self) -> Asker:
        groups = [group for group in GROUPS if self.random.random() < 0.5]
        return Asker(
            owner="x", tenant=self.random.choice(TENANTS), groups=frozenset([*groups, "all"])
        )

    def change(self) -> None:
        """Change a rule, or a document."""
        topic = self.random.choice(TOPICS)
        if self.random.random() < 0.2:
            self.write(topic)
            self.base.build()
            return
        kept = [rule for rule in self.rules if rule.path != f"{topic}.md"]
        groups = tuple(self.random.sample((*GROUPS, "*"), self.random.randint(0, 2)))
        self.rules = (*kept, AccessRule(path=f"{topic}.md", groups=groups))

    async def ask(self, asker: Asker, text: str) -> list[Source]:
        """Ask, check the answer, and return its sources."""
        events = list[Event]()
        question = Question(
            id=new_id("ans"),
            app="docs",
            text=text,
            messages=(Message(role="user", content=text),),
            asker=asker,
            asked_at=time.monotonic(),
        )
        await answer_kept(
            self.pipeline, self.app, self.policy, question, Draft(), "answers", events.append
        )
        done = events[-1]
        assert isinstance(done, Done)
        assert done.cache is not None
        self.states[done.cache.state] += 1
        assert self.tenant_of.setdefault(done.cache.key or "", asker.tenant) == asker.tenant
        return [event.source for event in events if isinstance(event, SourceFound)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, seed=1)
    yield world
    world.base.close()


async def look_up(world: World, times: int, change_every: int) -> int:
    """Ask so many times while access changes, and return how many answers were foreign."""
    foreign = 0
    for number in range(times):
        if number % change_every == 0:
            world.change()
        asker, text = world.asker(), world.random.choice(QUESTIONS)
        sources = await world.ask(asker, text)
        foreign += any(not world.may_read(asker, source.path) for source in sources)
        foreign += any(
            f"costs {world.versions[source.path[:-3]]} crowns" not in source.text
            for source in sources
        )
    return foreign


def test_no_answer_is_foreign_while_access_and_documents_change(world: World) -> None:
    assert asyncio.run(look_up(world, 400, 40)) == 0
    assert world.states["hit"] > 50


@pytest.mark.soak
def test_no_answer_of_a_million_is_foreign(world: World) -> None:
    assert asyncio.run(look_up(world, MANY, 2000)) == 0
    assert world.states["hit"] > 0.9 * MANY


async def read_while_writing(world: World, readers: int, changes: int) -> tuple[int, int]:
    """Let many ask while documents change. Return (answers, answers with a version that was old
    when the question was asked).
    """
    counted, old, is_over = 0, 0, False
    ingested = Counter(world.versions)

    async def read() -> None:
        nonlocal counted, old
        while not is_over:
            topic = world.random.choice(TOPICS[:3])
            least = ingested[topic]
            sources = await world.ask(Asker(owner="x"), f"What does {topic} cost?")
            counted += 1
            for source in sources:
                if source.path == f"{topic}.md":
                    shown = int(source.text.split(" costs ")[1].split(" ")[0])
                    old += shown < least

    async def write() -> None:
        nonlocal is_over
        for topic in itertools.islice(itertools.cycle(TOPICS[:3]), changes):
            world.write(topic)
            await asyncio.to_thread(world.base.build)
            ingested[topic] = world.versions[topic]  # ingest has returned
            least = counted + 2 * readers
            while counted < least:  # noqa: ASYNC110 - the readers have no event
                await asyncio.sleep(0.01)
        is_over = True

    await asyncio.gather(write(), *(read() for _ in range(readers)))
    return counted, old


def test_no_answer_cites_an_old_version_after_it_was_replaced(world: World) -> None:
    counted, old = asyncio.run(read_while_writing(world, 8, 5))
    assert old == 0
    assert counted >= 80
    assert world.states["hit"] > 0


@pytest.mark.soak
def test_fifty_readers_never_see_an_old_version(world: World) -> None:
    counted, old = asyncio.run(read_while_writing(world, 50, 100))
    assert old == 0
    assert counted >= 10_000
    assert world.states["hit"] > 0.3 * counted
