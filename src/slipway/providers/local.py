"""A model that Slipway runs itself, from a GGUF file, as one more endpoint that speaks OpenAI's
protocol.
"""

import asyncio
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec

from slipway import weights
from slipway.errors import ProviderDown, ProviderError, SettingsError
from slipway.providers import Call, ModelReply, Whole
from slipway.providers.engine import Engine, Job, Up
from slipway.providers.openai import OpenAIProvider
from slipway.settings import Model
from slipway.types import Piece

START_S = (
    30.0  # how long a question waits for a model that is being loaded, where no other may answer
)
CONTEXT = 8192  # tokens, where the settings do not say
NOTICE_S = 1.0  # how long after a failed call the end of its process may become known


class LocalProvider:
    """The child's endpoint, whichever child it is now. It works on `parallel` calls at once: those
    who route let no more come.
    """

    def __init__(self, name: str, model: Model, kind: str) -> None:
        if find_spec("xllamacpp") is None:
            raise SettingsError(
                [
                    f"models.{name}: running a model here needs the extra: pip install 'slipway[local]'"
                ]
            )
        self.name, self.kind, self.zone, self.price = name, kind, model.zone, model.price
        self.parallel: int | None = model.parallel
        self.model = msgspec.structs.replace(
            model, connection=msgspec.structs.replace(model.connection, proxy=None)
        )
        job = Job(
            name=name,
            path="",
            context=model.context or CONTEXT,
            parallel=model.parallel,
            threads=model.threads,
            key="",
        )
        self.engine = Engine(name, job, finder(model.weights), missing(model.weights))
        self._endpoint: tuple[Up, OpenAIProvider] | None = None
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
            return Held(await self._sent(call), self._left)
        except BaseException:
            self._left()
            raise

    def _left(self) -> None:
        self._calls -= 1
        self._rest()

    def _rest(self) -> None:
        """The last call of a retired model takes the child with it."""
        if self._retired and not self._calls:
            self._closing = asyncio.get_running_loop().create_task(self.close())

    async def _sent(self, call: Call) -> ModelReply:
        """Where the child turns out to be gone before it said anything, the next one is asked,
        once.
        """
        try:
            up = await self.engine.ready(within_s(call))
            try:
                return await self._at(up).chat(call)
            except ProviderDown:
                if not await self.engine.gone(up, NOTICE_S):
                    raise
            return await self._at(await self.engine.ready(within_s(call))).chat(call)
        except ProviderError as error:
            error.model = self.name
            raise

    def _at(self, up: Up) -> OpenAIProvider:
        if self._endpoint is None or self._endpoint[0] is not up:
            model = msgspec.structs.replace(self.model, base_url=f"{up.url}/v1", api_key=up.key)
            self._endpoint = (
                up,
                OpenAIProvider(self.name, model, self.kind),
            )  # the old one's connections ended with its process
        return self._endpoint[1]

    async def probe(self) -> bool:
        return self.engine.state == "ready"

    def retire(self) -> None:
        self._retired = True
        self._rest()

    async def close(self) -> None:
        if self._endpoint is not None:
            await self._endpoint[1].close()
        await self.engine.close()


class Held:
    """A reply whose end is told once."""

    def __init__(self, reply: ModelReply, ended: Callable[[], None]) -> None:
        self._reply = reply
        self._ended: Callable[[], None] | None = ended

    async def pieces(self) -> list[Piece]:
        return await self._reply.pieces()

    async def whole(self) -> Whole:
        return await self._reply.whole()

    def close(self) -> None:
        self._reply.close()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def within_s(call: Call) -> float:
    """How long a call waits for a model that is being loaded."""
    return min(START_S, call.words_by - time.monotonic()) if call.patient else 0.0


def missing(name: str) -> str:
    pull = f"; fetch them with `slipway weights pull {name}`" if name in weights.table() else ""
    return f"its weights are not here yet{pull}"


def finder(name: str) -> Callable[[], Path | None]:
    """Looks for the file of these weights: a name of the table, or a path."""
    if name in weights.table():
        return lambda: next(iter((weights.found(name) or {}).values()), None)
    path = Path(name).expanduser().absolute()
    return lambda: path if path.is_file() else None
