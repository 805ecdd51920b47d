"""Write events as server-sent events, and our own events with their names and numbers."""

from typing import Any

import msgspec

from slipway.providers import encode_json
from slipway.types import (
    Citation,
    Delta,
    Done,
    Event,
    Failed,
    Notice,
    Progress,
    SectionState,
    SourceFound,
    UsageReport,
)

EVENT_NAMES: dict[type[Event], str] = {
    Progress: "progress",
    SourceFound: "source",
    SectionState: "section",
    Delta: "delta",
    Citation: "citation",
    Notice: "notice",
    UsageReport: "usage",
    Failed: "error",
    Done: "done",
}


def sse(data: Any) -> bytes:
    """Return data as one server-sent event."""
    return b"data: %b\n\n" % encode_json(data)


def event_data(event: Event) -> Any:
    """Return an event's data, as the table of events in docs/api.md shows it."""
    if isinstance(event, SourceFound):
        return event.source
    if isinstance(event, UsageReport):
        return {
            "model": event.model,
            **msgspec.structs.asdict(event.usage),
            "cost_usd": event.cost_usd,
        }
    return event


def event_sse(number: int, event: Event) -> bytes:
    """Return one of our own events as a server-sent event with its number as id."""
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (
        number,
        EVENT_NAMES[type(event)].encode(),
        encode_json(event_data(event)),
    )
