"""Write an app's answer as OpenAI would: as a chat completion, or as the chunks of a stream."""

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from slipway.types import (
    Citation,
    Delta,
    Done,
    Event,
    Notice,
    Progress,
    SectionState,
    Source,
    SourceFound,
    Usage,
    UsageReport,
)
from slipway.web.event_stream import sse
from slipway.web.whole_answers import section_heading, shift_citation


def annotations(citations: Iterable[Any], sources: Iterable[Source]) -> list[dict[str, Any]]:
    """Return citations in OpenAI's form; flags are added under `slipway`."""
    by_n = {s.n: s for s in sources}
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": c.start,
                "end_index": c.end,
                "url": f"/v1/passages/{by_n[c.n].id}",
                "title": f"{by_n[c.n].path} - {by_n[c.n].heading}",
            },
            **({"slipway": {"flags": c.flags}} if c.flags else {}),
        }
        for c in citations
    ]


def chat_completion(answer: dict[str, Any], app: str) -> dict[str, Any]:
    """Return an answer of `whole_answer` as a `chat.completion`."""
    return {
        "id": answer["id"],
        "object": "chat.completion",
        "created": int(time.time()),
        "model": answer["model"] or app,
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason(answer["notices"]),
                "logprobs": None,
                "message": {
                    "role": "assistant",
                    "content": answer["text"],
                    "refusal": None,
                    "annotations": annotations(answer["citations"], answer["sources"]),
                },
            }
        ],
        "usage": usage_wire(answer["usage"]),
        "slipway": {
            k: answer[k]
            for k in (
                *("id", "served_by", "model", "abstained", "attempts", "cost_usd", "notices"),
                "cache",
            )
        }
        | {"sources": answer["sources"]},
    }


def finish_reason(notices: Iterable[Notice]) -> str:
    """Return OpenAI's finish reason: `length` or `content_filter` if a notice has this code."""
    return next(
        (notice.code for notice in notices if notice.code in ("length", "content_filter")), "stop"
    )


def usage_wire(usage: Usage | None) -> dict[str, Any]:
    """Return usage in OpenAI's form."""
    usage = usage or Usage()
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class ChunkWriter:
    """Turns an app's events into the chunks of an OpenAI stream."""

    def __init__(
        self, answer_id: str, app: str, *, usage_wanted: bool, progress_wanted: bool
    ) -> None:
        self.id, self.app, self.usage_wanted, self.progress_wanted = (
            answer_id,
            app,
            usage_wanted,
            progress_wanted,
        )
        self.created = int(time.time())
        self.sources: list[Source] = []
        self.citations: list[Citation] = []
        self.notices: list[Notice] = []
        self.usage: Usage | None = None
        self.titles: dict[int, str] = {}
        self.section = -1  # the current section
        self.sent = 0  # characters of the text sent so far
        self.starts = 0  # offset of the current section's own text

    def chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        head = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.app,
        }
        return sse({**head, "choices": choices, **more})

    def delta(self, delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        return self.chunk(
            [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], **more
        )

    def begin(self) -> bytes:
        """Return the first chunk, which names the role."""
        return self.delta({"role": "assistant", "content": ""})

    def event(self, event: Event) -> bytes:
        """Return the chunks of an event; empty if OpenAI has no form for it."""
        if isinstance(event, Delta):
            return self.delta({"content": self.text(event)})
        if isinstance(event, SectionState):
            self.titles[event.index] = event.title
            return self.chunk([], slipway={"section": event}) if self.progress_wanted else b""
        if isinstance(event, Progress):
            return self.chunk([], slipway={"progress": event}) if self.progress_wanted else b""
        if isinstance(event, SourceFound):
            self.sources.append(event.source)
            return self.chunk([], slipway={"source": event.source}) if self.progress_wanted else b""
        if isinstance(event, Citation):
            self.citations.append(shift_citation(event, self.starts))
        elif isinstance(event, Notice):
            self.notices.append(event)
        elif isinstance(event, UsageReport):
            self.usage = event.usage
        elif isinstance(event, Done):
            return self.end(event)
        return b""

    def text(self, event: Delta) -> str:
        """Return the text of a delta, with the section's title before its first words."""
        text = event.text
        if event.section != self.section:
            title = section_heading(self.titles.get(event.section, ""), first=not self.sent)
            self.section, self.starts = event.section, self.sent + len(title)
            text = title + text
        self.sent += len(text)
        return text

    def end(self, done: Done) -> bytes:
        """Return the last chunks: annotations and sources, usage if it was asked for, `[DONE]`."""
        marks, cited = annotations(self.citations, self.sources), {c.n for c in self.citations}
        sources = [msgspec.structs.replace(s, cited=s.n in cited) for s in self.sources]
        facts = {
            "id": done.id,
            "served_by": done.served_by,
            "model": done.model,
            "abstained": done.abstained,
            "attempts": done.attempts,
            "cache": done.cache,
        }
        why = finish_reason(self.notices)
        last = self.delta(
            {"annotations": marks} if marks else {},
            why,
            slipway={**facts, "notices": self.notices, "sources": sources},
        )
        usage = self.chunk([], usage=usage_wire(self.usage)) if self.usage_wanted else b""
        return last + usage + b"data: [DONE]\n\n"
