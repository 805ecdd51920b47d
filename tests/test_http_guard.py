"""Test which requests the server accepts, and how it rejects the others before an app sees them."""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import plain_http
from processes import Serving, mocking, models, serving
from slipway.web.exchange import Exchange, OldExchange
from slipway.web.response_writer import Heartbeats, HttpResponseWriter
from waiting import PATIENCE_S, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with mocking() as mock:
        settings = models(mock.url, "mock-model", "say-60000")
        settings["limits"] = {
            "body_mb": 0.01,
            "header_kb": 8,
            "connections": 40,
            "head_timeout": "1s",
            "slow_reader": "1s",
        }
        settings["listen"] = {"allowed_origins": ["https://friend.example"]}
        with serving(tmp_path_factory.mktemp("guard"), settings=settings) as server:
            yield server


def raw(server: Serving, data: bytes, wait_s: float = PATIENCE_S) -> bytes:
    """Send these bytes; return what comes back until the server closes or falls silent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=wait_s) as s:
        s.sendall(data)
        received = b""
        try:
            while block := s.recv(65536):
                received += block
                if b"\r\n\r\n" in received and b"connection: close" not in received.lower():
                    break
        except (TimeoutError, ConnectionResetError):
            pass
        return received


def error(response: httpx.Response) -> dict[str, str]:
    found: dict[str, str] = response.json()["error"]
    return found


@pytest.mark.parametrize(
    ("content", "headers", "status", "says"),
    [
        (b"", {}, 400, "The body is empty"),
        (b"{", {}, 400, "not valid JSON"),
        (b'{"messages": [}', {}, 400, "not valid JSON"),
        (b"[1, 2]", {}, 400, "must be an object, not a list"),
        (b"\xff\xfe\x00", {}, 400, "not valid JSON"),
        (b'{"a":' * 4000, {}, 413, "larger than 0.01 MiB"),
        (b'{"messages":[{"role":"user","content":' + b"[" * 4000, {}, 400, "nested too deeply"),
        (b"x" * 20000, {}, 413, "larger than 0.01 MiB"),
        (b"model=x", {"content-type": "application/x-www-form-urlencoded"}, 415, "must be JSON"),
        (b"{}", {"content-type": "text/plain"}, 415, "Content-Type: application/json"),
        (gzip.compress(b"{}", mtime=0), {"content-encoding": "gzip"}, 400, "not valid JSON"),
    ],
)
def test_bodies_that_cannot_be_read(
    server: Serving, content: bytes, headers: dict[str, str], status: int, says: str
) -> None:
    for path in ("/v1/chat/completions", "/v1/answers"):
        response = plain_http.post(
            server.url + path,
            content=content,
            headers={"content-type": "application/json", **headers},
        )
        assert response.status_code == status
        assert says in error(response)["message"]


def test_a_chunked_body_over_the_limit_is_refused_before_it_is_read_whole(server: Serving) -> None:
    response = plain_http.post(
        server.url + "/v1/chat/completions",
        content=(b"x" * 4096 for _ in range(100)),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 413


def test_unknown_routes_name_those_that_exist(server: Serving) -> None:
    response = server.get("/v1/completion")
    assert response.status_code == 404
    assert "POST /v1/chat/completions" in error(response)["message"]
    response = server.get("/v1/chat/completions")
    assert response.status_code == 405
    assert "Use POST" in error(response)["message"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::1].evil.example"]
)
def test_other_host_names_are_refused(server: Serving, host: str) -> None:
    response = server.get("/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert "allowed_hosts" in error(response)["message"]


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:99", "LOCALHOST"])
def test_loopback_names_enter(server: Serving, host: str) -> None:
    assert server.get("/v1/models", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_pages_of_other_sites_are_refused(server: Serving, headers: dict[str, str]) -> None:
    response = server.post("/v1/answers", {"question": "x", "app": "mock-model"}, headers=headers)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers


def test_a_friends_page_may_call(server: Serving) -> None:
    headers = {"origin": "https://friend.example", "sec-fetch-site": "cross-site"}
    preflight = plain_http.options(
        server.url + "/v1/chat/completions",
        headers={**headers, "access-control-request-headers": "authorization"},
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "https://friend.example"
    answer = server.post(
        "/v1/chat/completions",
        {"model": "mock-model", "messages": [{"role": "user", "content": "x"}]},
        headers=headers,
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://friend.example"


def test_a_link_to_the_page_may_be_followed(server: Serving) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert server.get("/", headers=headers).status_code == 200
    assert server.get("/v1/models", headers=headers).status_code == 403


def test_not_http(server: Serving) -> None:
    assert b" 400 " in raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello\r\n\r\n")


def test_a_large_head_is_refused(server: Serving) -> None:
    said = raw(
        server,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n"
        + b"".join(b"X-%d: %s\r\n" % (i, b"y" * 500) for i in range(40))
        + b"\r\n",
    )
    assert b" 431 " in said
    assert b"larger than 8 KiB" in said


def test_a_slow_head_is_ended(server: Serving) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(b"GET / HT")
        started = time.monotonic()
        assert s.recv(1000) == b""
        assert time.monotonic() - started > 0.9


def test_a_reader_that_does_not_read_is_dropped(server: Serving) -> None:
    body = json.dumps(
        {"model": "say-60000", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    ).encode()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        b"application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        s.sendall(head + body)
        until(lambda: "did not read its answer" in server.log)


def test_too_many_connections_get_a_503(server: Serving) -> None:
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(45)]
    try:
        request = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
        until(lambda: b" 503 " in raw(server, request))
        assert b"overloaded" in raw(server, request)
    finally:
        for s in held:
            s.close()
    until(lambda: server.get("/healthz").status_code == 200)


def test_an_upgrade_is_declined_and_the_request_answered(server: Serving) -> None:
    body = b'{"model": "mock-model", "messages": [{"role": "user", "content": "x"}]}'
    upgrade = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: "
        b"AAMAAABkAARAAAAA\r\n"
    )
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
        b"application/json\r\nContent-Length: %d\r\n" % len(body)
    )
    for split in (len(head), len(head + upgrade) + 2, len(head + upgrade) + 20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
            request = head + upgrade + b"\r\n" + body
            s.sendall(request[:split])
            time.sleep(0.05)
            s.sendall(request[split:])
            assert s.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_pipelined_requests_are_answered_in_order(server: Serving) -> None:
    one = b"GET /v1/models/mock-model HTTP/1.1\r\nHost: localhost\r\n\r\n"
    two = b"GET /v1/models/say-60000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(one + two)
        received = b""
        while block := s.recv(65536):
            received += block
    assert received.index(b'"mock-model"') < received.index(b'"say-60000"')


def test_a_body_that_comes_after_the_answer_is_not_answered_again(server: Serving) -> None:
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
    last = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        received = b""
        for _ in range(3):
            s.sendall(head)
            received += s.recv(65536)
            s.sendall(b"{}")
        s.sendall(last)
        while block := s.recv(65536):
            received += block
    assert received.count(b"HTTP/1.1 404 ") == 3
    assert received.count(b"HTTP/1.1 200 ") == 1


def test_health_and_metrics(server: Serving) -> None:
    assert server.get("/healthz").json() == {"status": "ok"}
    assert server.get("/readyz").json()["status"] == "ready"
    server.chat("mock-model")
    server.post(
        "/v1/chat/completions",
        {"model": "mock-model", "stream": True, "messages": [{"role": "user", "content": "x"}]},
    )
    text = server.get("/metrics").text
    assert (
        'slipway_answers_total{app="mock-model",error="",model="mock-model",served_by="model"}'
        in text
    )
    assert (
        'gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="mock-model"'
        in text
    )
    assert "slipway_answers_in_flight 0.0" in text


def test_a_public_address_needs_the_key_for_everything_but_health(tmp_path: Path) -> None:
    with serving(
        tmp_path,
        settings={
            **models("http://127.0.0.1:9/v1", "m"),
            "listen": {"host": "0.0.0.0"},
            "keys": [{"key": "abcdefgh1"}],
        },
    ) as server:
        for path in ("/v1/models", "/metrics", "/v1/passages/x", "/v1/answers/x"):
            response = server.get(path)
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"] == "Bearer"
        for path in ("/healthz", "/", "/static/page.css"):
            assert server.get(path).status_code == 200, path
        assert (
            server.get("/v1/models", headers={"authorization": "Bearer abcdefgh1"}).status_code
            == 200
        )


def test_readyz_names_apps_only_to_valid_keys(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A\n\nText.\n")
    settings = {
        "apps": {"secret-project": {"knowledge": str(tmp_path / "a.md")}},
        "keys": [{"key": "abcdefgh1"}],
    }
    with serving(tmp_path, settings=settings) as server:
        assert "secret-project" not in server.get("/readyz").text
        assert (
            "secret-project"
            in server.get("/readyz", headers={"authorization": "Bearer abcdefgh1"}).text
        )


def test_static_files_are_sent_once(server: Serving) -> None:
    first = server.get("/static/page.css")
    assert (
        server.get("/static/page.css", headers={"if-none-match": first.headers["etag"]}).status_code
        == 304
    )
    assert server.get("/static/../page.css").status_code == 404
    assert server.get("/static/nothing.css").status_code == 404


def test_a_client_of_http_1_0_gets_a_stream_without_chunks(server: Serving) -> None:
    body = b'{"model":"mock-model","stream":true,"messages":[{"role":"user","content":"Hi"}]}'
    head = (
        b"POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json"
    )
    got = raw(server, head + b"\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    head, _, sent = got.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"connection: close" in head.lower()
    assert b"transfer-encoding" not in head.lower()
    assert sent.startswith(b"data: {")
    assert sent.endswith(b"data: [DONE]\n\n")


class HeldTransport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def close(self) -> None:
        raise AssertionError("this connection is kept")


class IdleLink:
    """The connection of an exchange."""

    write_paused = False

    def exchange_ended(self) -> None: ...


@pytest.mark.parametrize("kind", [Exchange, OldExchange])
def test_a_heartbeat_after_the_end_of_a_response_sends_nothing(kind: type[Exchange]) -> None:
    transport = HeldTransport()
    exchange = kind(IdleLink(), transport, "POST", b"/", [], keep_alive=True)  # type: ignore[arg-type]
    writer = HttpResponseWriter(exchange, "ans-1", Heartbeats())
    exchange.respond(b"HTTP/1.1 502 Bad Gateway\r\n", b"{}")  # by the guard: the answer failed
    sent = transport.sent
    asyncio.run(writer.beat())  # it was on its way already
    assert transport.sent == sent
