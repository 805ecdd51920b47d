"""What clients of all kinds send and expect: CORS, odd paths and keys, old endpoints, clean ends."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from uvicorn.server import ServerState

import plain_http
from processes import Serving, mocking, models, serving
from slipway.app.building import build
from slipway.settings import Settings
from slipway.web.connection import connection_class
from slipway.web.exchange import Exchange
from slipway.web.guard import Guard
from slipway.web.response_writer import Heartbeats, HttpResponseWriter
from waiting import PATIENCE_S, until

ORIGIN = "https://friend.example"
KEY, APP_KEY = "sw-key-of-tests", "sw-app-key-of-tests"
AUTH = {"authorization": f"Bearer {KEY}"}
HELLO = [{"role": "user", "content": "Hello"}]
REPLY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "docs").mkdir()
    (folder / "docs" / "leave.md").write_text("# Leave\n\nEveryone has 30 days of leave a year.\n")
    with mocking() as mock:
        settings = {
            **models(mock.url, "mock-model", "hidden"),
            "apps": {"docs": {"knowledge": ["./docs"]}},
            "keys": [KEY, {"key": APP_KEY, "apps": ["docs"]}],
            "listen": {"allowed_origins": [ORIGIN]},
            "limits": {"body_mb": 0.1, "header_kb": 8, "question_kb": 16},
            "embedding": "none",
        }
        with serving(folder, settings=settings) as server:
            yield server


@contextmanager
def recording(
    reply: dict[str, Any], headers: dict[str, str] | None = None
) -> Iterator[tuple[str, list[bytes]]]:
    """A provider that answers every call with `reply`, and the bodies that it received."""
    bodies = list[bytes]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            data = json.dumps(reply).encode()
            self.send_response(200)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{upstream.server_address[1]}/v1", bodies
    finally:
        upstream.shutdown()
        upstream.server_close()
        thread.join(PATIENCE_S)


def raw(server: Serving, data: bytes) -> bytes:
    """Send these bytes, and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(data)
        received = b""
        while block := s.recv(65536):
            received += block
        return received


def chat(server: Serving, **more: Any) -> httpx.Response:
    return server.post(
        "/v1/chat/completions", {"model": "mock-model", "messages": HELLO, **more}, headers=AUTH
    )


# Errors reach pages of other sites


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", "/v1/chat/completions", {}, b"{}", 401),
        ("POST", "/v1/chat/completions", {**AUTH, "content-type": "text/plain"}, b"{}", 415),
        ("POST", "/v1/chat/completions", {**AUTH, "content-type": "application/json"}, b"{", 400),
        (
            "POST",
            "/v1/chat/completions",
            {**AUTH, "content-type": "application/json"},
            b" " * 110_000,
            413,
        ),
        (
            "POST",
            "/v1/chat/completions",
            {**AUTH, "content-type": "application/json"},
            b'{"model": "none", "messages": [{"role": "user", "content": "x"}]}',
            404,
        ),
        ("GET", "/v1/nothing", AUTH, b"", 404),
        ("DELETE", "/v1/models", AUTH, b"", 405),
        ("GET", "/v1/answers/none", AUTH, b"", 404),
        ("GET", "/v1/models", {**AUTH, "x-filler": "x" * 9000}, b"", 431),
    ],
)
def test_every_error_has_cors_headers(
    server: Serving, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    with plain_http.Client() as client:
        response = client.request(
            method, server.url + path, headers={"origin": ORIGIN, **headers}, content=content
        )
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "error" in response.json()


def test_a_preflight_needs_no_key_and_a_strange_origin_gets_no_cors(server: Serving) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    allowed = plain_http.options(f"{server.url}/v1/answers", headers=asked)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, ORIGIN)
    strange = plain_http.options(
        f"{server.url}/v1/answers", headers={"origin": "https://x.example"}
    )
    assert strange.status_code == 403
    assert "access-control-allow-origin" not in strange.headers


# Requests that are not quite right


@pytest.mark.parametrize(
    "content",
    [
        b'{"model": "mock-model", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "mock-model", "messages": [{"role": "user", "content": "x"}], "user": "\xc3"}',
        b'{"model": "mock-\xff", "messages": []}',
        b'{"model": "mock-model", "\xff": 1, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
    ],
)
def test_bad_utf8_in_a_request_is_a_bad_request(server: Serving, content: bytes) -> None:
    headers = {**AUTH, "content-type": "application/json"}
    response = plain_http.post(
        f"{server.url}/v1/chat/completions", content=content, headers=headers
    )
    assert response.status_code in (400, 404), response.text
    assert response.json()["error"]["slipway"]["what"]


def test_stream_options_null_reaches_the_model_once(tmp_path: Path) -> None:
    with recording(REPLY) as (url, bodies), serving(tmp_path, settings=models(url, "m")) as server:
        server.chat("m", stream_options=None)
        with plain_http.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={"model": "m", "messages": HELLO, "stream": True, "stream_options": None},
        ) as response:
            response.read()
    assert [body.count(b'"stream_options"') for body in bodies[:2]] == [0, 1]


def test_a_wrong_method_names_the_right_ones(server: Serving) -> None:
    for path, allowed in (
        ("/v1/chat/completions", "POST"),
        ("/v1/documents", "GET, HEAD, POST"),
        ("/v1/models", "GET, HEAD"),
    ):
        with plain_http.Client() as client:
            response = client.delete(server.url + path, headers=AUTH)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("name", ["Host", "Authorization"])
def test_a_header_that_decides_who_is_asked_comes_once(server: Serving, name: str) -> None:
    data = (
        f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
        f"{name}: Bearer x\r\nConnection: close\r\n\r\n"
    )
    received = raw(server, data.encode())
    assert received.startswith(b"HTTP/1.1 400 ")
    assert f"several {name} headers" in received.decode()


def test_trailers_never_override_headers(server: Serving) -> None:
    data = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\n{}\r\n0\r\nAuthorization: Bearer " + KEY.encode() + b"\r\n\r\n"
    )
    assert raw(server, data).startswith(b"HTTP/1.1 401 ")


def test_upgrades_in_a_row_are_answered_without_one(server: Serving) -> None:
    upgrade = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as s:
        s.sendall(upgrade * 5000)
        assert s.recv(65536).startswith(b"HTTP/1.1 ")
    assert "RecursionError" not in server.log
    assert server.get("/healthz").status_code == 200


# What clients are used to


def test_paths_without_v1_and_with_a_slash(server: Serving) -> None:
    for path in ("/models", "/models/", "/v1/models/"):
        assert server.get(path, headers=AUTH).json()["object"] == "list"
    for path in ("/chat/completions", "/v1/chat/completions/"):
        response = server.post(path, {"model": "mock-model", "messages": HELLO}, headers=AUTH)
        assert response.json()["object"] == "chat.completion"


@pytest.mark.parametrize("name", ["x-api-key", "api-key"])
def test_other_headers_for_the_key(server: Serving, name: str) -> None:
    assert server.get("/v1/models", headers={name: KEY}).status_code == 200
    assert server.get("/v1/models", headers={name: "sw-another"}).status_code == 401
    both = {name: KEY, "authorization": "Bearer sw-another"}
    assert server.get("/v1/models", headers=both).status_code == 401


@pytest.mark.parametrize("model", ["mock-model", "docs"])
def test_the_older_completions(server: Serving, model: str) -> None:
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
    prompt = "How many days of leave are there?"
    whole = client.completions.create(model=model, prompt=prompt)
    assert whole.object == "text_completion"
    assert whole.choices[0].text
    assert whole.choices[0].finish_reason == "stop"
    parts = list(client.completions.create(model=model, prompt=prompt, stream=True))
    assert "".join(part.choices[0].text for part in parts if part.choices) == whole.choices[0].text


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
    ],
)
def test_completions_that_have_no_chat_form_are_refused(
    server: Serving, more: dict[str, Any], param: str
) -> None:
    response = server.post("/v1/completions", {"model": "mock-model", **more}, headers=AUTH)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_what_an_app_cannot_honour_is_refused(server: Serving) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    for field, value in (
        ("tools", [tool]),
        ("n", 2),
        ("logprobs", True),
        ("response_format", {"type": "json_object"}),
    ):
        response = chat(server, **{"model": "docs", field: value})
        assert (response.status_code, response.json()["error"]["param"]) == (400, field)
    assert chat(server, model="docs", response_format={"type": "text"}).status_code == 200


def test_an_app_never_quotes_where_json_was_asked(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "leave.md").write_text(
        "# Leave\n\nEveryone has 30 days of leave a year.\n"
    )
    settings = {
        **models("http://127.0.0.1:9/v1", "m", retries=0),
        "apps": {"docs": {"knowledge": ["./docs"], "route": "m"}},
        "embedding": "none",
    }
    question = [{"role": "user", "content": "How many days of leave are there?"}]
    with serving(tmp_path, settings=settings) as server:
        body: dict[str, Any] = {"model": "docs", "messages": question}
        assert server.post("/v1/chat/completions", body).status_code == 200
        body["response_format"] = {"type": "json_object"}
        response = server.post("/v1/chat/completions", body)
    assert response.json()["error"]["code"] == "provider_down"


def test_the_providers_limits_are_passed_on(tmp_path: Path) -> None:
    limits = {"x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-tokens": "6m0s"}
    with (
        recording(REPLY, {**limits, "x-internal": "1"}) as (url, _),
        serving(tmp_path, settings=models(url, "m")) as server,
    ):
        headers = server.chat("m").headers
    assert {name: headers.get(name) for name in limits} == limits
    assert "x-internal" not in headers


# Names are no oracle


def test_a_name_of_others_looks_like_none(server: Serving) -> None:
    headers = {"authorization": f"Bearer {APP_KEY}"}
    for path in ("/v1/chat/completions", "/v1/answers"):
        answers = []
        for name in ("hidden", "absent"):
            body = {"messages": HELLO, "model": name, "app": name}
            body.pop("app" if "chat" in path else "model")
            answers.append(server.post(path, body, headers=headers))
        hidden, absent = answers
        assert (hidden.status_code, absent.status_code) == (404, 404)
        assert (
            hidden.json()["error"]["message"].replace("hidden", "absent")
            == (absent.json()["error"]["message"])
        )
    assert server.get("/v1/models/hidden", headers=headers).status_code == 404


def test_a_limited_key_sees_the_metrics_of_its_names_only(server: Serving) -> None:
    chat(server)
    chat(server, model="docs")
    all_of_them = server.get("/metrics", headers=AUTH).text
    assert 'app="mock-model"' in all_of_them
    its_own = server.get("/metrics", headers={"authorization": f"Bearer {APP_KEY}"}).text
    assert 'app="docs"' in its_own
    assert "mock-model" not in its_own
    assert "hidden" not in its_own


# Ends


def test_sigterm_counts_its_grace_once_and_tells_every_stream(tmp_path: Path) -> None:
    with mocking(ttft_s=0.0, tpot_s=0.2) as mock:
        settings = {
            **models(mock.url, "say-1000"),
            "apps": {"app": {"route": "say-1000"}},
            "listen": {"grace": "2s"},
        }
        with serving(tmp_path, settings=settings) as server:
            texts = dict[str, str]()

            def read(name: str, path: str, body: dict[str, Any]) -> None:
                with plain_http.stream(
                    "POST", server.url + path, json=body, timeout=PATIENCE_S
                ) as response:
                    for text in response.iter_text():
                        texts[name] = texts.get(name, "") + text

            bodies: dict[str, tuple[str, dict[str, Any]]] = {
                "route": ("/v1/chat/completions", {"model": "say-1000", "messages": HELLO}),
                "chat": ("/v1/chat/completions", {"model": "app", "messages": HELLO}),
                "answers": ("/v1/answers", {"app": "app", "question": "Hello"}),
            }
            threads = [
                threading.Thread(target=read, args=(name, path, {**body, "stream": True}))
                for name, (path, body) in bodies.items()
            ]
            for thread in threads:
                thread.start()
            until(lambda: len(texts) == 3)
            began_at = time.monotonic()
            server.terminate()
            server.process.wait(PATIENCE_S)
            took_s = time.monotonic() - began_at
            for thread in threads:
                thread.join(PATIENCE_S)
            for name, text in texts.items():
                assert '"code":"stopping"' in text, (name, text[-300:])
                assert "[DONE]" not in text
            assert 2 <= took_s < 3.9, took_s


def test_a_defect_in_mid_stream_ends_with_an_error_event() -> None:
    """The guard, with a handler that fails after its first event."""

    async def broken(exchange: Exchange) -> None:
        writer = exchange.writer = HttpResponseWriter(exchange, "ans-1", Heartbeats())
        writer.begin()
        await writer.write(b"data: {}\n\n")
        raise RuntimeError("a defect")

    app = build(Settings())
    guard = Guard(app.current, {"/broken": broken}, app.rest, app.sealer)
    received = asyncio.run(served(guard, b"POST /broken HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    assert received.count(b"HTTP/1.1 200 OK") == 1
    assert b'"code":"internal_error"' in received
    assert received.endswith(b"\r\n0\r\n\r\n")


async def served(guard: Guard, request: bytes) -> bytes:
    """Send a request to a guard over a real connection; return what comes back until its end."""
    connections = connection_class(guard.current, guard)
    state, loop = ServerState(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: connections(None, state, {}), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(request)
    received = await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    server.close()
    return received


# Limits of connections


def test_probes_are_answered_above_the_limit_of_connections(tmp_path: Path) -> None:
    settings = {"limits": {"connections": 20}, **models("http://127.0.0.1:9/v1", "m")}
    with serving(tmp_path, settings=settings) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(25)]
        try:
            until(lambda: probe(server, "/healthz") == 200)
            assert probe(server, "/readyz") in (200, 503)
            refused = plain_http.get(f"{server.url}/v1/models")
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "overloaded"
        finally:
            for each in held:
                each.close()


def probe(server: Serving, path: str) -> int:
    return plain_http.get(server.url + path).status_code
