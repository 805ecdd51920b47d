"""Run a model on this machine, in a child process that speaks OpenAI's protocol on loopback: a
crash there ends nothing here.

`Engine` keeps one child alive and restarts it when it ends, after longer pauses each time. Only a
caller with its key, new for each child, may use it. It ends when we end, however that happens. Its
error output is kept, and shown only if it fails.
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
from slipway.lifeline import Lifeline, end_with_parent
from slipway.settings.environment import for_child
from slipway.types import Record

log = logging.getLogger("slipway")

WEIGHTS_POLL_S = 1.0  # between two checks for weights that are not here yet
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 60.0  # before a child that ended is started again
SOUND_S = 30.0  # a child that ran as long as this is restarted after the first pause
PATIENCE_S = 2.0  # questions wait for a restart if the pause is no longer than this
EXIT_DELAY_S = (
    0.5  # the library logs its error in a thread of its own, which an exit would cut short
)
STDERR_CHARS = 4000  # characters of what the child said last
# Memory for prompts that left their slot, for the next question with the same beginning
CACHE_MIB = 256
PASSED_VARIABLES = (
    "PATH",
    "LD_LIBRARY_PATH",
    "SYSTEMROOT",
    "HOME",
    "CUDA_",
    "HIP_",
    "ROCR_",
    "GGML_",
    "VK_",
)  # what libraries and graphics cards need; none of them holds a provider's key
STAMP = re.compile(r"^[\d.]+ [A-Z] ")


class EngineJob(Record, frozen=True, kw_only=True):
    """What the child runs, and under which name. `context` is tokens of one call, prompt and
    answer; `parallel` the most calls at once.
    """

    name: str
    path: str
    context: int
    parallel: int
    threads: int
    key: str


class RunningEngine(Record, frozen=True, kw_only=True):
    """A child that answers."""

    pid: int
    url: str
    key: str


class Engine:
    """The child and its `state`: `starting`, `ready`, `waiting: ...` (for weights) or `failed:
    ...`.
    """

    def __init__(
        self, name: str, job: EngineJob, find: Callable[[], Path | None], missing: str
    ) -> None:
        """`find` looks for the weights and may take a while; `missing` says what to do if there are
        none.
        """
        self.name, self.job = name, job
        self.state = "starting"
        self.up: RunningEngine | None = None
        self._find, self._missing = find, missing
        self._changed = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._stderr = ""

    def start(self) -> None:
        """Start the child in the background. A second call does nothing."""
        if self._supervisor is None:
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    async def ready(self, within_s: float) -> RunningEngine:
        """Return the child that answers, waiting for one that is starting. Raises ProviderDown."""
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

    async def has_ended(self, up: RunningEngine, within_s: float) -> bool:
        """Return whether that child has ended, waiting up to `within_s` for the news."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self.up is up:
                    await self._changed.wait()
        return self.up is not up

    async def close(self) -> None:
        """End the child. A later call starts another one."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            self.state, self.up = "starting", None
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)

    def _set_state(self, state: str, up: RunningEngine | None = None) -> None:
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

    async def _supervise(self) -> None:
        loop, pause_s = asyncio.get_running_loop(), FIRST_PAUSE_S
        while True:
            path = await self._wait_for_weights()
            self._set_state("starting")
            began = loop.time()
            try:
                how = await self._run_child(
                    msgspec.structs.replace(self.job, path=str(path), key=secrets.token_hex(16))
                )
            except OSError as error:  # out of memory, processes or files: that may pass
                how = f"it cannot be started: {error.strerror or error}"
            pause_s = FIRST_PAUSE_S if loop.time() - began > SOUND_S else pause_s
            if pause_s <= PATIENCE_S and self.up is not None:
                self._set_state("starting")
                log.warning(
                    "local model %s: its process ended (%s) and is restarted", self.name, how
                )
            else:
                self._set_state(f"failed: {how}; next try in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def _wait_for_weights(self) -> Path:
        while (path := await asyncio.to_thread(self._find)) is None:
            self._set_state(f"waiting: {self._missing}")
            await asyncio.sleep(WEIGHTS_POLL_S)
        return path

    async def _run_child(self, job: EngineJob) -> str:
        """Run one child until it ends, and return how it ended. `running` keeps its value, to show
        whether the child ever answered.
        """
        self._stderr, self.up = "", None
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
                env=for_child(PASSED_VARIABLES),
                cwd=Path(sys.executable).anchor,
                pass_fds=line.fds,
                start_new_session=True,  # Ctrl+C is for the parent
            )
        except BaseException:
            line.end_child()
            raise
        line.close_child_end()
        try:
            return await self._follow(child, job)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            line.end_child()

    async def _follow(self, child: asyncio.subprocess.Process, job: EngineJob) -> str:
        if child.stdin is None or child.stdout is None or child.stderr is None:
            raise AssertionError("all three are pipes")
        with contextlib.suppress(ConnectionError):  # it ended already: its exit code says why
            child.stdin.write(msgspec.json.encode(job) + b"\n")
            await child.stdin.drain()
        collecting = asyncio.create_task(self._collect_stderr(child.stderr))
        try:
            if url := (await child.stdout.readline()).decode().strip():
                self._set_state("ready", RunningEngine(pid=child.pid, url=url, key=job.key))
            code = await child.wait()
            with contextlib.suppress(TimeoutError):  # a grandchild may hold the pipe
                await asyncio.wait_for(asyncio.shield(collecting), 1.0)
        finally:
            collecting.cancel()
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit {code}"
        return how if url else f"{how}: {self._error_lines()}"

    async def _collect_stderr(self, pipe: asyncio.StreamReader) -> None:
        while said := await pipe.read(4096):
            self._stderr = (self._stderr + said.decode(errors="replace"))[-STDERR_CHARS:]

    def _error_lines(self) -> str:
        """Return the child's last distinct lines of error output."""
        lines = [STAMP.sub("", line).strip() for line in self._stderr.splitlines() if line.strip()]
        return " / ".join(dict.fromkeys(lines[-8:])) or "it said nothing"


# In the child


def serve(line: int) -> None:
    """Run as the child: read a job from stdin, print the address to stdout, and serve until stdin
    or `line` closes.
    """
    end_with_parent(line)
    if sys.platform != "win32":
        os.nice(5)  # the server itself goes first
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=EngineJob)
    address_out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # keep the library's own output away from the address
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
        time.sleep(EXIT_DELAY_S)
        os._exit(1)
    print(server.listening_address, file=address_out, flush=True)
    sys.stdin.buffer.read()  # returns when the parent closes it
    os._exit(0)  # do not wait for the library's threads
