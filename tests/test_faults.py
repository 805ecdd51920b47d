"""Routes survive what providers do: every fault of `faulty.py`, streamed and not, for a model alone, with a twin, and for an app."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from faulty import CELLS, SLOWEST_S, Cell, Estate, estate
from seeing import Seen, ask

AT_ONCE = 24


async def ask_all(url: str, cells: list[Cell]) -> dict[str, Seen]:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(client: httpx.AsyncClient, cell: Cell) -> Seen:
        async with gate:
            return await ask(client, f"{url}/v1", cell.body, patience_s=SLOWEST_S)

    async with httpx.AsyncClient(limits=httpx.Limits(max_connections=AT_ONCE)) as client:
        seen = await asyncio.gather(*(one(client, cell) for cell in cells))
    return {cell.name: each for cell, each in zip(cells, seen, strict=True)}


class Asked:
    """All cells, asked once."""

    def __init__(self, estate: Estate) -> None:
        self.estate = estate
        self.seen = asyncio.run(ask_all(estate.server.url, CELLS))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Asked]:
    with estate(tmp_path_factory.mktemp("faults"), certificate, *CELLS) as everything:
        yield Asked(everything)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_what_a_client_sees(asked: Asked, cell: Cell) -> None:
    seen = asked.seen[cell.name]
    assert seen.word in cell.words, seen
