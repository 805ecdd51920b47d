"""Test calls to providers: kept connections, TLS, proxies, limits, and retries by the route."""

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

import plain_http
from processes import mocking, models, run, serving

WHOLE = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}'
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(WHOLE),
    WHOLE,
)


@contextmanager
def listening(talk: Callable[[socket.socket, int], None]) -> Iterator[int]:
    """Start a server that hands each connection, and its number, to a thread. Yield the port."""
    server = socket.create_server(("127.0.0.1", 0))

    def run(connection: socket.socket, number: int) -> None:
        with connection:
            talk(connection, number)

    def accept() -> None:
        for number in itertools.count():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=run, args=(connection, number), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


@contextmanager
def scripted(*per_connection: list[bytes | None]) -> Iterator[tuple[int, list[int]]]:
    """Start a server whose nth connection answers its requests with these bytes; None closes it.
    Yield the port and the requests seen by each.
    """
    seen = [0] * 50

    def talk(connection: socket.socket, number: int) -> None:
        for answer in per_connection[min(number, len(per_connection) - 1)]:
            held = b""
            while b"\r\n\r\n" not in held:
                block = connection.recv(65536)
                if not block:
                    return
                held += block
            seen[number] += 1
            if answer is None:
                return
            connection.sendall(answer)

    with listening(talk) as port:
        yield port, seen


def test_connections_are_kept_and_a_stale_one_is_replaced(tmp_path: Path) -> None:
    with (
        scripted([REPLY, REPLY, None], [REPLY, REPLY]) as (port, seen),
        serving(tmp_path, settings=models(f"http://127.0.0.1:{port}/v1", "m")) as server,
    ):
        for _ in range(3):
            assert server.chat("m").status_code == 200
        assert seen[:3] == [
            3,
            1,
            0,
        ]  # the third request met the end of the first connection, and was sent again on a second


def test_a_fresh_connection_that_ends_is_no_stale_one(tmp_path: Path) -> None:
    with (
        scripted([None]) as (port, seen),
        serving(tmp_path, settings=models(f"http://127.0.0.1:{port}/v1", "m", retries=0)) as server,
    ):
        response = server.chat("m")
        assert response.status_code == 502
        assert response.json()["error"]["code"] == "provider_down"
        assert seen[:2] == [1, 0]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "provider_slow"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "provider_nonsense"),
        (b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"y" * 70_000 + b"\r\n\r\n", "provider_nonsense"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n[1,2,3]", "provider_nonsense"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"choices":[]}', "provider_nonsense"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + REPLY, ""),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + WHOLE, "provider_slow"),
    ],
)
def test_odd_servers(tmp_path: Path, answer: bytes, code: str) -> None:
    settings = {"first_byte": "1s", "between_bytes": "300ms"}
    with (
        scripted([answer, None]) as (port, _),
        serving(
            tmp_path, settings=models(f"http://127.0.0.1:{port}/v1", "m", connection=settings)
        ) as server,
    ):
        response = server.chat("m")
        assert (response.json()["error"]["code"] if response.status_code != 200 else "") == code


ODD_REPLIES = {
    "cut-400": b'HTTP/1.1 400 Bad\r\nContent-Length: 99\r\n\r\n{"error"',
    "cut-429": b'HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n{"error"',
    "held-401": b'HTTP/1.1 401 No\r\nContent-Length: 99\r\n\r\n{"error"',
    "compressed": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
    ),
    "two-replies": REPLY + b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n",
    "usual": REPLY,
}


def test_odd_replies_are_understood_as_they_are_meant(tmp_path: Path) -> None:
    done = threading.Event()

    def talk(connection: socket.socket, number: int) -> None:
        while request := whole_request(connection):
            name = next(name for name in ODD_REPLIES if f'"{name}"'.encode() in request)
            connection.sendall(ODD_REPLIES[name])
            if name.startswith("held"):
                done.wait(60)
            if name.startswith("cut"):
                return

    with listening(talk) as port:
        model = {"base_url": f"http://127.0.0.1:{port}/v1", "retries": 0}
        settings = {"models": dict.fromkeys(ODD_REPLIES, model)}
        with serving(tmp_path, settings=settings) as server:
            # the status of an error counts, also if its body is cut or never comes
            found = {name: server.chat(name) for name in ODD_REPLIES}
            done.set()
    codes = {name: (reply.status_code, code_of(reply)) for name, reply in found.items()}
    assert codes == {
        "cut-400": (400, "provider_refused"),
        "cut-429": (429, "provider_limit"),
        "held-401": (502, "provider_key"),
        "compressed": (502, "provider_nonsense"),
        "two-replies": (200, ""),
        "usual": (200, ""),
    }
    assert found["cut-429"].headers["retry-after"] == "7"
    assert "compressed" in found["compressed"].json()["error"]["message"]


def code_of(reply: httpx.Response) -> str:
    return "" if reply.status_code == 200 else str(reply.json()["error"]["code"])


def test_a_reply_without_a_length_ends_with_its_connection(tmp_path: Path) -> None:
    def talk(connection: socket.socket, number: int) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + WHOLE)

    with (
        listening(talk) as port,
        serving(tmp_path, settings=models(f"http://127.0.0.1:{port}/v1", "m")) as server,
    ):
        assert server.chat("m").json()["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("wrong", [b'data: {"cho\n\n', b'data: {"error":{"message":"no"}}\n\n'])
def test_words_before_an_event_that_is_wrong_are_kept_also_in_one_packet(
    tmp_path: Path, wrong: bytes
) -> None:
    words = b'data: {"choices":[{"index":0,"delta":{"content":"Ships float"}}]}\n\n'
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + words + wrong
    with (
        scripted([stream, None]) as (port, _),
        serving(tmp_path, settings=models(f"http://127.0.0.1:{port}/v1", "m")) as server,
    ):
        answer = server.chat("m", stream=True)
        assert answer.status_code == 200
        assert '"content":"Ships float"' in answer.text
        assert '"error":' in answer.text
        assert "[DONE]" not in answer.text


def test_more_calls_than_connections_wait_their_turn(tmp_path: Path) -> None:
    with (
        mocking(ttft_s=0.1) as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model", connection={"max": 2})) as server,
    ):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: server.chat("mock-model").status_code, range(8)))
        assert answers == [200] * 8


def test_requests_are_sent_upstream_correctly(tmp_path: Path) -> None:
    fields = {
        "api_key": "sk-ours",
        "name": "their-name",
        "headers": {"x-team": "ours"},
        "query": {"api-version": "2026-01"},
    }
    with (
        mocking() as mock,
        serving(tmp_path, settings=models(mock.url, "our-name", **fields)) as server,
    ):
        body = (
            '{"messages":[{"role":"user","content":"say \\"model\\" : \\u00e9"}],"model" : '
            '"our-name", "x_new": [1.50], "stream": true}'
        )
        headers = {
            "content-type": "application/json",
            "authorization": "Bearer of-the-client",
            "x-client": "1",
            "cookie": "a=b",
        }
        answer = plain_http.post(f"{server.url}/v1/chat/completions", content=body, headers=headers)
        assert answer.status_code == 200
        seen = mock.requests[-1]
    assert seen.path == "/v1/chat/completions?api-version=2026-01"
    assert seen.body["model"] == "their-name"
    assert seen.body["x_new"] == [1.5]
    assert seen.body["messages"][0]["content"] == 'say "model" : é'
    assert seen.body["stream_options"] == {"include_usage": True}
    assert seen.headers["x-team"] == "ours"
    assert "of-the-client" not in str(seen.headers)
    assert not {"x-client", "cookie"} & set(seen.headers)


def test_usage_is_not_asked_for_where_the_endpoint_refuses_it(tmp_path: Path) -> None:
    with (
        mocking() as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model", stream_usage=False)) as server,
    ):
        assert server.chat("mock-model", stream=True).status_code == 200
        assert "stream_options" not in mock.requests[-1].body
        assert (
            server.chat(
                "mock-model", stream=True, stream_options={"include_usage": True, "theirs": 1}
            ).status_code
            == 200
        )
        assert mock.requests[-1].body["stream_options"] == {"include_usage": True, "theirs": 1}


def test_tls_with_an_authority_of_ones_own_and_not_without(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    with mocking(tls_cert=certificate[0], tls_key=certificate[1]) as mock:
        url = f"https://localhost:{mock.port}/v1"
        settings = models(url, "mock-model", connection={"ca_file": str(certificate[0])})
        settings["models"]["untrusted"] = {"base_url": url, "name": "mock-model"}
        with serving(tmp_path, settings=settings) as server:
            assert server.chat("mock-model").status_code == 200
            assert server.chat("mock-model", stream=True).text.endswith("data: [DONE]\n\n")
            refused = server.chat("untrusted")
            assert refused.status_code == 502
            assert "certificate is not trusted" in refused.json()["error"]["message"]


def whole_request(connection: socket.socket) -> bytes:
    held = b""
    while b"\r\n\r\n" not in held:
        block = connection.recv(65536)
        if not block:
            return b""
        held += block
    head, _, body = held.partition(b"\r\n\r\n")
    length = next(
        (
            int(v)
            for k, _, v in (x.partition(b":") for x in head.split(b"\r\n"))
            if k.lower() == b"content-length"
        ),
        0,
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def proxy() -> Iterator[tuple[int, list[str]]]:
    """Start an HTTP proxy for plain requests that keeps what it was asked for."""
    asked: list[str] = []

    def talk(connection: socket.socket, number: int) -> None:
        held = whole_request(connection)
        line = held.split(b"\r\n", 1)[0].decode()
        asked.append(line)
        host, _, port = line.split(" ")[1].split("/")[2].partition(":")
        with socket.create_connection((host, int(port or 80))) as up:
            up.sendall(
                held.replace(f"http://{host}:{port}".encode(), b"", 1).replace(
                    b"\r\n", b"\r\nConnection: close\r\n", 1
                )
            )
            while block := up.recv(65536):
                connection.sendall(block)

    with listening(talk) as port:
        yield port, asked


def test_through_a_proxy(tmp_path: Path) -> None:
    with mocking() as mock, proxy() as (port, asked):
        through = {
            "connection": {
                "proxy": f"http://127.0.0.1:{port}",
                "first_byte": "1s",
                "between_bytes": "500ms",
            }
        }
        settings = models(
            mock.url,
            "mock-model",
            "fault-status-503",
            "fault-hang",
            "fault-stall-2",
            "fault-cut-2",
            **through,
        )
        with serving(tmp_path, settings=settings) as server:
            assert server.chat("mock-model").status_code == 200
            assert server.chat("mock-model", stream=True).text.endswith("data: [DONE]\n\n")
            assert server.chat("fault-status-503").json()["error"]["code"] == "provider_down"
            assert server.chat("fault-hang").json()["error"]["code"] == "provider_slow"
            assert '"code":"provider_slow"' in server.chat("fault-stall-2", stream=True).text
            assert '"code":"provider_cut"' in server.chat("fault-cut-2", stream=True).text
    assert asked[0].startswith(f"POST {mock.url}/chat/completions")


def test_connections_through_a_proxy_have_a_limit_too(tmp_path: Path) -> None:
    with mocking(ttft_s=1.0) as mock, proxy() as (port, _):
        through = {"proxy": f"http://127.0.0.1:{port}", "max": 1, "connect": "300ms"}
        with (
            serving(
                tmp_path, settings=models(mock.url, "m", retries=0, connection=through)
            ) as server,
            ThreadPoolExecutor(2) as pool,
        ):
            replies = list(pool.map(lambda _: server.chat("m"), range(2)))
    assert sorted(reply.status_code for reply in replies) == [200, 503]


def test_the_proxy_of_the_environment_is_not_used_for_loopback(tmp_path: Path) -> None:
    with (
        mocking() as mock,
        serving(
            tmp_path,
            settings=models(mock.url, "mock-model"),
            env={"HTTP_PROXY": "http://127.0.0.1:9"},
        ) as server,
    ):
        assert server.chat("mock-model").status_code == 200


def test_an_address_alone_is_asked_for_its_model(tmp_path: Path) -> None:
    with (
        mocking(models=("the-only-one",)) as mock,
        serving(tmp_path, "--model", mock.url) as server,
    ):
        assert server.chat("the-only-one").status_code == 200


def test_ask_in_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "tea.md").write_text(
        "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees.\n"
    )
    done = run(
        "ask", "--docs", "tea.md", "How", "hot", "is", "green", "tea", "brewed?", cwd=tmp_path
    )
    assert done.returncode == 0
    assert done.stdout.startswith("Green tea is brewed at 80 degrees. [1]")
    assert "[1] tea.md - Green tea" in done.stdout
    with mocking(text="It is 80 degrees [1].") as mock:
        done = run(
            "ask",
            "--docs",
            "tea.md",
            "--model",
            f"{mock.url}#m",
            "--json",
            "How hot is green tea brewed?",
            cwd=tmp_path,
        )
        assert '"served_by":"model"' in done.stdout
        with serving(tmp_path, "--docs", "tea.md", "--model", f"{mock.url}#m") as server:
            done = run("ask", "--url", server.url, "How hot is green tea brewed?", cwd=tmp_path)
            assert done.stdout.startswith("It is 80 degrees [1].")
            done = run("ask", "--url", server.url, "--app", "nope", "Hello?", cwd=tmp_path)
            assert done.returncode == 1
            assert "There is no model or app `nope`" in done.stderr
    assert (
        "nothing listens there"
        in run("ask", "--url", "http://127.0.0.1:9", "Hello?", cwd=tmp_path).stderr
    )
    assert "There is nothing to ask" in run("ask", "Hello?", cwd=tmp_path).stderr


def test_a_place_in_the_queue_is_not_lost_with_a_client_that_leaves(tmp_path: Path) -> None:
    settings = {"max": 1, "connect": "3s"}
    with (
        mocking(ttft_s=0.02) as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model", connection=settings)) as server,
    ):

        def ask(i: int) -> int:
            try:
                timeout = 0.05 if i % 2 else 20
                body = {"model": "mock-model", "messages": [{"role": "user", "content": "x"}]}
                return plain_http.post(
                    f"{server.url}/v1/chat/completions", json=body, timeout=timeout
                ).status_code
            except httpx.ReadTimeout:
                return 0

        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(ask, range(120)))
        assert set(answers[::2]) == {200}
        assert server.chat("mock-model").status_code == 200
        assert "slipway_answers_in_flight 0.0" in server.get("/metrics").text
