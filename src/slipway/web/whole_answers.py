"""Fold the events of an answer into one object: the body of `/v1/answers` without streaming."""

from collections.abc import Iterable
from typing import Any

import msgspec

from slipway.types import (
    Citation,
    Delta,
    Done,
    Event,
    Notice,
    SectionState,
    Source,
    SourceFound,
    UsageReport,
)


def section_heading(title: str, *, first: bool) -> str:
    """Return what precedes a section's text if all sections are joined into one text."""
    return ("" if first else "\n\n") + (f"## {title}\n\n" if title else "")


class WholeAnswer:
    """The state of an answer after all events that `take` received."""

    def __init__(self) -> None:
        self.texts: dict[int, list[str]] = {}
        self.citations: list[Citation] = []
        self.sources: dict[int, Source] = {}
        self.sections: dict[int, SectionState] = {}
        self.notices: list[Notice] = []
        self.usage: UsageReport | None = None
        self.done: Done | None = None

    def take(self, event: Event) -> None:
        """Apply an event."""
        if isinstance(event, Delta):
            self.texts.setdefault(event.section, []).append(event.text)
        elif isinstance(event, Citation):
            self.citations.append(event)
        elif isinstance(event, SourceFound):
            self.sources[event.source.n] = event.source
        elif isinstance(event, SectionState):
            self.section(event)
        elif isinstance(event, Notice):
            self.notices.append(event)
        elif isinstance(event, UsageReport):
            self.usage = event
        elif isinstance(event, Done):
            self.done = event

    def section(self, event: SectionState) -> None:
        """Apply a section's state; a section that starts again begins empty."""
        if event.state == "started":
            self.texts[event.index] = []
            self.citations = [c for c in self.citations if c.section != event.index]
            self.notices = [n for n in self.notices if n.section != event.index]
        self.sections[event.index] = event

    def whole(self) -> tuple[str, dict[int, tuple[int, int]]]:
        """Return the joined text, and (start, end) of each section's own text in it."""
        text, places = "", dict[int, tuple[int, int]]()
        for index in sorted(self.texts):
            own = "".join(self.texts[index])
            state = self.sections.get(index)
            if own:
                text += section_heading(state.title if state else "", first=not text)
            places[index] = (len(text), len(text) + len(own))
            text += own
        return text, places


def whole_answer(answer_id: str, events: Iterable[Event]) -> dict[str, Any]:
    """Return an answer as JSON from its events: the body of `/v1/answers` without streaming.

    Here the offsets of citations count from the beginning of the whole text.
    """
    folding = WholeAnswer()
    for event in events:
        folding.take(event)
    usage, done = folding.usage, folding.done
    text, places = folding.whole()
    cited = {c.n for c in folding.citations}
    return {
        "id": answer_id,
        "text": text,
        "served_by": done.served_by if done else None,
        "model": done.model if done else None,
        "abstained": done.abstained if done else False,
        "sources": [
            msgspec.structs.replace(s, cited=s.n in cited) for s in folding.sources.values()
        ],
        "citations": [shift_citation(c, places[c.section][0]) for c in folding.citations],
        "sections": [
            section_wire(section, *places.get(section.index, (0, 0)))
            for section in folding.sections.values()
        ],
        "usage": usage.usage if usage else None,
        "cost_usd": usage.cost_usd if usage else None,
        "notices": folding.notices,
        "attempts": done.attempts if done else 0,
        "ttft_s": done.ttft_s if done else None,
        "prompt": done.prompt if done else None,
        "duration_s": done.duration_s if done else None,
        "cache": done.cache if done else None,
    }


def shift_citation(citation: Citation, by: int) -> Citation:
    """Return a citation with its offsets moved by `by` characters."""
    return (
        msgspec.structs.replace(citation, start=citation.start + by, end=citation.end + by)
        if by
        else citation
    )


def section_wire(section: SectionState, start: int, end: int) -> dict[str, Any]:
    return {**msgspec.structs.asdict(section), "start": start, "end": end}
