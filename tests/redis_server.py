"""Run a real Redis, and make it slow, full, frozen or dead."""

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import end, free_port
from waiting import until


class RedisServer:
    """A Redis on loopback that keeps nothing on disk."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.folder, self.args, self.port = folder, args, free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *self.args]
        self.process = subprocess.Popen(
            ["redis-server", *options, "--dir", str(self.folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: self.command("PING"))

    def command(self, *words: str) -> bytes:
        """Send one command, and return the beginning of the reply; empty if nobody answers."""
        sent = b"*%d\r\n" % len(words)
        sent += b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 5) as s,
        ):
            s.sendall(sent)
            return s.recv(65536)
        return b""

    def calls(self, command: str) -> int:
        """Return how often a command was sent."""
        found = re.search(rf"cmdstat_{command}:calls=(\d+)", self.command("INFO", "ALL").decode())
        return int(found[1]) if found else 0

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            end(self.process)  # type: ignore[arg-type]


@contextmanager
def redis_server(folder: Path, *args: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, *args)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class SlowLine:
    """A TCP proxy to a port, whose replies arrive `delay_s` later."""

    def __init__(self, to: int) -> None:
        self.to, self.delay_s, self.port = to, 0.0, free_port()
        self.loop = asyncio.new_event_loop()
        self.open = set[asyncio.StreamWriter]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self.to)
        self.open |= {writer, forth}
        await asyncio.gather(self.pipe(reader, forth, 0.0), self.pipe(back, writer, None))

    async def pipe(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float | None
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await asyncio.sleep(self.delay_s if delay_s is None else delay_s)
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def slow_line(to: int) -> Iterator[SlowLine]:
    line = SlowLine(to)
    thread = threading.Thread(target=line.loop.run_forever, daemon=True)
    thread.start()
    serving = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(line.serve, "127.0.0.1", line.port), line.loop
    ).result()

    async def close() -> None:
        serving.close()
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        for writer in line.open:
            writer.close()
        await asyncio.sleep(0)

    try:
        yield line
    finally:
        asyncio.run_coroutine_threadsafe(close(), line.loop).result()
        line.loop.call_soon_threadsafe(line.loop.stop)
        thread.join()
        line.loop.close()
