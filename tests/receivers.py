"""Receivers of alerts: a webhook and a mail server on loopback, which keep what they are sent."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """What an HTTP receiver got: path, headers and JSON of each request.

    `replies` are statuses for the next requests, then 200; `answer` is the body of its replies.
    """

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.raw: list[bytes] = []
        self.replies: list[int] = []
        self.answer: dict[str, Any] = {}
        self.url = ""

    @property
    def alerts(self) -> list[tuple[str, str]]:
        """Return (name, status) of each alert, in Alertmanager's form, in the order they came."""
        return [
            (alert["labels"]["alertname"], alert["status"])
            for _, _, body in self.got
            for alert in body["alerts"]
        ]


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver in a thread."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = receiver.replies.pop(0) if receiver.replies else 200
            if status == 200:
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((self.path, headers, json.loads(body)))
                receiver.raw.append(body)
            content = json.dumps(receiver.answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Write nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
    with running(server):
        yield receiver


@contextmanager
def running(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Mailbox:
    """What a mail server got: commands, and the text of each mail. `refused` begins the reply to
    the recipients.
    """

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.mails: list[str] = []
        self.replies: list[str] = []
        self.port = 0


@contextmanager
def mail_server() -> Iterator[Mailbox]:
    """Run a mail server (RFC 5321) without TLS in a thread."""
    box = Mailbox()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 mail.test")
            while line := self.rfile.readline():
                command = line.decode().strip()
                box.commands.append(command)
                verb = command[:4].upper()
                if verb == "DATA":
                    self.say("354 go on")
                    self.take()
                elif verb == "EHLO":
                    self.say("250-mail.test\r\n250 AUTH PLAIN")
                elif verb == "RCPT" and box.replies:
                    self.say(box.replies.pop(0))
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.say("250 ok")

        def take(self) -> None:
            lines = []
            while (line := self.rfile.readline().decode()) != ".\r\n":
                lines.append(line)
            box.mails.append("".join(lines))
            self.say("250 kept")

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    box.port = server.server_address[1]
    with running(server):
        yield box
