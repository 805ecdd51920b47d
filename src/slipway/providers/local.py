"""A model that Slipway runs itself, from a GGUF file, as one more endpoint that speaks OpenAI's
protocol.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec

from slipway import weights
from slipway.errors import ProviderDown, ProviderError, SettingsError
from slipway.providers import Call, Completion, ModelReply, Reachable
from slipway.providers.engine import Engine, EngineJob, RunningEngine
from slipway.providers.openai import OpenAIProvider
from slipway.settings import ModelSettings
from slipway.types import Piece

START_S = 30.0  # how long a question waits for a loading model if no other one can answer
CONTEXT = 8192  # tokens, unless the settings name a number
NOTICE_S = 1.0  # how long the news of the process's end may take after a failed call


class LocalProvider:
    """The current child's endpoint. It works on `parallel` calls at once; routing sends no more."""

    def __init__(self, name: str, model: ModelSettings, kind: str) -> None:
        if find_spec("xllamacpp") is None:
            extra = "pip install 'slipway[local]'"
            raise SettingsError([f"models.{name}: to run a model here, install the extra: {extra}"])
        self.name, self.kind, self.zone, self.price = name, kind, model.zone, model.price
        self.parallel: int | None = model.parallel
        self.model = msgspec.structs.replace(
            model, connection=msgspec.structs.replace(model.connection, proxy=None)
        )
        job = EngineJob(
            name=name,
            path="",
            context=model.context or CONTEXT,
            parallel=model.parallel,
            threads=model.threads,
            key="",
        )
        self.engine = Engine(name, job, finder(model.weights), missing(model.weights))
        self._endpoint: tuple[RunningEngine, OpenAIProvider] | None = None
        self._calls = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.engine.start()

    @property
    def state(self) -> str:
        return self.engine.state

    async def chat(self, call: Call) -> ModelReply:
        self._calls += 1
        try:
            return LocalReply(await self._send(call), self._call_ended)
        except BaseException:
            self._call_ended()
            raise

    def _call_ended(self) -> None:
        self._calls -= 1
        self._close_if_retired()

    def _close_if_retired(self) -> None:
        """End the child with the last call of a retired model."""
        if self._retired and not self._calls:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def _send(self, call: Call) -> ModelReply:
        """Send a call. If the child turns out to have ended before it said anything, ask the next
        one, once.
        """
        try:
            up = await self.engine.ready(load_wait_s(call))
            try:
                return await self._provider_at(up).chat(call)
            except ProviderDown:
                if not await self.engine.has_ended(up, NOTICE_S):
                    raise
            return await self._provider_at(await self.engine.ready(load_wait_s(call))).chat(call)
        except ProviderError as error:
            error.model = self.name
            raise

    def _provider_at(self, up: RunningEngine) -> OpenAIProvider:
        if self._endpoint is None or self._endpoint[0] is not up:
            model = msgspec.structs.replace(self.model, base_url=f"{up.url}/v1", api_key=up.key)
            self._endpoint = (
                up,
                OpenAIProvider(self.name, model, self.kind),
            )  # the old one's connections ended with its process
        return self._endpoint[1]

    async def probe(self) -> Reachable:
        return "well" if self.engine.state == "ready" else "unreachable"

    def retire(self) -> None:
        self._retired = True
        self._close_if_retired()

    async def close(self) -> None:
        if self._endpoint is not None:
            await self._endpoint[1].close()
        await self.engine.close()


class LocalReply:
    """A reply that reports its end once."""

    def __init__(self, reply: ModelReply, ended: Callable[[], None]) -> None:
        self._reply = reply
        self._ended: Callable[[], None] | None = ended

    async def pieces(self) -> list[Piece]:
        return await self._reply.pieces()

    def push_usual(self, take: Callable[[bytes, list[str]], bool]) -> None:
        self._reply.push_usual(take)

    async def whole(self) -> Completion:
        return await self._reply.whole()

    def rate_limits(self) -> Sequence[tuple[bytes, bytes]]:
        return self._reply.rate_limits()

    def close(self) -> None:
        self._reply.close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def load_wait_s(call: Call) -> float:
    """Return how long a call waits for a model that is loading."""
    return min(START_S, call.words_by - time.monotonic()) if call.patient else 0.0


def missing(name: str) -> str:
    """Return what to do about weights that are not here."""
    pull = f"; fetch them with `slipway weights pull {name}`" if name in weights.table() else ""
    return f"its weights are not here yet{pull}"


def finder(name: str) -> Callable[[], Path | None]:
    """Return a function that looks for the file of these weights: a name of the table,
    or a path.
    """
    if name in weights.table():
        return lambda: next(iter((weights.found(name) or {}).values()), None)
    path = Path(name).expanduser().absolute()
    return lambda: path if path.is_file() else None
