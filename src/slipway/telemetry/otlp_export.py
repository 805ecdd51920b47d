"""Send spans to a collector: in batches, from a thread, never in the way of answers.

What the collector does not take in time is dropped and counted.
"""

import logging
import os
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

import slipway
from slipway.telemetry.otlp import is_wanted, request_of, resource_of, scope_of, spans_of
from slipway.telemetry.trace_files import TimedRecord

log = logging.getLogger("slipway")
MOST_WAITING = 20_000  # records
AT_ONCE = 512  # records in a request
ENCODED_AT_ONCE = 32  # records, before other threads may run
SEND_S = 1.0  # between two requests, if there is little to send
TIMEOUT_S = 10.0
TRIES = 4
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 15.0
CLOSE_S = 2.0  # how long the end of the server waits for the last spans
AGAIN = frozenset({429, 502, 503, 504})  # statuses after which the request is sent again
PATH = "/v1/traces"
Outcome = Literal["sent", "again", "refused"]


class Poster(Protocol):
    """An HTTP client, as httpx has it."""

    def post(self, url: str, *, content: bytes, headers: dict[str, str]) -> Any: ...


class OtlpExporter:
    """Sends the spans of sampled answers to one collector; `take` gets the records."""

    def __init__(
        self,
        endpoint: str,
        headers: dict[str, str],
        on_dropped: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.url = address_of_traces(endpoint)
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "User-Agent": f"slipway/{slipway.__version__}",
            **headers,
        }
        self._on_dropped = on_dropped
        self.dropped = self.sent = 0  # records
        self._waiting: deque[TimedRecord] = deque()
        self._counting = threading.Lock()
        self._ends = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False
        host = socket.gethostname()
        self._resource = resource_of(
            {
                "service.name": "slipway",
                "service.version": slipway.__version__,
                "service.instance.id": f"{host}:{os.getpid()}",
                "host.name": host,
            }
        )
        self._scope = scope_of("slipway", slipway.__version__)

    def take(self, records: Sequence[TimedRecord]) -> None:
        """Keep what becomes a span until it is sent."""
        self._waiting += [each for each in records if is_wanted(each[1])]
        self._drop(len(self._waiting) - MOST_WAITING)

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self._count_dropped(count)

    def _count_dropped(self, count: int) -> None:
        if count > 0:
            with self._counting:  # two threads drop
                self.dropped += count
                self._on_dropped(count)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="slipway-otlp", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what waits, for a moment, and end."""
        self._ends.set()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        self._drop(len(self._waiting))

    def _run(self) -> None:
        import httpx

        with httpx.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client:
            while not self._ends.wait(0 if len(self._waiting) >= AT_ONCE else SEND_S):
                self._send_waiting(client)
            until = time.monotonic() + CLOSE_S
            while self._waiting and time.monotonic() < until and not self._is_failing:
                self._send_waiting(client)

    def _send_waiting(self, client: Poster) -> None:
        batch = list[TimedRecord]()
        while self._waiting and len(batch) < AT_ONCE:
            batch.append(self._waiting.popleft())
        if batch:
            try:
                self._send(client, batch)
            except Exception:  # a defect here must not end the export for good
                log.exception("bug: spans could not be sent")
                self._count_dropped(len(batch))

    def _send(self, client: Poster, batch: Sequence[TimedRecord]) -> None:
        """Send records as spans; drop them if that fails for good."""
        spans = list[bytes]()
        for start in range(0, len(batch), ENCODED_AT_ONCE):
            spans += spans_of(batch[start : start + ENCODED_AT_ONCE])
            time.sleep(0)
        body = request_of(spans, self._resource, self._scope)
        pause_s = FIRST_PAUSE_S
        for left in reversed(range(TRIES)):
            outcome, why, wanted_s = self._post(client, body)
            if outcome == "sent":
                self.sent += len(batch)
                self._note_success()
                return
            self._note_failure(why)
            if outcome == "refused" or not left or self._ends.is_set():
                break
            jitter = 0.5 + random.random()  # noqa: S311 - it only spreads load
            self._ends.wait(min(LONGEST_PAUSE_S, wanted_s or pause_s * jitter))
            pause_s *= 2
        self._count_dropped(len(batch))

    def _post(self, client: Poster, body: bytes) -> tuple[Outcome, str, float | None]:
        """Return what became of a request, why, and how long the collector wants to be left alone."""
        import httpx

        try:
            reply = client.post(self.url, content=body, headers=self._headers)
        except httpx.HTTPError as error:
            return "again", type(error).__name__, None
        if reply.status_code // 100 == 2:
            return "sent", "", None
        asked = reply.headers.get("retry-after", "")
        wanted_s = float(asked) if asked.isascii() and asked.isdigit() else None
        outcome: Outcome = "again" if reply.status_code in AGAIN else "refused"
        return outcome, f"status {reply.status_code}", wanted_s

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            log.info("spans are sent to the collector again")

    def _note_failure(self, why: str) -> None:
        if not self._is_failing:
            self._is_failing = True
            log.warning(
                "the collector at %s takes no spans (%s): they are dropped if that lasts",
                self.url.rpartition("@")[2],
                why,
            )


def address_of_traces(endpoint: str) -> str:
    """Return the address for spans: `/v1/traces` is added to that of a collector."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/")
    return parts._replace(path=path if path.endswith(PATH) else path + PATH).geturl()
