"""Test that work for a client ends at once if the client disconnects, at any stage."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from processes import Serving, mocking, serving
from slipway.providers.mock import MockServer
from waiting import PATIENCE_S, until

ROUNDS = 3
PATIENT = {"connect": "90s", "first_byte": "90s", "between_bytes": "90s", "first_token": "90s"}


class Stage(NamedTuple):
    """`says` are the models of the route at the mock; the client leaves once the mock has so many
    `calls` and has `sent` so much of the last.
    """

    says: tuple[str, ...]
    calls: int = 1
    sent: int = 0
    streams_only: bool = False


STAGES = {
    "before the first byte": Stage(("fault-hang",)),
    "in the middle": Stage(("fault-stall-5",), sent=6),
    "before another model goes on": Stage(
        ("fault-cut-5", "fault-hang"), calls=2, streams_only=True
    ),
    "while another model goes on": Stage(
        ("fault-cut-5", "fault-stall-3"), calls=2, sent=4, streams_only=True
    ),
    "while a failover waits": Stage(("fault-status-503", "fault-hang"), calls=2),
    "while it waits for another try": Stage(("fault-status-429-20",)),
}
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def asking(server: Serving, stream: bool, name: str = "r0") -> socket.socket:
    """Connect a client that sends its question and reads nothing."""
    body = json.dumps(
        {"model": name, "stream": stream, "messages": [{"role": "user", "content": "Hello"}]}
    ).encode()
    client = socket.create_connection(("127.0.0.1", server.port))
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: "
        f"application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body)
    return client


def in_flight(server: Serving, count: int) -> bool:
    return f"slipway_answers_in_flight {count}.0" in server.get("/metrics").text


@contextlib.contextmanager
def route(tmp_path: Path, url: str, *says: str, **more: Any) -> Iterator[Serving]:
    """Routes `r0` to `r2` over models of their own, so that no breaker is opened by the third
    failure in a row.
    """
    models, routes = dict[str, Any](), dict[str, list[str]]()
    for round_ in range(ROUNDS):
        routes[f"r{round_}"] = [f"m{round_}{n}" for n in range(len(says))]
        models |= {
            f"m{round_}{n}": {"base_url": url, "name": name, "connection": PATIENT, **more}
            for n, name in enumerate(says)
        }
    with serving(tmp_path, settings={"models": models, "routes": routes}) as server:
        yield server


@STREAMED
@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_client_leaves(tmp_path: Path, stage: Stage, stream: bool) -> None:
    if stage.streams_only and not stream:
        stage = Stage(
            stage.says, calls=2
        )  # an answer that is not streamed has shown nothing, and the next model starts from the beginning
    ended, closed = list[float](), list[float]()
    with mocking() as mock, route(tmp_path, mock.url, *stage.says) as server:
        for round_ in range(ROUNDS):
            calls = (round_ + 1) * stage.calls
            client = asking(server, stream, f"r{round_}")
            until(lambda calls=calls: is_there(mock, calls, stage.sent if stream else 0))  # type: ignore[misc]
            time.sleep(0.05)
            client.close()
            left_at = time.monotonic()
            until(lambda: in_flight(server, 0))
            ended.append(time.monotonic() - left_at)
            if not any("429" in name for name in stage.says):
                closed.append(until(lambda: mock.requests[-1].closed_at or 0) - left_at)
            assert len(mock.requests) == calls
        limit_s = server.at_once_s()
        assert min(ended) < limit_s
        assert not closed or min(closed) < limit_s
        assert server.get("/readyz").status_code == 200
        assert "Traceback" not in server.log


def is_there(mock: MockServer, calls: int, sent: int) -> bool:
    return len(mock.requests) == calls and len(mock.requests[-1].sent) >= sent


@STREAMED
def test_a_client_leaves_while_a_connection_is_made(tmp_path: Path, stream: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        ended_at = list[float]()

        def watch() -> None:
            connection, _ = upstream.accept()
            with connection:
                while connection.recv(65536):
                    pass
                ended_at.append(time.monotonic())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        with route(tmp_path, f"https://localhost:{upstream.getsockname()[1]}/v1", "m") as server:
            client = asking(server, stream)
            until(lambda: in_flight(server, 1))
            time.sleep(0.1)
            client.close()
            left_at = time.monotonic()
            until(lambda: in_flight(server, 0))
            gone_s = time.monotonic() - left_at
            thread.join(PATIENCE_S)
            limit_s = 2 * server.at_once_s()
            assert gone_s < limit_s
            assert ended_at[0] - left_at < limit_s


@STREAMED
def test_a_client_leaves_the_queue_of_a_busy_model(tmp_path: Path, stream: bool) -> None:
    with (
        mocking() as mock,
        route(tmp_path, mock.url, "fault-hang", at_once=1, wait="90s") as server,
    ):
        first = asking(server, stream)
        until(lambda: len(mock.requests) == 1)
        second, third = asking(server, stream), asking(server, stream)
        until(lambda: in_flight(server, 3))
        second.close()
        left_at = time.monotonic()
        until(lambda: in_flight(server, 2))
        assert time.monotonic() - left_at < 2 * server.at_once_s()
        assert len(mock.requests) == 1
        first.close()
        until(lambda: len(mock.requests) == 2)  # the turn of the one that stayed
        third.close()
        until(lambda: in_flight(server, 0))
        asking(server, stream).close()
        assert len(mock.requests) >= 2
