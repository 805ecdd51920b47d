"""Test streams through nginx, to clients that disconnect, and while the server stops."""

import shutil
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

import plain_http
from processes import Serving, mocking, models, serving
from proxies import plain_nginx
from waiting import PATIENCE_S, until

BODY = {"model": "mock-model", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.skipif(
    shutil.which("nginx") is None,
    reason="nginx is not installed; `apt-get install nginx-light` brings it",
)
def test_each_chunk_leaves_nginx_as_soon_as_the_mock_sends_it(tmp_path: Path) -> None:
    with (
        mocking(tpot_s=0.03, tokens=30) as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model")) as server,
    ):
        with (
            plain_nginx(tmp_path, server.port) as port,
            plain_http.stream(
                "POST", f"http://127.0.0.1:{port}/v1/chat/completions", json=BODY
            ) as r,
        ):
            assert r.status_code == 200
            received = [time.monotonic() for line in r.iter_lines() if line.startswith("data: {")]
        sent = mock.requests[-1].sent
        delays = [got - when for got, when in zip(received, sent, strict=False)]
        assert len(received) >= 31
        assert statistics.median(delays) < server.at_once_s()
        assert received[0] < sent[-1], "nginx held nothing back until the end"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_takes_its_upstream_with_it(tmp_path: Path, stream: bool) -> None:
    with (
        mocking(ttft_s=0.05, tpot_s=0.02, tokens=400) as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model")) as server,
    ):
        took = list[float]()
        for _ in range(5):
            with plain_http.Client() as client:
                if stream:
                    with client.stream("POST", f"{server.url}/v1/chat/completions", json=BODY) as r:
                        next(r.iter_lines())
                        left_at = time.monotonic()
                else:
                    with pytest.raises(httpx.ReadTimeout):
                        client.post(
                            f"{server.url}/v1/chat/completions",
                            json={**BODY, "stream": False},
                            timeout=0.2,
                        )
                    left_at = time.monotonic()
            seen = mock.requests[-1]
            took.append((until(lambda seen=seen: seen.closed_at) or 0) - left_at)  # type: ignore[misc]
        assert min(took) < server.at_once_s()
        assert 'error="client_gone"' in server.get("/metrics").text
        assert "slipway_answers_in_flight 0.0" in server.get("/metrics").text


def test_an_app_asked_as_a_model_stops_with_its_client(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Hello\n\nHello says the world.\n")
    with mocking(tpot_s=0.02, tokens=400) as mock:
        settings = {
            **models(mock.url, "mock-model"),
            "apps": {"a": {"knowledge": str(tmp_path / "a.md"), "route": "mock-model"}},
        }
        with serving(tmp_path, settings=settings) as server:
            with plain_http.stream(
                "POST", f"{server.url}/v1/chat/completions", json={**BODY, "model": "a"}
            ) as r:
                next(r.iter_lines())
            until(lambda: mock.requests and mock.requests[-1].closed_at)


class Load:
    """Threads that ask until the server takes no more connections; an answer that began and did not
    end well is a cut.
    """

    def __init__(self, server: Serving) -> None:
        self.server, self.whole, self.cuts, self.stopping = server, 0, list[str](), False
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.work, args=(i % 2 == 0,)) for i in range(12)]

    def work(self, stream: bool) -> None:
        with plain_http.Client(timeout=PATIENCE_S) as client:
            while True:
                try:
                    response = client.post(
                        f"{self.server.url}/v1/chat/completions", json={**BODY, "stream": stream}
                    )
                except httpx.ConnectError:
                    return
                except httpx.TransportError as error:
                    with self.lock:
                        self.cuts.append(repr(error))
                    return
                ok = response.status_code == 200 and (
                    not stream or response.text.endswith("data: [DONE]\n\n")
                )
                with self.lock:
                    self.whole += ok
                    self.cuts += [] if ok else [response.text[-200:]]


def test_sigterm_under_load_cuts_no_answer(tmp_path: Path) -> None:
    with (
        mocking(ttft_s=0.02, tpot_s=0.01, tokens=60) as mock,
        serving(tmp_path, settings=models(mock.url, "mock-model")) as server,
    ):
        load = Load(server)
        for thread in load.threads:
            thread.start()
        until(lambda: load.whole >= 24)
        before = load.whole
        server.terminate()
        for thread in load.threads:
            thread.join(PATIENCE_S)
        assert server.process.wait(PATIENCE_S) == 0
        assert load.cuts == []
        assert load.whole > before > 0


def test_an_answer_that_outlives_the_grace_period_is_cut_with_an_error(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"listen": {"grace": "1s"}}
    with (
        mocking(tpot_s=0.05, tokens=400) as mock,
        serving(tmp_path, settings={**models(mock.url, "mock-model"), **settings}) as server,
    ):
        with plain_http.stream("POST", f"{server.url}/v1/chat/completions", json=BODY) as r:
            lines = []
            for line in r.iter_lines():
                lines.append(line)
                if len(lines) == 3:
                    server.terminate()
        assert server.process.wait(PATIENCE_S) == 0
        assert '"code":"stopping"' in lines[-2]
        assert "data: [DONE]" not in lines
        cut = f"answer {r.headers['x-slipway-answer-id']} was cut: the server stopped"
        assert cut in server.log
        assert "Traceback" not in server.log


def test_an_answer_being_written_is_finished_before_the_stop(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Hello\n\nHello says the world.\n")
    with mocking(tpot_s=0.02, tokens=80) as mock:
        settings = {
            **models(mock.url, "mock-model"),
            "apps": {"a": {"knowledge": str(tmp_path / "a.md"), "route": "mock-model"}},
        }
        with serving(tmp_path, settings=settings) as server:
            with plain_http.stream(
                "POST",
                f"{server.url}/v1/answers",
                json={"question": "Hello?", "stream": True},
                timeout=PATIENCE_S,
            ) as r:
                lines = []
                for line in r.iter_lines():
                    lines.append(line)
                    if len(lines) == 20:
                        server.terminate()
            assert "event: done" in lines
            assert server.process.wait(PATIENCE_S) == 0
