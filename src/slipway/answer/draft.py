"""An answer while it is written. It outlives a failure: *Try again* continues it, and writes no
finished section twice.
"""

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from copy import copy
from itertools import groupby
from typing import Literal

from slipway.errors import SlipwayError
from slipway.ledger import CallUsage
from slipway.types import Delta, Event, Hit, Record, ServedBy, Source

Say = Callable[[Event], None]


class Part(Record, frozen=True, kw_only=True):
    """What a section is about: `text` is the question, `title` is for readers and empty if there is
    only one section. If `hits` were found while planning, `confidence` is how likely they answer.
    """

    text: str
    title: str = ""
    hits: tuple[Hit, ...] | None = None
    confidence: float = 1.0


class Section:
    """One part of an answer; `sources` are those that it may cite."""

    def __init__(self, index: int, part: Part) -> None:
        self.index, self.part = index, part
        self.sources: list[Source] | None = None
        self.confidence = part.confidence
        self.state: Literal["missing", "done", "failed"] = "missing"
        self.error: SlipwayError | None = None
        self.abstained = False
        self.served_by: ServedBy | None = None
        self.model: str | None = None

    @property
    def title(self) -> str:
        return self.part.title


class Draft:
    """Sections with their states, numbered sources, and what all calls so far took."""

    def __init__(self) -> None:
        self.sections: list[Section] = []
        self.sources: dict[str, Source] = {}  # by passage id, in the order of their numbers
        self.spent: list[CallUsage] = []
        self.notices: set[str] = set()  # codes of notices that are sent only once
        self.prompt: str | None = None
        self.understood = ""  # the complete question that was searched for

    def plan(self, parts: Iterable[Part]) -> None:
        self.sections = [Section(index, part) for index, part in enumerate(parts)]

    @property
    def missing(self) -> list[Section]:
        return [section for section in self.sections if section.state != "done"]

    def adopt(self, other: "Draft", shown: Container[int]) -> None:
        """Continue from what another draft holds, which stays as it is. A section that was written
        but is not `shown` to the end is missing here.
        """
        self.sections = [copy(section) for section in other.sections]
        for section in self.sections:
            if section.state == "done" and section.index not in shown:
                section.state = "missing"
        self.sources, self.notices = dict(other.sources), set(other.notices)
        self.prompt, self.understood = other.prompt, other.understood

    def check(self) -> None:
        """Raise the error of the first section that failed."""
        for section in self.sections:
            if section.state == "failed" and section.error is not None:
                raise section.error

    def source(self, hit: Hit) -> Source:
        """Return the passage as a source; sections that share a passage share its number."""
        p = hit.passage
        if p.id not in self.sources:
            self.sources[p.id] = Source(
                n=len(self.sources) + 1,
                id=p.id,
                path=p.path,
                heading=p.heading,
                page=p.page,
                start=p.start,
                end=p.end,
                text=p.text,
                version=p.version,
            )
        return self.sources[p.id]


class InOrder:
    """Let sections be written at once and shown in order: events of a later section wait until
    those before it have ended.
    """

    def __init__(self, say: Say, indices: Sequence[int]) -> None:
        self._say, self._waiting = say, list(indices)
        self._held: dict[int, list[Event]] = {index: [] for index in indices}
        self._ended = set[int]()

    def lane(self, index: int) -> Say:
        def say(event: Event) -> None:
            if self._waiting and self._waiting[0] == index:
                self._say(event)
            else:
                self._held[index].append(event)

        return say

    def end(self, index: int) -> None:
        self._ended.add(index)
        while self._waiting and self._waiting[0] in self._ended:
            self._waiting.pop(0)
            if self._waiting:
                for event in _joined(self._held.pop(self._waiting[0])):
                    self._say(event)
                self._held[self._waiting[0]] = []


def _joined(events: Iterable[Event]) -> Iterator[Event]:
    """Join text that waited into one event: many small ones would push the beginning out of the
    bounded event log.
    """
    for kind, same in groupby(events, type):
        if kind is Delta:
            deltas = [event for event in same if isinstance(event, Delta)]
            yield Delta(section=deltas[0].section, text="".join(delta.text for delta in deltas))
        else:
            yield from same
