"""Test what a killed process leaves of the calls that were running: each counts once."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from slipway.ledger import HeldCall, LedgerRow, format_usd, in_usd, usd
from slipway.settings import Settings
from slipway.store import LedgerWriter, RecordStore, RowWriter, open_records
from slipway.store.hold_log import HoldLog, read
from slipway.types import Usage

WHO: dict[str, Any] = {
    "owner": "key-1",
    "tenant": "acme",
    "app": "docs",
    "model": "m",
    "provider": "openai",
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    with closing(open_records(Settings(store=f"sqlite:///{tmp_path}/records.db"))) as opened:
        yield opened


def held(number: int, answer: str = "ans-1") -> HeldCall:
    return HeldCall(
        id=f"call-{number}",
        answer=answer,
        at=1e9 + number,
        zone="a",
        input_tokens=10,
        output_tokens=20,
        cost=30,
        price_source="settings",
        **WHO,
    )


def booked(number: int) -> LedgerRow:
    return LedgerRow(
        id=f"call-{number}", answer="ans-1", at=1e9, zone="a", kind="first", cost=3, **WHO
    )


def lost(folder: Path) -> dict[str, LedgerRow]:
    """Return what would be booked if the process of this folder were killed now."""
    (file,) = folder.glob("holds-*")
    return read(file.read_bytes())


@pytest.mark.parametrize("works", [True, False], ids=["journal", "no journal"])
def test_a_call_counts_as_running_until_the_journal_or_the_store_has_it(
    tmp_path: Path, store: RecordStore, works: bool
) -> None:
    if not works:
        (tmp_path / "journal").write_text("a file where a folder should be")
    writer = RowWriter(lambda: store, tmp_path / "journal")
    books = LedgerWriter(writer, tmp_path / "holds", lambda: store.ledger)
    for number in (1, 2):
        books.hold(held(number))
    books.add(booked(1))
    assert set(lost(tmp_path / "holds")) == ({"call-2"} if works else {"call-1", "call-2"})
    assert books.flush(10)
    books.hold(held(3))
    books.release("call-2")
    assert set(lost(tmp_path / "holds")) == {"call-3"}
    row = lost(tmp_path / "holds")["call-3"]
    assert (row.cost, row.error, row.kind, row.at) == (30, "lost", "first", 1e9 + 3)
    assert row.usage == Usage(input_tokens=10, output_tokens=20, estimated=True)
    writer.close()
    books.close()
    assert set(lost(tmp_path / "holds")) == {"call-3"}


def test_notes_move_to_a_larger_file_and_use_one_file_again(tmp_path: Path) -> None:
    log = HoldLog(tmp_path, size=1000)
    for number in range(50):
        log.hold(held(number))
        if number % 2:
            log.settled(f"call-{number}")
    assert set(lost(tmp_path)) == {f"call-{number}" for number in range(0, 50, 2)}
    for number in range(0, 50, 2):
        log.settled(f"call-{number}")
    assert not lost(tmp_path)
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size
    for number in range(500):
        log.hold(held(number, answer="é" * (number % 7)))
        log.settled(f"call-{number}")
        log.settled("call-of-nobody")
    assert not lost(tmp_path)
    assert file.stat().st_size == size
    log.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "amount", [None, 0, 1, 72_000_000, 10**12, 10**12 + 10, 12 * 10**14, 10**30]
)
def test_an_amount_is_written_alike_with_and_without_decimals(amount: int | None) -> None:
    assert in_usd(amount) == format_usd(usd(amount))
