"""A model that runs on this machine, in a child process that speaks OpenAI's protocol on loopback:
a crash there ends nothing here.

`Engine` keeps one child alive: it is started again where it ends, later each time. Only who knows
its key, new for each child, may use it; it ends when we do, however we end. What it says is kept
for the day it fails, and shown to nobody before.
"""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from slipway.errors import ProviderDown
from slipway.lifeline import Lifeline, hold
from slipway.types import Record

log = logging.getLogger("slipway")

LOOK_S = 1.0  # between two looks for weights that are not here yet
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 60.0  # before a child that ended is followed by another
SOUND_S = 30.0  # who lived as long is followed at once
PATIENCE_S = 2.0  # a pause that questions wait out
LAST_WORDS_S = (
    0.5  # the library says why it cannot go on from a thread of its own, which an exit cuts short
)
TAIL = 4000  # characters of what the child said last
# prompts that left their slot are kept in so much memory, for the next question that begins like
# them
CACHE_MIB = 256
KEPT = (
    "PATH",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "HOME",
    "CUDA_",
    "HIP_",
    "ROCR_",
    "GGML_",
    "VK_",
)  # no key of a provider is among them
STAMP = re.compile(r"^[\d.]+ [A-Z] ")


class Job(Record, frozen=True, kw_only=True):
    """What the child runs, under which name. `context` is tokens of one call, prompt and answer;
    `parallel` how many calls it works on at once.
    """

    name: str
    path: str
    context: int
    parallel: int
    threads: int
    key: str


class Up(Record, frozen=True, kw_only=True):
    """A child that answers."""

    pid: int
    url: str
    key: str


class Engine:
    """The child, and how it is: `state` is `starting`, `ready`, `waiting: …` (for weights) or
    `failed: …`.
    """

    def __init__(self, name: str, job: Job, find: Callable[[], Path | None], missing: str) -> None:
        """`find` looks for the weights, and may take a while; `missing` says what to do where there
        are none.
        """
        self.name, self.job = name, job
        self.state = "starting"
        self.up: Up | None = None
        self._find, self._missing = find, missing
        self._changed = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        self._said = ""

    def start(self) -> None:
        """Returns at once; called again, does nothing."""
        if self._keeping is None:
            self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def ready(self, within_s: float) -> Up:
        """The child that answers, waiting for one that is starting. Raises ProviderDown."""
        self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.state == "starting":
                    await self._changed.wait()
        if self.up is not None:
            return self.up
        if self.state == "starting":
            raise ProviderDown(
                f"The local model {self.name} is still being loaded.", retry_after_s=5.0
            )
        raise ProviderDown(f"The local model {self.name} cannot answer now ({self.state}).")

    async def gone(self, up: Up, within_s: float) -> bool:
        """Whether that child has ended; told of a little later than it happens."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.up is up:
                    await self._changed.wait()
        return self.up is not up

    async def close(self) -> None:
        """Ends the child. Whoever asks for it later starts another."""
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            self.state, self.up = "starting", None
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    def _is(self, state: str, up: Up | None = None) -> None:
        if state != self.state:
            log.log(
                logging.WARNING if state.startswith("failed") else logging.INFO,
                "local model %s: %s",
                self.name,
                state,
            )
        self.state, self.up = state, up
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            path = await self._weights()
            self._is("starting")
            began = loop.time()
            try:
                how = await self._live(
                    msgspec.structs.replace(self.job, path=str(path), key=secrets.token_hex(16))
                )
            except (
                OSError
            ) as error:  # no memory, processes or files are left for a child: that may pass
                how = f"it cannot be started: {error.strerror or error}"
            pause_s = FIRST_PAUSE_S if loop.time() - began > SOUND_S else pause_s
            if pause_s <= PATIENCE_S and self.up is not None:
                self._is("starting")
                log.warning(
                    "local model %s: its process ended (%s), and is started again", self.name, how
                )
            else:
                self._is(f"failed: {how}; tried again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _weights(self) -> Path:
        while (path := await asyncio.to_thread(self._find)) is None:
            self._is(f"waiting: {self._missing}")
            await asyncio.sleep(LOOK_S)
        return path

    async def _live(self, job: Job) -> str:
        """The child's life; returns how it ended. `up` stays what it was, so that one sees whether
        it ever was.
        """
        self._said, self.up = "", None
        line = Lifeline()
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-s",
                "-X",
                "utf8",
                "-c",
                f"from slipway.providers.engine import serve; serve({line.fd})",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=_environment(),
                cwd=Path(sys.executable).anchor,
                pass_fds=line.fds,
                start_new_session=True,  # Ctrl+C is for the parent
            )
        except BaseException:
            line.cut()
            raise
        line.handed_over()
        try:
            return await self._follow(child, job)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            line.cut()

    async def _follow(self, child: asyncio.subprocess.Process, job: Job) -> str:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise AssertionError("all three are pipes")
        with contextlib.suppress(ConnectionError):  # it ended already: its code says so
            child.stdin.write(msgspec.json.encode(job) + b"\n")
            await child.stdin.drain()
        listening = asyncio.create_task(self._listen(child.stderr))
        try:
            if url := (await child.stdout.readline()).decode().strip():
                self._is("ready", Up(pid=child.pid, url=url, key=job.key))
            code = await child.wait()
            with contextlib.suppress(TimeoutError):  # a grandchild may hold the pipe
                await asyncio.wait_for(asyncio.shield(listening), 1.0)
        finally:
            listening.cancel()
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit {code}"
        return how if url else f"{how}: {self._last_words()}"

    async def _listen(self, pipe: asyncio.StreamReader) -> None:
        while said := await pipe.read(4096):
            self._said = (self._said + said.decode(errors="replace"))[-TAIL:]

    def _last_words(self) -> str:
        """What went wrong, each thing once, in the child's own words."""
        lines = [STAMP.sub("", line).strip() for line in self._said.splitlines() if line.strip()]
        return " / ".join(dict.fromkeys(lines[-8:])) or "it said nothing"


def _environment() -> dict[str, str]:
    """What libraries and graphics cards need, and no more; our own code is found where we found it."""
    found = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    return {**found, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


# In the child


def serve(line: int) -> None:
    """The child's life: a job from stdin, the address to stdout, until stdin or `line` closes."""
    hold(line)
    if sys.platform != "win32":
        os.nice(5)  # who answers other questions goes first
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the library prints must not get between
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = job.path, {job.name}
    params.n_ctx, params.n_parallel = job.context * job.parallel, job.parallel
    if job.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = job.threads
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [job.key]
    params.ui = params.endpoint_slots = False
    params.cache_ram_mib = CACHE_MIB
    params.verbosity = 2  # warnings and errors
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        time.sleep(LAST_WORDS_S)
        os._exit(1)
    print(server.listening_address, file=told, flush=True)
    sys.stdin.buffer.read()  # until we are no longer wanted
    os._exit(0)  # its threads need no farewell
