"""Canaries: strings in everything that people and providers send, which no log, metric, trace or span
may hold.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

import plain_http
from collector import Collector, collecting
from processes import Serving, mocking, serving
from waiting import until

MARK = "canary7f3a"
KEY, OTHER_KEY = f"sw-key-{MARK}", f"sw-other-{MARK}"
WHO = {"authorization": f"Bearer {KEY}"}


def canary(what: str) -> str:
    return f"{what}{MARK}"


@contextmanager
def echoing() -> Iterator[str]:
    """Run a provider that sends back what it was sent, in errors of every kind."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status = int(self.path.split("/")[1])
            message = f"I cannot answer {body} with {self.headers['authorization']}"
            error = {"message": message, "code": canary("code"), "type": canary("type")}
            sent = json.dumps({"error": error}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.send_header("x-ratelimit-reset", canary("header"))
            self.end_headers()
            self.wfile.write(sent)

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


STATUSES = (200, 400, 401, 403, 404, 422, 429, 500, 503)


class Site(NamedTuple):
    """A server with everything that is watched, and what it sends elsewhere."""

    server: Serving
    collector: Collector
    mock: Any
    folder: Path

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.server.post(path, body, headers={**WHO, **more})

    def chat(self, model: str, text: str, **more: Any) -> httpx.Response:
        messages = [
            {"role": "system", "content": canary("system")},
            {"role": "user", "content": text, "name": canary("name")},
        ]
        return self.post("/v1/chat/completions", {"model": model, "messages": messages, **more})


@contextmanager
def site(folder: Path, *, content: bool) -> Iterator[Site]:
    docs = folder / "docs"
    docs.mkdir()
    (docs / f"{canary('file')}.md").write_text(
        f"# Leave {canary('heading')}\n\nEveryone has 30 days of leave {canary('document')}.\n"
    )
    with mocking() as mock, echoing() as echo, collecting() as collector:
        models: dict[str, Any] = {
            f"echo{status}": {
                "base_url": f"{echo}/{status}/v1",
                "api_key": f"sk-{canary('upstream')}",
                "retries": 0,
            }
            for status in STATUSES
        }
        models["m"] = {
            "base_url": mock.url,
            "name": "mock-model",
            "api_key": f"sk-{canary('upstream')}",
            "headers": {"x-more": canary("header")},
        }
        app = {"knowledge": [str(docs)], "instructions": canary("instructions"), "cache": "1h"}
        settings = {
            "models": models,
            "apps": {"docs": {**app, "route": "m"}, "failing": {**app, "route": "echo500"}},
            "keys": [
                {"key": KEY, "documents": True, "admin": True},
                {"key": OTHER_KEY, "limits": {"rpm": 1}},
            ],
            "embedding": "none",
            "log": {"format": "json", "content": content},
            "otlp": {
                "endpoint": collector.url,
                "headers": {"authorization": f"Bearer {canary('collector')}"},
            },
        }
        with serving(folder, settings=settings) as server:
            yield Site(server, collector, mock, folder)


def use_everything(site: Site) -> list[str]:
    """Send canaries wherever something can be sent; return the ids of answers."""
    server, replies = site.server, list[httpx.Response]()
    for stream in (False, True):
        replies.append(site.chat("m", canary("prompt"), stream=stream, user=canary("user")))
        for status in STATUSES:
            replies.append(site.chat(f"echo{status}", canary("prompt"), stream=stream))
    tool = {
        "type": "function",
        "function": {"name": canary("tool"), "description": canary("described")},
    }
    call = {
        "id": canary("call"),
        "type": "function",
        "function": {"name": canary("tool"), "arguments": canary("arguments")},
    }
    turns = [
        {"role": "user", "content": canary("prompt")},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": canary("call"), "content": canary("result")},
    ]
    body = {"model": "m", "messages": turns, "tools": [tool]}
    replies.append(site.post("/v1/chat/completions", body))
    replies.append(site.post("/v1/completions", {"model": "m", "prompt": canary("prompt")}))

    file = (f"{canary('name')}.md", f"# Trip\n\nThe trip is on {canary('attached')}.\n".encode())
    attached = plain_http.post(
        f"{server.url}/v1/attachments", headers=WHO, files={"file": file}, timeout=60
    ).json()
    question = f"How many days of leave, {canary('question')}?"
    for app in ("docs", "docs", "docs", "failing"):
        for stream in (False, True):
            asked = {"question": question, "app": app, "stream": stream}
            replies.append(site.post("/v1/answers", asked))
    with_file: dict[str, Any] = {"question": question, "app": "docs"}
    with_file["attachments"] = [attached["id"]]
    replies.append(site.post("/v1/answers", with_file))
    history = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": canary("turn")},
        {"role": "user", "content": f"And for {canary('follow')}?"},
    ]
    replies.append(site.post("/v1/answers", {"messages": history, "app": "docs"}))

    ref = next(r for r in reversed(replies) if r.status_code == 200).headers["x-slipway-answer-id"]
    said: dict[str, Any] = {
        "answer": ref,
        "helpful": False,
        "comment": canary("comment"),
        "reasons": ["wrong"],
    }
    voted = site.post("/v1/feedback", said)
    assert voted.is_success, voted.text
    server.get(f"/v1/conversations?q={canary('words')}", headers=WHO)
    # what is refused
    server.post("/v1/chat/completions", {}, headers={"authorization": f"Bearer {canary('wrong')}"})
    site.chat(canary("model"), canary("prompt"))
    site.post("/v1/answers", {canary("field"): canary("value")})
    plain_http.post(
        f"{server.url}/v1/answers",
        content=f'{{"question": "{canary("broken")}'.encode(),
        headers={**WHO, "content-type": "application/json"},
        timeout=60,
    )
    for _ in range(3):
        server.post(
            "/v1/chat/completions",
            {"model": "m", "messages": [{"role": "user", "content": canary("limited")}]},
            headers={"authorization": f"Bearer {OTHER_KEY}"},
        )
    site.chat("m", canary("prompt"), traceparent=canary("trace"))
    found = (r.headers.get("x-slipway-answer-id") for r in replies)
    return [each for each in found if each]


def requests_in(log: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["kind"] == "request"]


def wait_for_all(site: Site, refs: list[str]) -> None:
    """Wait until everything has been logged, kept and sent."""
    assert until(lambda: {r["id"] for r in requests_in(site.server.log)} >= set(refs))
    site.collector.of(refs[-1])


def watched(site: Site, refs: list[str]) -> dict[str, str]:
    """Return all that is written about answers, by where it is."""
    server = site.server
    traces = [server.get(f"/v1/traces/{ref}", headers=WHO) for ref in refs]
    assert all(each.status_code == 200 for each in traces)
    files = [each.read_bytes() for each in (site.folder / ".slipway" / "traces").iterdir()]
    openmetrics = {**WHO, "accept": "application/openmetrics-text"}
    return {
        "the log": server.log,
        "the metrics": server.get("/metrics", headers=WHO).text,
        "the metrics as OpenMetrics": server.get("/metrics", headers=openmetrics).text,
        "the state": server.get("/readyz", headers=WHO).text,
        "the list of traces": server.get("/v1/traces?limit=1000", headers=WHO).text,
        "the traces": "".join(each.text for each in traces),
        "the files of traces": b"".join(files).decode("latin-1"),
        "the spans": b"".join(site.collector.bodies).decode("latin-1"),
    }


def leaks(text: str) -> set[str]:
    """Return the lines, or the pieces, with a canary."""
    return {
        text[max(0, at - 120) : at + 40].replace("\n", " ")
        for at in range(len(text))
        if text.startswith(MARK, at)
    }


def test_no_canary_is_in_a_log_a_metric_a_trace_or_a_span(tmp_path: Path) -> None:
    with site(tmp_path, content=False) as watching:
        refs = use_everything(watching)
        assert len(refs) > 25
        # the canaries got where they belong
        assert any(canary("document") in str(r.body) for r in watching.mock.requests)
        assert any(canary("attached") in str(r.body) for r in watching.mock.requests)
        wait_for_all(watching, refs)
        found = {where: leaks(text) for where, text in watched(watching, refs).items()}
    assert not {where: leak for where, leak in found.items() if leak}


def test_content_is_in_the_log_alone_if_it_is_switched_on_and_keys_are_not(tmp_path: Path) -> None:
    with site(tmp_path, content=True) as watching:
        refs = use_everything(watching)
        wait_for_all(watching, refs)
        texts = watched(watching, refs)
    log = texts.pop("the log")
    for what in ("prompt", "system", "question", "tool", "arguments"):
        assert canary(what) in log
    assert not [key for key in (KEY, OTHER_KEY, canary("upstream"), canary("wrong")) if key in log]
    assert not {where: leak for where, text in texts.items() if (leak := leaks(text))}


@pytest.mark.parametrize("text", ["a canary7f3a b", "canary7f3a"])
def test_a_leak_would_be_found(text: str) -> None:
    assert leaks(text)
