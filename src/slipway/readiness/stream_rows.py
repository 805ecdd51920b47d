"""What a proxy does to streams: buffering, compression, idle timeouts, and clients that leave.

Streams are sent by `/v1/check/stream`, whose events say when the server sent them.
"""

import asyncio
import json
import statistics
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import pairwise

import msgspec

from slipway.readiness.raw_http import BodyPiece, RawResponse, ask, connected, error_in
from slipway.readiness.rows import Check, CheckRow, CheckState
from slipway.readiness.site import Site
from slipway.types import new_id

LATE_S = 0.1  # half of the events may take this much longer than the fastest one
LEAVE_S = 0.5
GONE_S = 5.0  # how long the server may need to notice that a client has left
ENCODINGS = "gzip, deflate, br, zstd"
STREAM_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-transform"}


def checks(site: Site) -> dict[str, tuple[Check, float]]:
    """Return the checks of streams, each with its time limit."""
    wish = site.wish
    return {
        "stream": (lambda: stream(site), wish.seconds + 30.0),
        "compression": (lambda: compression(site), 30.0),
        "heartbeat": (lambda: heartbeat(site), site.heartbeat_s + 30.0),
        "idle": (lambda: idle(site), wish.silence_s + 30.0),
        "disconnect": (lambda: disconnect(site), 30.0),
    }


class Arrival(msgspec.Struct, frozen=True):
    """An event: when the server sent it and when it arrived, each by a clock of its own."""

    n: int
    of: int
    sent: float
    arrived: float


def arrivals(pieces: Iterable[BodyPiece]) -> list[Arrival]:
    """Return the events in the pieces of a stream, each with the time at which its last byte came."""
    found, rest = list[Arrival](), b""
    for piece in pieces:
        *lines, rest = (rest + piece.data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                found.append(Arrival(event["n"], event["of"], event["at"], piece.at))
    return found


def delays(events: list[Arrival]) -> list[float]:
    """Return how much later than the fastest event each one arrived."""
    taken = [event.arrived - event.sent for event in events]
    fastest = min(taken, default=0.0)
    return [each - fastest for each in taken]


def merged(events: list[Arrival], every_s: float) -> int:
    """Count the events that arrived together with the one before, though sent later."""
    return sum(
        later.arrived - event.arrived < every_s / 10 and later.sent - event.sent > every_s / 2
        for event, later in pairwise(events)
    )


async def stream(site: Site) -> Iterable[CheckRow]:
    """Compare when events were sent with when they arrived."""
    wish = site.wish
    path = f"/v1/check/stream?seconds={wish.seconds:g}&every_ms={wish.every_ms:g}"
    try:
        response = await ask(site.address, path)
    finally:
        site.streamed.set()
    site.seen.append(response)
    looked_at = f"a stream of {wish.seconds:g} s, an event each {wish.every_ms:g} ms"
    events = arrivals(response.pieces)
    if refusal := refused(response, "buffering", looked_at):
        return [refusal]
    if response.status != 200 or not events or len(events) < events[0].of:
        return [broken(site, response, events, looked_at), *stream_headers(site, response)]
    late = delays(events)
    return [
        buffering(site, events, late, looked_at),
        merging(site.wish.every_ms / 1000, events, looked_at),
        *stream_headers(site, response),
    ]


def refused(response: RawResponse, name: str, looked_at: str) -> CheckRow | None:
    """Return a row if the server itself did not want to send a stream, which says nothing of the
    way.
    """
    if not (error := error_in(response)):
        return None
    says = f"The server did not send the stream: {error.get('message')}"
    return CheckRow(name=name, looked_at=looked_at, state="skipped", says=says)


def broken(site: Site, response: RawResponse, events: list[Arrival], looked_at: str) -> CheckRow:
    """Return the row of a stream that did not arrive whole."""
    said = f"HTTP {response.status}" if response.status != 200 else f"{len(events)} events arrived"
    return CheckRow(
        name="buffering",
        looked_at=looked_at,
        state="red",
        says=f"The stream did not arrive whole ({said}, then it was {response.ended}).",
        do=(
            "Look at the proxy's error log; its time for a whole response may be too short:",
            *site.fixes("idle"),
        ),
    )


def buffering(site: Site, events: list[Arrival], late: list[float], looked_at: str) -> CheckRow:
    """Return whether events were held back on the way."""
    whole_s = events[-1].sent - events[0].sent
    worst_s, usual_s = max(late), statistics.median(late)
    facts: dict[str, float | int | str | bool | None] = {
        "worst_delay_ms": round(1000 * worst_s, 1),
        "median_delay_ms": round(1000 * usual_s, 1),
    }
    state: CheckState = "green"
    says = f"Events arrive as they are sent: half of them within {1000 * usual_s:.0f} ms."
    if usual_s > max(LATE_S, 0.25 * whole_s):  # half of its length if all comes at the end
        state = "red"
        says = f"The stream is buffered on its way: events wait up to {worst_s:.1f} s of {whole_s:.1f} s."
    elif usual_s > LATE_S:
        state = "amber"
        says = f"Events wait on their way, half of them for {1000 * usual_s:.0f} ms or longer."
    return CheckRow(
        name="buffering",
        looked_at=looked_at,
        state=state,
        says=says,
        do=() if state == "green" else site.fixes("buffering"),
        facts=facts,
    )


def merging(every_s: float, events: list[Arrival], looked_at: str) -> CheckRow:
    """Return whether events arrived in groups."""
    count = merged(events, every_s)
    share = count / max(1, len(events) - 1)
    state: CheckState = "green" if share < 0.1 else "amber"
    return CheckRow(
        name="merging",
        looked_at=looked_at,
        state=state,
        says="Each event arrives by itself."
        if not count
        else f"{count} of {len(events)} events arrive together with the one before.",
        do=() if state == "green" else ("See `buffering`.",),
        facts={"merged": count, "events": len(events)},
    )


def stream_headers(site: Site, response: RawResponse) -> list[CheckRow]:
    """Return what the way did to the headers of a stream."""
    if response.status != 200:
        return []
    wrong = [
        f"`{name}` lacks `{part}`"
        for name, part in STREAM_HEADERS.items()
        if part not in (response.header(name) or "")
    ]
    ours, theirs = response.header("x-slipway-answer-id"), response.header("x-request-id")
    do = list(site.fixes("headers")) if wrong else []
    if ours is None:
        wrong.append("`x-slipway-answer-id` is removed, so that an answer's trace is hard to find")
        do = list(site.fixes("headers"))
    elif theirs != ours:
        wrong.append(f"`x-request-id` is {'removed' if theirs is None else 'replaced'}")
        do += site.fixes("request_id")
    says = "The headers of streams arrive"
    if wrong:
        says = f"Headers of streams are changed: {'; '.join(wrong)}"
    elif response.header("x-accel-buffering") is None:
        says += " (a proxy took `X-Accel-Buffering` for itself: a second nginx would buffer)"
    return [
        CheckRow(
            name="stream headers",
            looked_at="Content-Type, Cache-Control, X-Request-Id",
            state="amber" if wrong else "green",
            says=f"{says}.",
            do=tuple(do),
        )
    ]


async def compression(site: Site) -> Iterable[CheckRow]:
    """Ask for a stream as a browser does, which offers to decompress it."""
    every_ms = min(site.wish.every_ms, 200.0)
    path = f"/v1/check/stream?seconds={8 * every_ms / 1000:g}&every_ms={every_ms:g}"
    response = await ask(site.address, path, headers={"Accept-Encoding": ENCODINGS})
    encoding = response.header("content-encoding")
    looked_at = f"a stream with Accept-Encoding: {ENCODINGS}"
    if encoding in (None, "identity"):
        says = "Streams are not compressed."
        return [CheckRow(name="compression", looked_at=looked_at, state="green", says=says)]
    events = arrivals(unpacked(response.pieces)) if encoding == "gzip" else []
    late = delays(events) or [0.0]
    late_s = max(late)
    says = f"Streams are compressed ({encoding})"
    is_late = statistics.median(late) > every_ms / 1000
    says += f", and events wait up to {late_s:.1f} s for that." if is_late else "."
    return [
        CheckRow(
            name="compression",
            looked_at=looked_at,
            state="red" if is_late else "amber",
            says=f"{says} A compressor holds events back, and costs time for a few bytes.",
            do=site.fixes("compression"),
            facts={"encoding": encoding, "worst_delay_ms": round(1000 * late_s, 1)},
        )
    ]


def unpacked(pieces: Iterable[BodyPiece]) -> list[BodyPiece]:
    """Return pieces of gzip decompressed, each as far as it can be at its time."""
    unpacker = zlib.decompressobj(wbits=31)
    found = list[BodyPiece]()
    for piece in pieces:
        try:
            found.append(BodyPiece(piece.at, unpacker.decompress(piece.data)))
        except zlib.error:
            break
    return found


async def heartbeat(site: Site) -> Iterable[CheckRow]:
    """Wait in silence for a heartbeat, as a client waits while a model reads a long prompt."""
    every_s = site.heartbeat_s
    looked_at = f"a stream that is silent for {every_s + 1:g} s"
    if site.wish.silence_s < every_s:
        says = f"`--silence` is shorter than the {every_s:g} s between two heartbeats."
        return [CheckRow(name="heartbeat", looked_at=looked_at, state="skipped", says=says)]
    path = f"/v1/check/stream?seconds=0&silence_s={every_s + 1:g}"
    response = await ask(site.address, path)
    site.seen.append(response)
    if refusal := refused(response, "heartbeat", looked_at):
        return [refusal]
    beats = [piece for piece in response.pieces if piece.data.startswith(b": still here")]
    if response.status == 200 and beats and arrivals(response.pieces):
        after_s = beats[0].at - response.sent_at
        early = beats[0].at < response.ended_at - 0.5
        if early:
            says = f"A heartbeat arrives after {after_s:.1f} s of silence."
            return [CheckRow(name="heartbeat", looked_at=looked_at, state="green", says=says)]
        return [
            CheckRow(
                name="heartbeat",
                looked_at=looked_at,
                state="red",
                says="Heartbeats are held back, and arrive only with the answer.",
                do=site.fixes("buffering"),
            )
        ]
    return [
        CheckRow(
            name="heartbeat",
            looked_at=looked_at,
            state="red",
            says=f"{ended_early(response)}, before the first heartbeat at {every_s:g} s: answers "
            "that take long to begin are cut.",
            do=site.fixes("idle"),
        )
    ]


def ended_early(response: RawResponse) -> str:
    after_s = response.ended_at - response.sent_at
    how = f"with HTTP {response.status}" if response.status >= 400 else "by closing the connection"
    return f"The proxy gives up after {after_s:.1f} s of silence, {how}"


async def idle(site: Site) -> Iterable[CheckRow]:
    """Wait in silence without heartbeats, as for an answer that is not streamed."""
    silence_s = site.wish.silence_s
    path = f"/v1/check/stream?seconds=0&silence_s={silence_s:g}&heartbeats=false"
    response = await ask(site.address, path)
    site.seen.append(response)
    looked_at = f"{silence_s:g} s of silence, no heartbeat"
    if refusal := refused(response, "idle timeout", looked_at):
        return [refusal]
    if response.status == 200 and arrivals(response.pieces):
        says = (
            f"An answer that is not streamed may take at least {silence_s:g} s; "
            "`--silence 120s` tries longer."
        )
        return [CheckRow(name="idle timeout", looked_at=looked_at, state="green", says=says)]
    short = response.ended_at - response.sent_at < site.heartbeat_s
    return [
        CheckRow(
            name="idle timeout",
            looked_at=looked_at,
            state="red" if short else "amber",
            says=f"{ended_early(response)}: answers that are not streamed, and take longer, fail.",
            do=site.fixes("idle"),
            facts={"idle_timeout_s": round(response.ended_at - response.sent_at, 1)},
        )
    ]


async def disconnect(site: Site) -> Iterable[CheckRow]:
    """Leave while the server is silent, as it is while a model reads, and ask the server whether its
    work has ended.
    """
    looked_at = f"a stream that is left after {LEAVE_S:g} s of silence"
    check_id = new_id("chk")
    path = f"/v1/check/stream?id={check_id}&seconds=0&silence_s=20&heartbeats=false"
    async with connected(site.address) as connection:
        with suppress(TimeoutError):
            async with asyncio.timeout(LEAVE_S):
                response = await connection.send(path)
                if refusal := refused(response, "disconnect", looked_at):
                    return [refusal]
    left_at = time.monotonic()
    state = "running"
    while state == "running" and time.monotonic() - left_at < GONE_S:
        await asyncio.sleep(0.1)
        asked = await ask(site.address, f"/v1/check/streams/{check_id}")
        state = str((asked.json() or {}).get("state", "running"))
    took_s = time.monotonic() - left_at
    if state == "client_gone":
        return [
            CheckRow(
                name="disconnect",
                looked_at=looked_at,
                state="green",
                says=f"When a client leaves, its work ends within {took_s:.1f} s.",
                facts={"noticed_s": round(took_s, 2)},
            )
        ]
    return [
        CheckRow(
            name="disconnect",
            looked_at=looked_at,
            state="amber",
            says=f"The server still works {took_s:.0f} s after its client has left: "
            "such answers are paid for, and nobody reads them.",
            do=site.fixes("disconnect"),
        )
    ]
