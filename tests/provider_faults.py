"""List what providers do wrong, and serve a model for each fault.

Each fault is met in three ways: the model is asked alone, it is the first of a route whose second
model (the backup) is well, and an app over documents uses that route. `alone` and `routed` are the
outcomes, as `chat_client.ChatReply.word` names them, that a client may see, streamed and whole. An
app has the outcomes of its route, but quotes its documents if no model answers (`app_word`).
"""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import plain_http
from processes import Serving, free_port, mocking, serving
from slipway.providers.mock import MockServer

Where = Literal["mock", "bad key", "refusing", "nowhere", "untrusted", "mute", "full"]
Target = Literal["alone", "routed", "app"]
TARGETS: tuple[Target, ...] = ("alone", "routed", "app")
TOKENS = 12
QUESTION = "How hot is green tea brewed?"
PAGE = "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees, for two minutes.\n"
BAD_KEY = "sk-no-longer-good"
TIMES = {
    "connect": "2s",
    "first_byte": "2s",
    "between_bytes": "2s",
    "first_token": "3s",
    "total": "5s",
}  # of a model whose fault is that it takes longer
PATIENT = dict.fromkeys(TIMES, "60s")
SLOWEST_S = 60.0  # no case may take longer: three tries of 5 s, two pauses, and a busy machine
Words = tuple[str, str]  # streamed, not; several that may be are parted by "|"

WHOLE = ("whole", "whole")
DOWN, LATE = ("error 502", "error 502"), ("error 504", "error 504")
LIMITED = ("error 429", "error 429")
BREAKS, GOES_ON = ("error event", "error 502"), ("continued", "whole")


class Fault(NamedTuple):
    """A fault of the model that the mock provider knows as `says`.

    At most `calls` are made to the model alone, and `with_backup` to a route with a backup. Four
    calls are three tries, and one more after a probe found that the model can be reached. The
    fault of a model that `is_slow` shows when a time limit ends.
    """

    name: str
    says: str = ""
    alone: Words = WHOLE
    routed: Words = WHOLE
    where: Where = "mock"
    calls: int = 4
    with_backup: int = 2
    is_slow: bool = False

    @property
    def slug(self) -> str:
        return "-".join("".join(c if c.isalnum() else " " for c in self.name).split())


FAULTS = (
    Fault("nothing", "m", calls=1, with_backup=1),
    # before a byte came
    Fault("connection refused", where="refusing", alone=DOWN),
    Fault("name that cannot be resolved", where="nowhere", alone=DOWN),
    Fault("certificate that nobody trusts", where="untrusted", alone=DOWN),
    Fault("connects, and TLS never comes", where="mute", alone=LATE, is_slow=True),
    Fault("never accepts", where="full", alone=LATE, is_slow=True),
    Fault("connection reset", "fault-reset", alone=DOWN),
    Fault("no first byte", "fault-hang", alone=LATE, is_slow=True),
    # statuses
    Fault("500", "fault-status-500", alone=DOWN),
    Fault("502", "fault-status-502", alone=DOWN),
    Fault("503", "fault-status-503", alone=DOWN),
    Fault("529", "fault-status-529", alone=DOWN),
    Fault("429", "fault-status-429", alone=LIMITED),
    Fault("429, Retry-After in seconds", "fault-status-429-1", alone=LIMITED),
    Fault("429, Retry-After as a date", "fault-statusdate-429-1", alone=LIMITED),
    Fault("429 storm", "fault-limit-0", alone=LIMITED),
    Fault("401 for one key", "m", where="bad key", alone=DOWN, calls=1),
    Fault("404", "fault-status-404", alone=("error 404", "error 404"), calls=1),
    Fault("redirect", "fault-redirect", alone=DOWN),
    Fault("context too long", "fault-context", alone=("error 400", "error 400"), calls=1),
    Fault(
        "refusal of content",
        "fault-policy",
        alone=("error 400", "error 400"),
        routed=("error 400", "error 400"),
        calls=1,
        with_backup=1,
    ),
    Fault(
        "400",
        "fault-status-400",
        alone=("error 400", "error 400"),
        routed=("error 400", "error 400"),
        calls=1,
        with_backup=1,
    ),
    # 200, and no answer
    Fault("200 and a web page", "fault-html", alone=DOWN),
    Fault("200 and an error", "fault-error200", alone=DOWN),
    Fault("200 and nothing", "fault-empty", alone=DOWN),
    # slow
    Fault("slow first byte", "fault-slow-0.4", calls=1, with_backup=1),
    Fault("drip, so that the first words are late", "fault-drip-20", alone=LATE, is_slow=True),
    Fault(
        "drip, so that the end is late",
        "fault-drip-2",
        alone=("error event", "whole"),
        routed=GOES_ON,
        is_slow=True,
    ),
    Fault(
        "stall",
        "fault-stall-5",
        alone=("error event", "error 504"),
        routed=GOES_ON,
        is_slow=True,
    ),
    # cut
    Fault("cut before the first token", "fault-cut-0", alone=DOWN),
    Fault("cut after five tokens", "fault-cut-5", alone=BREAKS, routed=GOES_ON),
    Fault("cut inside a character", "fault-cutchar-3", alone=BREAKS, routed=GOES_ON),
    Fault("cut after the last token", "fault-cut-99", alone=BREAKS, routed=GOES_ON),
    Fault(
        "cut after the finish reason", "fault-cutend", alone=BREAKS, routed=("error event", "whole")
    ),
    Fault("no [DONE]", "fault-nodone", calls=1, with_backup=1),
    # events that are wrong
    Fault("chunk that is no JSON", "fault-malformed-3", alone=BREAKS, routed=GOES_ON),
    Fault("error event before the first words", "fault-errorevent-0", alone=DOWN),
    Fault("error event in the middle", "fault-errorevent-3", alone=BREAKS, routed=GOES_ON),
    Fault("finish reason `error`", "fault-badfinish", alone=BREAKS, routed=GOES_ON),
    Fault("no finish reason", "fault-nofinish", alone=("error event", "error 502"), routed=GOES_ON),
    # odd, but well
    Fault("split at every byte", "fault-split-1", calls=1, with_backup=1),
    Fault("four events in one packet", "fault-packed-4", calls=1, with_backup=1),
    Fault("all events in one packet", "fault-packed-999", calls=1, with_backup=1),
    Fault("content filter", "fault-filter", calls=1, with_backup=1),
    Fault("another model's name", "fault-wrongmodel", calls=1, with_backup=1),
    Fault("no usage", "fault-nousage", calls=1, with_backup=1),
    # on and off
    Fault("flapping", "fault-flap-1", alone=("whole|error 502", "whole|error 502")),
)


class FaultCase(NamedTuple):
    """One question: which fault it meets, through which target, and how it is asked."""

    fault: Fault
    target: Target
    streamed: bool

    @property
    def name(self) -> str:
        return f"{self.fault.slug}.{self.target}.{'streamed' if self.streamed else 'whole'}"

    @property
    def words(self) -> set[str]:
        """Return the outcomes that a client may see."""
        if self.target == "app":
            return {app_word(self.fault, streamed=self.streamed)}
        return set(
            (self.fault.alone if self.target == "alone" else self.fault.routed)[
                0 if self.streamed else 1
            ].split("|")
        )

    @property
    def calls(self) -> int:
        return self.fault.calls if self.target == "alone" else self.fault.with_backup

    @property
    def asked(self) -> str:
        return f"{self.name}.first" if self.target == "alone" else f"{self.target}.{self.name}"

    @property
    def body(self) -> dict[str, Any]:
        """Return a request with the name of the case as `user`, so that the mock knows the case."""
        messages = [{"role": "user", "content": QUESTION}]
        return {
            "model": self.asked,
            "messages": messages,
            "stream": self.streamed,
            "user": self.name,
        }


FAULT_CASES = [
    FaultCase(fault, target, streamed)
    for fault in FAULTS
    for target in TARGETS
    for streamed in (True, False)
]


def app_word(fault: Fault, *, streamed: bool) -> str:
    """Return what a client of an app sees: an app always streams from its model, and quotes if no
    model answers.
    """
    word = fault.routed[0]
    if word == "error event":
        return word if streamed else "error 502"
    return "quote" if word.startswith("error") else word


class FaultServers(NamedTuple):
    """A server with all cases, the mock that they meet, and the addresses of those who are called
    directly.
    """

    server: Serving
    mock: MockServer
    urls: dict[Where, str]

    def received(self, case: FaultCase) -> list[Any]:
        return [
            seen.body
            for seen in list(self.mock.requests)
            if seen.body is not None and seen.body.get("user") == case.name
        ]

    def attempts(self) -> Counter[str]:
        """Return how many calls to models Slipway counts, by the case's name."""
        found = Counter[str]()
        for line in self.server.get("/metrics").text.splitlines():
            if line.startswith("slipway_attempts_total"):
                found[line.partition('model="')[2].partition('"')[0].rpartition(".")[0]] += round(
                    float(line.rpartition(" ")[2])
                )
        return found

    def truth(self, case: FaultCase) -> str:
        """Return the full text that answers this case's question."""
        asked = next(iter(self.received(case)), case.body) if case.target == "app" else case.body
        reported = plain_http.post(f"{self.mock.url}/truth", json={**asked, "model": "m"})
        return str(reported.raise_for_status().json()["text"])


@contextlib.contextmanager
def fault_servers(
    tmp_path: Path, certificate: tuple[Path, Path], *cases: FaultCase, **mock: Any
) -> Iterator[FaultServers]:
    """Start a server for all `cases`, each with its own models, so that no breaker is shared."""
    docs = tmp_path / "tea"
    docs.mkdir()
    (docs / "tea.md").write_text(PAGE)
    with contextlib.ExitStack() as stack:
        well = stack.enter_context(mocking(tokens=TOKENS, bad_keys=(BAD_KEY,), **mock))
        untrusted = stack.enter_context(mocking(tls_cert=certificate[0], tls_key=certificate[1]))
        urls: dict[Where, str] = {
            "mock": well.url,
            "bad key": well.url,
            "refusing": f"http://127.0.0.1:{free_port()}/v1",
            "nowhere": "http://nowhere.invalid/v1",
            "untrusted": f"https://localhost:{untrusted.port}/v1",
            "mute": f"https://localhost:{stack.enter_context(mute())}/v1",
            "full": f"http://127.0.0.1:{stack.enter_context(full())}/v1",
        }
        yield FaultServers(
            stack.enter_context(serving(tmp_path, settings=settings_of(urls, docs, cases))),
            well,
            urls,
        )


def settings_of(urls: dict[Where, str], docs: Path, cases: tuple[FaultCase, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {"embedding": "none", "models": {}, "routes": {}, "apps": {}}
    found["metrics"] = {"series": 200_000}  # calls are counted there, by model
    for case in cases:
        fault, first, backup, route = (
            case.fault,
            f"{case.name}.first",
            f"{case.name}.backup",
            f"routed.{case.name}",
        )
        model = {
            "base_url": urls[fault.where],
            "name": fault.says or "m",
            "connection": TIMES if fault.is_slow else PATIENT,
            "zone": "north",
        }
        found["models"][first] = model | ({"api_key": BAD_KEY} if fault.where == "bad key" else {})
        if case.target != "alone":
            found["models"][backup] = {
                "base_url": urls["mock"],
                "name": "m",
                "connection": PATIENT,
                "zone": "south",
            }
            found["routes"][route] = [first, {"model": backup, "role": "twin"}]
        if case.target == "app":
            found["apps"][f"app.{case.name}"] = {"route": route, "knowledge": [str(docs)]}
    return found


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """Open a port that accepts connections and never sends anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server:
        yield int(server.getsockname()[1])


@contextlib.contextmanager
def full() -> Iterator[int]:
    """Open a port whose queue is full, so that no connection is established."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        port = int(server.getsockname()[1])
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(("127.0.0.1", port))
        yield port
