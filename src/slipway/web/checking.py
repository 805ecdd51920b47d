"""The routes of `slipway check --url`: streams with a known schedule, and bodies that are counted.
They call no model, so that the way between a client and this server can be measured for nothing.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Literal

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

import slipway
from slipway.answer import Current
from slipway.errors import BadRequest, NotFound, Overloaded, TooLarge
from slipway.providers import encode_json
from slipway.types import Asker, new_id
from slipway.web.asgi import Receive, Scope, Send
from slipway.web.descriptions import ANYTHING, EVENTS_TYPE, TEXT, Operation, Parameter
from slipway.web.guard import STREAM
from slipway.web.responses import reply
from slipway.web.routes import ApiRoute, AsgiHandler
from slipway.web.runs import HEARTBEAT_S

AT_ONCE = 64  # streams in progress; more are refused
REMEMBERED = 200  # streams whose end can be asked for
LONGEST_S = 300.0
COMMENT = b": still here\n\n"
# What proxies change; of every other header only the name is returned, since a value may be secret
SHOWN = frozenset(
    {
        *("host", "via", "connection", "accept-encoding", "te", "cdn-loop", "x-request-id"),
        *("x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "content-type"),
    }
)
ID = re.compile(r"chk-[0-9a-f]{32}")
State = Literal["running", "finished", "client_gone"]


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """When the events of a stream are sent: silence first, with heartbeats or without, and then an
    event each `every_ms` for `seconds`.
    """

    seconds: float
    every_ms: float
    silence_s: float
    heartbeats: bool


class WatchedStream(msgspec.Struct, kw_only=True):
    """A stream, and what became of it."""

    owner: str
    state: State = "running"
    sent: int = 0
    ended_at: float | None = None


SCHEDULE = (
    Parameter(name="seconds", about="how long events are sent"),
    Parameter(name="every_ms", about="milliseconds between two events"),
    Parameter(name="silence_s", about="seconds of silence before the first event"),
    Parameter(name="heartbeats", about="`false`: no comments during the silence"),
    Parameter(name="id", about="a name for the stream, by which its end can be asked for"),
)
SEEN = Operation(about="what the server sees of this request, for `slipway check --url`")
WATCHED_STREAM = Operation(
    about="a stream with a known schedule that calls no model: "
    "`?seconds=4&every_ms=250&silence_s=0`",
    query=SCHEDULE,
    sends=(EVENTS_TYPE,),
    returns=TEXT,
    errors=(Overloaded,),
)
STATE = Operation(about="whether that stream has ended, and how", errors=(NotFound,))
BODY = Operation(
    about="counts the bytes of a body",
    body=ANYTHING,
    body_is_needed=False,
    takes="application/octet-stream",
    errors=(TooLarge,),
)


class CheckRoutes:
    """Handles `/v1/check`."""

    def __init__(self, current: Current) -> None:
        self.current = current
        self.streams: OrderedDict[str, WatchedStream] = OrderedDict()

    async def seen(self, request: Request) -> Response:
        """Return what this server sees of a request, and the limits that a proxy has to allow."""
        settings = self.current.settings
        headers = {
            name: value if name in SHOWN else None
            for name, value in sorted(request.headers.items())
        }
        return reply(
            {
                "slipway": slipway.__version__,
                "time": time.time(),
                "body_mb": settings.limits.body_mb,
                "heartbeat_s": HEARTBEAT_S,
                "keys": not self.current.pipeline.admission.open,
                "request": {
                    "http": request.scope["http_version"],
                    "headers": headers,
                    "key": not headers.keys().isdisjoint({"authorization", "x-api-key", "api-key"}),
                },
            }
        )

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a stream by the schedule of the query; each event has the time when it was sent."""
        asker: Asker = scope["slipway.asker"]
        query = QueryParams(scope["query_string"])
        schedule = schedule_of(query)
        if sum(each.state == "running" for each in self.streams.values()) >= AT_ONCE:
            raise Overloaded(
                f"{AT_ONCE} streams of `slipway check` are in progress.",
                "Try again in a moment.",
            )
        check_id = id_of(query)
        if check_id in self.streams:
            raise BadRequest("There is a stream with this id.", "Choose another.", param="id")
        watched = self.streams[check_id] = WatchedStream(owner=asker.owner)
        while len(self.streams) > REMEMBERED:
            self.streams.popitem(last=False)
        try:
            await send_all(schedule, check_id, watched, send)
            watched.state = "finished"
        except asyncio.CancelledError:
            watched.state = "client_gone"
            raise
        finally:
            watched.ended_at = time.monotonic()

    async def state(self, request: Request) -> Response:
        """Return whether a stream of the asker has ended, and how."""
        asker: Asker = request.scope["slipway.asker"]
        found = self.streams.get(request.path_params["id"])
        if found is None or found.owner != asker.owner:
            raise NotFound(
                "There is no such stream.", "Its id is in each of its events.", param="id"
            )
        ended = None if found.ended_at is None else time.monotonic() - found.ended_at
        return reply({"state": found.state, "sent": found.sent, "ended_s_ago": ended})

    async def body(self, request: Request) -> Response:
        """Count the bytes of a body, and return when they arrived after the request's head."""
        limit_mb = self.current.settings.limits.body_mb
        began_at, first_s, size = time.monotonic(), 0.0, 0
        async for part in request.stream():
            if not size:
                first_s = time.monotonic() - began_at
            size += len(part)
            if size > limit_mb * 1024 * 1024:
                raise TooLarge(
                    f"The body is larger than {limit_mb:g} MiB.",
                    "Send less, or raise `limits.body_mb`.",
                )
        took_s = time.monotonic() - began_at
        return reply({"bytes": size, "first_s": first_s, "took_s": took_s})

    def paths(self) -> list[ApiRoute]:
        """Return the routes."""
        stream = AsgiHandler(self.stream)
        return [
            ApiRoute("/v1/check", self.seen, methods=["GET"], does=SEEN),
            ApiRoute("/v1/check/stream", stream, methods=["GET"], does=WATCHED_STREAM),
            ApiRoute("/v1/check/streams/{id}", self.state, methods=["GET"], does=STATE),
            ApiRoute("/v1/check/body", self.body, methods=["POST"], does=BODY),
        ]


async def send_all(schedule: Schedule, check_id: str, watched: WatchedStream, send: Send) -> None:
    """Send the response. Nothing is sent, not even its head, before there is something to say: an
    answer is as silent while a model reads its prompt.
    """
    began_at, has_begun = time.monotonic(), False
    async for sentence in parts(schedule, check_id, watched, began_at):
        if not has_begun:
            ids = [
                (b"x-slipway-answer-id", check_id.encode()),
                (b"x-request-id", check_id.encode()),
            ]
            await send({"type": "http.response.start", "status": 200, "headers": [*STREAM, *ids]})
            has_begun = True
        await send({"type": "http.response.body", "body": sentence, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def parts(
    schedule: Schedule, check_id: str, watched: WatchedStream, began_at: float
) -> AsyncIterator[bytes]:
    """Yield the stream's events and heartbeats, each when it is due."""
    silent_until = began_at + schedule.silence_s
    while schedule.heartbeats and silent_until - time.monotonic() > HEARTBEAT_S:
        await asyncio.sleep(HEARTBEAT_S)
        yield COMMENT
    count = max(1, round(schedule.seconds * 1000 / schedule.every_ms))
    for number in range(count):
        due = silent_until + number * schedule.every_ms / 1000
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        now = time.monotonic()
        event = {"n": number, "of": count, "at": now, "after_s": now - began_at, "id": check_id}
        watched.sent += 1
        yield b"data: %b\n\n" % encode_json(event)
    yield b"data: [DONE]\n\n"


def schedule_of(query: QueryParams) -> Schedule:
    """Return the schedule that a query asks for. Raise BadRequest."""
    return Schedule(
        seconds=number_of(query, "seconds", 4.0, 0.0, LONGEST_S),
        every_ms=number_of(query, "every_ms", 250.0, 10.0, 60_000.0),
        silence_s=number_of(query, "silence_s", 0.0, 0.0, LONGEST_S),
        heartbeats=query.get("heartbeats", "true") != "false",
    )


def id_of(query: QueryParams) -> str:
    """Return the id of a stream: the client's own, if it wants to leave before the first event.
    Raise BadRequest.
    """
    wanted = query.get("id")
    if wanted is None:
        return new_id("chk")
    if not ID.fullmatch(wanted):
        raise BadRequest("`id` must be `chk-` and 32 digits 0-9, a-f.", "Correct it.", param="id")
    return wanted


def number_of(query: QueryParams, name: str, usual: float, least: float, most: float) -> float:
    text = query.get(name)
    if text is None:
        return usual
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if least <= value <= most:
        return value
    raise BadRequest(
        f"`{name}` must be a number from {least:g} to {most:g}.", "Correct the query.", param=name
    )
