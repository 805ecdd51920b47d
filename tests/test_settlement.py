"""Test that every answer emits exactly one AnswerDone with the right outcome, however its stages
end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from slipway.admission import Admission
from slipway.answer import Facts, Pipeline, proxy
from slipway.errors import Overloaded, ProviderDown
from slipway.providers import Call, Completion, ModelReply, Reachable
from slipway.routing import Candidate, Health, Route
from slipway.settings import Price
from slipway.types import AnswerDone, Asker, PipelineRecord

CALL = Call(body=b'{"model":""}', name_at=(9, 11), stream=False)


class RaisingModel:
    """A model whose call ends as `outcome` says; nothing here is a ProviderError by default."""

    name, kind, zone = "model", "mock", "here"
    price: Price | None = None
    state: str | None = None
    parallel: int | None = None

    def __init__(self, outcome: Callable[[], Awaitable[ModelReply]]) -> None:
        self.outcome = outcome

    async def chat(self, call: Call) -> ModelReply:
        return await self.outcome()

    def start(self) -> None: ...

    async def probe(self) -> Reachable:
        return "well"

    def retire(self) -> None: ...

    async def close(self) -> None: ...


class Collected:
    """A response writer that keeps what it is given."""

    def __init__(self) -> None:
        self.body = b""

    def whole(self, body: bytes, facts: Facts) -> None:
        self.body = body

    def begin(self, facts: Facts) -> None: ...

    async def write(self, events: bytes) -> None:
        self.body += events

    def take(self, events: bytes) -> bool:
        return False

    def end(self) -> None: ...


class WholeReply:
    async def pieces(self) -> list[object]:
        raise NotImplementedError

    async def whole(self) -> Completion:
        return Completion(raw=b"{}", text="", finish="stop", usage=None)

    def rate_limits(self) -> Sequence[tuple[bytes, bytes]]:
        return ()

    def close(self) -> None: ...


def settled(
    outcome: Callable[[], Awaitable[ModelReply]],
    *,
    limit: int = 10,
    cancel: bool = False,
) -> tuple[BaseException | None, list[AnswerDone]]:
    """Proxy one call; return what was raised and the AnswerDone records."""
    records = list[PipelineRecord]()
    route = Route(name="m", candidates=(Candidate(model=RaisingModel(outcome), health=Health()),))
    pipeline = Pipeline(
        admission=Admission([], limit), apps={}, routes={"m": route}, emit=records.append
    )

    async def run() -> None:
        call = proxy(pipeline, route, CALL, "ans-1", Asker(owner="x"), Collected())
        task = asyncio.get_running_loop().create_task(call)
        if cancel:
            await asyncio.sleep(0)
            task.cancel()
        await task

    raised: BaseException | None = None
    try:
        asyncio.run(run())
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is compared
        raised = error
    return raised, [record for record in records if isinstance(record, AnswerDone)]


async def good() -> ModelReply:
    return WholeReply()  # type: ignore[return-value]


async def defect() -> ModelReply:
    raise ZeroDivisionError


async def down() -> ModelReply:
    raise ProviderDown("no connection")


async def endless() -> ModelReply:
    await asyncio.sleep(60)
    raise AssertionError


@pytest.mark.parametrize(
    ("outcome", "kind", "error"),
    [
        (good, type(None), None),
        (defect, ZeroDivisionError, "internal_error"),
        (down, ProviderDown, "provider_down"),
    ],
)
def test_each_outcome_is_emitted_once(
    outcome: Callable[[], Awaitable[ModelReply]], kind: type, error: str | None
) -> None:
    raised, done = settled(outcome)
    assert isinstance(raised, kind)
    assert [record.error for record in done] == [error]


def test_a_client_that_leaves_is_no_success() -> None:
    raised, done = settled(endless, cancel=True)
    assert isinstance(raised, asyncio.CancelledError)
    assert [record.error for record in done] == ["client_gone"]


def test_a_refused_answer_is_emitted_once() -> None:
    raised, done = settled(good, limit=0)
    assert isinstance(raised, Overloaded)
    assert [record.error for record in done] == ["overloaded"]
