"""Current client libraries chat, stream and call tools through the server, as their users do.

They are installed by `make clients`, in environments of their own: .venv-clients and
tests/clients/node/node_modules.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from processes import Serving, serving
from waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv-clients" / "bin" / "python"
NODE = ROOT / "tests" / "clients" / "node"
HELLO = "Hello from the model."
USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}


class Model(BaseHTTPRequestHandler):
    """A model that calls the first tool it is offered, and else says hello."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answered = any(message["role"] == "tool" for message in request["messages"])
        message: dict[str, Any] = {"role": "assistant", "content": HELLO}
        reason = "stop"
        if request.get("tools") and not answered:
            function = {
                "name": request["tools"][0]["function"]["name"],
                "arguments": '{"city": "Oslo"}',
            }
            call = {"id": "call_1", "type": "function", "function": function}
            message, reason = (
                {"role": "assistant", "content": None, "tool_calls": [call]},
                "tool_calls",
            )
        if request.get("stream"):
            self.reply("text/event-stream", b"".join(events(message, reason)))
        else:
            choice = {"index": 0, "message": message, "finish_reason": reason}
            body = {**head("chat.completion"), "choices": [choice], "usage": USAGE}
            self.reply("application/json", json.dumps(body).encode())

    def reply(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "m"}


def events(message: dict[str, Any], reason: str) -> Iterator[bytes]:
    """The message as a stream: words one by one, or a tool call in two parts."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if calls := message.get("tool_calls"):
        function = calls[0]["function"]
        begun = {**calls[0], "index": 0, "function": {**function, "arguments": ""}}
        rest = {"index": 0, "function": {"arguments": function["arguments"]}}
        deltas += [{"tool_calls": [begun]}, {"tool_calls": [rest]}]
    else:
        deltas += [{"content": f"{word} "} for word in message["content"].split(" ")[:-1]]
        deltas.append({"content": message["content"].split(" ")[-1]})
    for delta in deltas:
        yield event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    yield event({"choices": [], "usage": USAGE})
    yield b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps({**head("chat.completion.chunk"), **data}).encode()


@contextmanager
def model() -> Iterator[str]:
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Model)
    upstream.daemon_threads = True
    thread = threading.Thread(target=upstream.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{upstream.server_address[1]}/v1"
    finally:
        upstream.shutdown()
        upstream.server_close()
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with model() as url:
        settings = {"models": {"m": {"base_url": url}}, "keys": ["sw-key-of-tests"]}
        with serving(tmp_path_factory.mktemp("libraries"), settings=settings) as server:
            yield server


def called(server: Serving, *command: str) -> dict[str, Any]:
    done = subprocess.run(
        [*command, f"{server.url}/v1"], capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "client", ["openai", "langchain", "llama_index", "pydantic_ai", "instructor", "litellm"]
)
def test_python_clients(server: Serving, client: str) -> None:
    if not PYTHON.exists():
        pytest.skip("the clients are not installed: make clients")
    found = called(server, str(PYTHON), str(ROOT / "tests/clients/python_clients.py"), client)
    assert found["chat"] == HELLO
    assert found["stream"] == ("Oslo" if client == "instructor" else HELLO)
    assert found["tool"] == ["Weather" if client == "instructor" else "weather", {"city": "Oslo"}]


@pytest.mark.parametrize("client", ["openai", "vercel"])
def test_node_clients(server: Serving, client: str) -> None:
    if not (NODE / "node_modules").exists():
        pytest.skip("the clients are not installed: make clients")
    found = called(server, "node", str(NODE / "clients.mjs"), client)
    assert (found["chat"], found["stream"]) == (HELLO, HELLO)
    assert found["tool"] == ["weather", {"city": "Oslo"}]
