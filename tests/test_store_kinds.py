"""Test that SQLite and PostgreSQL keep records alike, and that backups move between them."""

import gzip
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from click.testing import CliRunner, Result

from postgres import Postgres
from slipway.cli import main
from slipway.ledger import LedgerRow
from slipway.settings import Settings
from slipway.store import (
    CollectedAnswer,
    FeedbackFilter,
    FeedbackRow,
    HistoryRow,
    KeyHash,
    LedgerFilter,
    RecordStore,
    RowError,
    RowWriter,
    SavedConversation,
    SavedKey,
    SectionTiming,
    Shared,
    open_records,
)
from slipway.types import Answered, RuleUsed, Usage
from waiting import PATIENCE_S, until

KINDS = ("sqlite", "postgresql")
DAY = 86_400.0
NOON = 1_790_000_000.0  # 2026-09-21 14:13:20 UTC


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Postgres:
    """Keep the tests of this file in one worker: they share a PostgreSQL."""
    return postgres


@pytest.fixture
def addresses(server: Postgres, tmp_path: Path) -> dict[str, str]:
    return {"sqlite": f"sqlite:///{tmp_path}/records.db", "postgresql": server.database()}


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, addresses: dict[str, str]) -> Iterator[RecordStore]:
    with closing(open_records(Settings(store=addresses[request.param]))) as opened:
        yield opened


def answered(number: int, **fields: Any) -> Answered:
    known = {
        "id": f"ans-{number}",
        "at": NOON + number,
        "tenant": "acme",
        "owner": "key-1",
        "app": "docs",
        "model": "m",
        "served_by": "model",
        "prompt": None,
    }
    return Answered(**{**known, **fields})


def vote(about: Answered, **fields: Any) -> FeedbackRow:
    known = {"kind": "vote", "section": None, "helpful": True, "reasons": (), "comment": ""}
    return FeedbackRow(**{**known, "about": about, **fields})


def booked(number: int, **fields: Any) -> LedgerRow:
    known = {
        "id": f"call-{number}",
        "answer": f"ans-{number}",
        "at": NOON + number,
        "owner": "key-1",
        "tenant": "acme",
        "app": "docs",
        "model": "m",
        "provider": "openai",
        "zone": "default",
        "kind": "first",
        "cost": 10**15 + number,
        "usage": Usage(input_tokens=100, cached_tokens=40, output_tokens=7, estimated=True),
    }
    return LedgerRow(**{**known, **fields})


def hit(number: int, *, shadow: bool = False) -> RuleUsed:
    return RuleUsed(
        answer_id=f"ans-{number}",
        app="docs",
        rule="hours",
        version="1",
        kind="pattern",
        reason="",
        shadow=shadow,
        at=NOON + number,
    )


def key(number: int, **fields: Any) -> SavedKey:
    known = {"id": f"key-{number}", "name": "é 租户", "tenant": "acme", "hint": "sw-abcd"}
    return SavedKey(**{**known, "created_at": NOON + number, **fields})


def test_answers_are_noted_once_and_dropped_when_they_are_too_many(store: RecordStore) -> None:
    rows = [answered(number, at=time.time() + number) for number in range(5)]
    store.records.note_answers(rows[:3], days=30, at_most=3)
    store.records.note_answers(rows[:3], days=30, at_most=3)
    assert store.records.find_answer("ans-1") == rows[1]
    assert store.records.find_answer("ans-9") is None
    again = open_records_of(store)
    again.records.note_answers(rows[3:], days=30, at_most=3)
    kept = [number for number in range(5) if again.records.find_answer(f"ans-{number}")]
    assert kept == [2, 3, 4]
    again.close()


def open_records_of(store: RecordStore) -> RecordStore:
    """Open the same store again, as another process would."""
    database: Any = store.database
    url = f"sqlite:///{database.file}" if database.kind == "sqlite" else database.url
    return open_records(Settings(store=url))


def test_a_vote_replaces_an_earlier_one_never_a_later_one(store: RecordStore) -> None:
    sources = ({"n": 1, "path": "a.md"},)
    about = answered(1, question="q?", text="t\0t", sources=sources)
    first = store.records.save_feedback(vote(about, at=NOON + 10))
    assert not first.replaced
    later = vote(answered(1), helpful=False, reasons=("wrong",), at=NOON + 20)
    assert store.records.save_feedback(later).id == first.id
    store.records.save_feedback(vote(about, comment="written late", at=NOON + 15))
    store.records.save_feedback(vote(about, kind="report", helpful=None, section=2, at=NOON))
    report, row = sorted(
        store.records.list_feedback(FeedbackFilter()), key=lambda row: str(row["kind"])
    )
    assert (row["helpful"], row["reasons"], row["comment"]) == (False, ["wrong"], "")
    assert (row["question"], row["sources"]) == ("q?", list(sources))  # known at the first vote
    assert (report["section"], report["helpful"]) == (2, None)
    assert len(store.records.list_feedback(FeedbackFilter(helpful=True))) == 0
    assert len(store.records.list_feedback(FeedbackFilter(app="docs", limit=1))) == 1
    assert store.records.withdraw_votes("ans-1", NOON + 19) == 0
    assert store.records.withdraw_votes("ans-1", NOON + 20) == 1


def test_timings_are_kept_for_each_model(store: RecordStore) -> None:
    timing = SectionTiming(size=1, first_s=0.5, chars=2, write_s=1.25)
    rows = [("m", NOON + number, timing) for number in range(5)]
    store.records.save_timings(rows, [("m", 0.1)], keep=3)
    store.records.save_timings([], [("m", 0.25)], keep=3)
    assert store.records.load_timings() == ([("m", timing)] * 3, [("m", 0.25)])


def test_the_ledger_books_a_row_once_and_adds_up_exactly(store: RecordStore) -> None:
    rows = [booked(number) for number in range(20)]
    unknown = booked(20, cost=None, error="cancelled", at=NOON + DAY, model="other")
    store.ledger.book(rows[:15])
    store.ledger.book([*rows, unknown])
    found = store.ledger.rows(LedgerFilter(), limit=100)
    assert found == [*rows, unknown]
    assert store.ledger.rows(LedgerFilter(), limit=5, after="call-3") == rows[4:9]
    (m, other) = store.ledger.sums("model", LedgerFilter())
    assert (m.group, m.calls, m.cost, m.unknown) == ("m", 20, 20 * 10**15 + 190, 0)
    assert (m.input_tokens, m.cached_tokens, m.output_tokens, m.estimated) == (2000, 800, 140, 20)
    assert (other.calls, other.failed, other.unknown, other.cost) == (1, 1, 1, 0)
    days = store.ledger.sums("day", LedgerFilter())
    assert [(each.group, each.calls) for each in days] == [("2026-09-21", 20), ("2026-09-22", 1)]
    assert store.ledger.spent("tenant", NOON + 10) == {"acme": sum(r.cost or 0 for r in rows[10:])}
    assert store.ledger.sums("app", LedgerFilter(tenant="none")) == []
    assert store.ledger.drop_rows(NOON + 10) == 10


def test_keys_change_the_version_and_keep_their_hashes(store: RecordStore) -> None:
    first = key(1, groups=("staff",), apps=("a",), models=(), documents=True, admin=True)
    store.keys.add(first, "hash-1")
    store.keys.add(key(2, expires_at=NOON + DAY), "hash-2")
    version, keys, hashes = store.keys.load()
    assert keys == [first, key(2, expires_at=NOON + DAY)]
    assert version == store.keys.version() == 2
    at = NOON + 100
    assert store.keys.replace_hash("key-1", "hash-3", "sw-next", at=at, old_ends_at=at + 60)
    assert not store.keys.replace_hash("key-9", "hash-9", "sw-none", at=at, old_ends_at=at)
    assert store.keys.revoke("key-2", at)
    assert store.keys.revoke("key-2", at + 1)  # it keeps its time
    assert not store.keys.revoke("key-9", at)
    version, keys, hashes = store.keys.load()
    assert [each.revoked_at for each in keys] == [None, at]
    assert keys[0].hint == "sw-next"
    assert KeyHash(hash="hash-1", key_id="key-1", ends_at=at + 60) in hashes
    assert KeyHash(hash="hash-3", key_id="key-1") in hashes
    assert version > 2


def test_sessions_that_were_signed_out_are_kept_until_they_would_have_ended(
    store: RecordStore,
) -> None:
    later = time.time() + 60
    for session, end in [("a", time.time() - 60), ("b", later), ("b", later), ("c", later)]:
        store.end_session(session, end)
    assert store.ended_sessions() == {"b": later, "c": later}


def test_conversations_are_found_by_their_words(store: RecordStore) -> None:
    kept = store.conversations
    for number in range(4):
        row = SavedConversation(
            id=f"c{number}", title=f"Tea {number}", at=NOON + number, turns=f'["50% {number}"]'
        )
        kept.save("anna", row, at_most=3)
    pinned = SavedConversation(id="c1", title="TEA 1", at=NOON, pinned=True, turns="[]")
    kept.save("anna", pinned, at_most=3)
    assert [row.id for row in kept.find("anna")] == ["c1", "c3", "c2"]
    assert [row.id for row in kept.find("anna", ["tea", "0% 3"])] == ["c3"]
    assert kept.find("anna", ["_"]) == []
    assert kept.load("anna", "c1") == pinned
    assert kept.load("ben", "c1") is None
    assert [kept.delete("anna", "c3"), kept.delete("anna", "c3")] == [True, False]
    share = Shared(id="s", tenant="acme", owner="anna", turns="[]")
    kept.save_share(share, days=30, at_most=9)
    assert kept.load_share("s", days=30) == share
    assert [kept.delete_share("s", "ben"), kept.delete_share("s", "anna")] == [False, True]
    for owner, each in [("ben", "b"), ("anna", "1"), ("anna", "2"), ("anna", "3")]:
        share = Shared(id=each, tenant="acme", owner=owner, turns="[]")
        kept.save_share(share, days=30, at_most=2)
    found = [each for each in "b123" if kept.load_share(each, days=30)]
    assert found == ["b", "2", "3"], "only the owner's oldest link is dropped"


def test_hits_of_rules_are_counted_once_and_answers_collected(store: RecordStore) -> None:
    hits = [hit(number, shadow=number == 3) for number in range(4)]
    store.rules.count_hits(hits[:2], days=10**5, at_most=100)
    store.rules.count_hits(hits, days=10**5, at_most=100)
    store.records.save_feedback(vote(answered(1), helpful=False))
    (found,) = store.rules.hits(NOON)
    assert (found.served, found.shadow, found.unhelpful, found.last_at) == (3, 1, 1, NOON + 3)
    collected = [
        CollectedAnswer(
            answer=f"ans-{number}",
            at=NOON + number,
            app="docs",
            tenant="acme",
            question="租户?",
            text="t",
            groups=("a",),
        )
        for number in range(2)
    ]
    store.rules.collect(collected, days=10**5, at_most=100)
    store.rules.collect(collected, days=10**5, at_most=100)
    again = store.rules.collected("docs")
    assert again == [collected[0], msgspec.structs.replace(collected[1], unhelpful=True)]


def test_history_is_kept_for_each_server_and_old_rows_are_dropped(store: RecordStore) -> None:
    rows = [HistoryRow(step_s=s, at=NOON + n, counts=b"\0") for s in (60, 600) for n in (0, 9)]
    store.history.save("a", rows, drop_before={})
    store.history.save("b", rows[:1], drop_before={60: NOON + 5})
    assert store.history.load("b", 0) == []
    assert sorted(store.history.load("a", 0), key=lambda r: r.step_s) == [rows[1], *rows[2:]]
    again = HistoryRow(step_s=60, at=NOON + 9, counts=b"\1")
    store.history.save("a", [again], drop_before={600: NOON + 60})
    assert store.history.load("a", NOON) == [again]
    store.history.save_alerts("a", {"x": b"1", "y": b"2"})
    store.history.save_alerts("b", {"x": b"3"})
    store.history.save_alerts("a", {"y": b"4"})
    assert store.history.load_alerts("a") == {"y": b"4"}
    assert store.history.load_alerts("b") == {"x": b"3"}


def test_a_row_that_no_store_can_keep_is_refused_as_such(store: RecordStore) -> None:
    with pytest.raises(RowError):
        store.ledger.book([booked(1), booked(2, cost=2**70)])
    assert store.ledger.rows(LedgerFilter(), limit=9) == []  # all of a batch or nothing


def test_the_secret_is_made_once(store: RecordStore) -> None:
    again = open_records_of(store)
    assert store.secret() == again.secret()
    assert len(store.secret()) == 32
    again.close()


def test_stores_opened_at_once_are_migrated_once(addresses: dict[str, str]) -> None:
    for address in addresses.values():
        opened, failed = list[RecordStore](), list[Exception]()

        def opening(address: str = address, into: Any = opened, errors: Any = failed) -> None:
            try:
                into.append(open_records(Settings(store=address), patient=True))
            except Exception as error:  # noqa: BLE001 - shown below
                errors.append(error)

        threads = [threading.Thread(target=opening) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        for store in opened:
            assert store.keys.version() == 0
            store.close()


def test_rows_beyond_what_memory_holds_wait_in_the_journal(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    """Two writers of one folder, of which one ends before the store is back."""
    store = open_records(Settings(store=addresses["sqlite"]))
    writers = [RowWriter(lambda: store, tmp_path / "journal", held=100) for _ in range(2)]
    rows = [booked(number) for number in range(3_500)]
    with closing(sqlite3.connect(tmp_path / "records.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for first, second in zip(rows[:500], rows[3_000:], strict=True):
            assert writers[0].add(first)
            assert writers[1].add(second)
        until(lambda: all(writer.trouble for writer in writers))
        for row in rows[500:3_000]:
            writers[0].add(row)
        assert [writer.waiting for writer in writers] == [3_000, 500]
        writers[1].close()
    until(lambda: not writers[0].waiting)
    writers[0].close()
    third = RowWriter(lambda: store, tmp_path / "journal")
    assert third.flush(PATIENCE_S)
    third.close()
    assert store.ledger.rows(LedgerFilter(), limit=9_999) == rows
    assert list((tmp_path / "journal").iterdir()) == []
    store.close()


def test_rows_that_wait_are_waited_for_while_others_come(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    """Whenever rows are saved, another one comes, so that one always waits."""
    with closing(open_records(Settings(store=addresses["sqlite"]))) as store:
        writer = RowWriter(lambda: store, tmp_path / "journal")
        numbers, ended = count(10), threading.Event()

        def add_another(kind: str, saved: Sequence[Any]) -> None:
            if not ended.is_set():
                writer.add(booked(next(numbers)))

        writer.saved = add_another
        for number in range(10):
            writer.add(booked(number))
        for _ in range(3):
            assert writer.flush(5.0)
            assert writer.waiting
        saved = {row.id for row in store.ledger.rows(LedgerFilter(), limit=99_999)}
        assert saved >= {booked(number).id for number in range(10)}
        ended.set()
        writer.close()


# backups


def filled(store: RecordStore) -> None:
    store.records.note_answers([answered(1)], days=10**5, at_most=100)
    store.records.save_feedback(vote(answered(1, question="q\nq", text="t", sources=({"n": 1},))))
    timing = SectionTiming(size=1, first_s=1 / 3, chars=2, write_s=1e-3)
    store.records.save_timings([("m", NOON, timing)], [("m", 0.1)], keep=3)
    store.ledger.book([booked(number) for number in range(2_500)])
    store.ledger.book([booked(9999, cost=None, error="lost")])
    store.keys.add(key(1, groups=("ü",), models=("m",)), "hash-1")
    row = SavedConversation(id="c", title="租户", at=NOON, turns='["\\u0000"]')
    store.conversations.save("anna", row, at_most=3)
    share = Shared(id="s", tenant="a", owner="anna", turns="[]")
    store.conversations.save_share(share, days=10**5, at_most=9)
    store.rules.count_hits([hit(1)], days=10**5, at_most=100)
    store.history.save("a", [HistoryRow(step_s=60, at=NOON, counts=b"\0\1")], drop_before={})
    store.history.save_alerts("a", {"Watchdog": b"\2"})
    store.secret()


def dumped(address: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table, sorted, without the times of migrations and backups."""
    tables = (
        *("answers", "feedback", "pace", "pace_misses", "conversations", "shares", "ledger"),
        *("keys", "key_hashes", "versions", "meta", "rule_hits", "collected", "history", "alerts"),
    )

    def plain(rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return sorted((tuple(row) for row in rows if row[0] != "backup_at"), key=repr)

    if address.startswith("sqlite"):
        with closing(sqlite3.connect(address.removeprefix("sqlite:///"))) as db:
            return {t: plain(db.execute(f"SELECT * FROM {t}").fetchall()) for t in tables}
    with psycopg.connect(address) as connection:
        return {
            t: plain(connection.execute(f"SELECT * FROM {t}".encode()).fetchall()) for t in tables
        }


def command(store: str, folder: Path, *args: str) -> Result:
    file = folder / "slipway.yaml"
    file.write_text(json.dumps({"store": store}))
    return CliRunner().invoke(main, ["store", *args, "--config", str(file)])


@pytest.mark.parametrize("source", KINDS)
def test_a_backup_restored_into_the_other_kind_of_store_is_equal_row_for_row(
    source: str, addresses: dict[str, str], tmp_path: Path
) -> None:
    target = KINDS[1 - KINDS.index(source)]
    with closing(open_records(Settings(store=addresses[source]))) as store:
        filled(store)
    file = tmp_path / "records.backup"
    saved = command(addresses[source], tmp_path, "backup", str(file), "--json")
    assert saved.exit_code == 0, saved.output
    assert json.loads(saved.stdout)["ledger"] == 2_501
    assert file.stat().st_mode & 0o777 == 0o600
    restored = command(addresses[target], tmp_path, "restore", str(file))
    assert restored.exit_code == 0, restored.output
    assert dumped(addresses[target]) == dumped(addresses[source])
    refused = command(addresses[target], tmp_path, "restore", str(file))
    assert refused.exit_code == 2
    assert "it holds rows already" in refused.stderr
    again = command(addresses[target], tmp_path, "restore", str(file), "--replace")
    assert again.exit_code == 0, again.output
    assert dumped(addresses[target]) == dumped(addresses[source])


def edited(file: Path, **head: Any) -> Path:
    """Write a copy of a backup with other values in its first line."""
    with gzip.open(file, "rt") as lines:
        first, *rest = lines.readlines()
    to = file.with_suffix(f".{'-'.join(head)}")
    with gzip.open(to, "wt") as out:
        out.writelines([json.dumps({**json.loads(first), **head}) + "\n", *rest])
    return to


def test_a_backup_that_cannot_be_used_is_refused_and_changes_nothing(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    with closing(open_records(Settings(store=addresses["sqlite"]))) as store:
        filled(store)
    file = tmp_path / "records.backup"
    assert command(addresses["sqlite"], tmp_path, "backup", str(file)).exit_code == 0
    cut = tmp_path / "cut"
    cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    short = tmp_path / "short"
    with gzip.open(file, "rt") as lines, gzip.open(short, "wt") as out:
        out.writelines(lines.readlines()[:-1])
    text = tmp_path / "text"
    text.write_text("hello")
    damaged = tmp_path / "damaged"
    damaged.write_bytes(file.read_bytes()[:10] + b"\xff" * 40)  # behind the head of gzip
    with pytest.raises(zlib.error), gzip.open(damaged) as lines:
        lines.read()
    for bad, says in (
        (damaged, "this is no backup, or it is damaged"),
        (edited(file, schema="9"), "this is no backup, or it is damaged (its first line)"),
        (edited(file, schema=9999, version="9.0"), "Slipway 9.0 made this backup (schema 9999)"),
        (cut, "its end is missing"),
        (short, "its end is missing"),
        (text, "this is no backup"),
        (tmp_path / "none", "there is no such file"),
    ):
        refused = command(addresses["postgresql"], tmp_path, "restore", str(bad))
        assert refused.exit_code == 2, refused.output
        assert says in refused.stderr
    with closing(open_records(Settings(store=addresses["postgresql"]))) as store:
        assert store.ledger.rows(LedgerFilter(), limit=9) == []
        assert store.keys.load()[1] == []


def test_an_older_backup_is_migrated(addresses: dict[str, str], tmp_path: Path) -> None:
    older = tmp_path / "older.backup"
    with gzip.open(older, "wt") as out:
        head = {"slipway_backup": 1, "schema": 4, "version": "0.0", "made_at": 1, "kind": "sqlite"}
        columns = ["id", "at", "tenant", "owner", "app", "model", "served_by", "prompt"]
        lines: list[Any] = [head, {"table": "answers", "columns": columns}]
        lines += [["ans-1", NOON, "acme", "key-1", "docs", "m", "model", None]]
        lines += [{"end": True, "rows": {"answers": 1}}]
        out.writelines(json.dumps(line) + "\n" for line in lines)
    for address in addresses.values():
        restored = command(address, tmp_path, "restore", str(older))
        assert restored.exit_code == 0, restored.output
        with closing(open_records(Settings(store=address))) as store:
            assert store.records.find_answer("ans-1") == answered(1, at=NOON)
            assert store.ledger.rows(LedgerFilter(), limit=9) == []


def test_old_rows_are_pruned_and_the_ledger_only_if_asked(
    addresses: dict[str, str], tmp_path: Path
) -> None:
    for address in addresses.values():
        with closing(open_records(Settings(store=address))) as store:
            filled(store)
            store.keys.revoke("key-1", NOON)
        counted = command(address, tmp_path, "prune", "--ledger", "31d", "--dry-run", "--json")
        assert json.loads(counted.stdout)["ledger"] == 2_501
        done = command(address, tmp_path, "prune", "--keys", "1d", "--json")
        assert json.loads(done.stdout) == {"answers": 1, "shares": 0, "keys": 1}
        done = command(address, tmp_path, "prune", "--ledger", "31d", "--json")
        assert json.loads(done.stdout)["ledger"] == 2_501
        rows = dumped(address)
        assert [rows["ledger"], rows["keys"], rows["key_hashes"]] == [[], [], []]
    refused = command(addresses["sqlite"], tmp_path, "prune", "--ledger=-1d")
    assert "--ledger: `-1d` is not a duration" in refused.stderr
    refused = command(addresses["sqlite"], tmp_path, "prune", "--ledger", "730")
    assert "--ledger: `730` has no unit; write `730d` if it means days" in refused.stderr
    refused = command(addresses["sqlite"], tmp_path, "prune", "--ledger", "7d")
    assert "--ledger: `7d` is less than 31 days" in refused.stderr


def test_a_postgresql_that_cannot_be_used_is_refused_with_the_fix(
    server: Postgres, addresses: dict[str, str], tmp_path: Path
) -> None:
    address = addresses["postgresql"]
    assert command(address, tmp_path, "migrate").exit_code == 0
    assert "it is up to date" in command(address, tmp_path, "migrate").stdout
    name = address.rpartition("/")[2]
    server.run(name, "INSERT INTO migrations VALUES (9999, 0)")
    for bad, says in (
        (address, "a newer Slipway wrote it (schema 9999"),
        (server.url("nowhere", password="hush"), 'database "nowhere" does not exist'),
        ("postgresql://x:hush@127.0.0.1:1/db", "refused"),
        ("postgresql:///", "it names no host"),
        ("mysql://u:hush@h/db", "`mysql://u:…@h/db` is not a store"),
    ):
        refused = command(bad, tmp_path, "prune")
        assert refused.exit_code == 2, refused.output
        assert says in refused.stderr
        assert "hush" not in refused.stderr


def test_check_opens_the_store_and_says_what_is_wrong(
    server: Postgres, addresses: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "slipway.yaml"

    def checked(store: str) -> Result:
        file.write_text(json.dumps({"store": store}))
        return CliRunner().invoke(main, ["check", "--port", "0", "--config", str(file)])

    for address in addresses.values():
        assert checked(address).exit_code == 0
    refused = checked(server.url("nowhere"))
    assert refused.exit_code == 2
    assert 'database "nowhere" does not exist' in refused.stderr
    literal = checked(f"postgresql://slipway:hush@127.0.0.1:{server.port}/postgres")
    assert "store holds a literal password; write `${NAME}`" in literal.stdout
    assert "hush" not in literal.output


def test_a_wrong_password_is_named_and_not_shown(server: Postgres, tmp_path: Path) -> None:
    rules = server.folder / "data" / "pg_hba.conf"
    trusting = rules.read_text()
    server.run("postgres", "CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{trusting}")
    server.run("postgres", "SELECT pg_reload_conf()")
    address = f"postgresql://guarded:wrong@127.0.0.1:{server.port}/postgres"
    refused = command(address, tmp_path, "migrate")
    rules.write_text(trusting)
    server.run("postgres", "SELECT pg_reload_conf()")
    assert refused.exit_code == 2
    assert "password authentication failed" in refused.stderr
    assert "correct `store`" in refused.stderr
    assert "wrong" not in refused.stderr
