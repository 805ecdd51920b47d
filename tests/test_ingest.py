"""Test that changes of files are found at once, whatever was there before."""

import contextlib
import itertools
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openpyxl import Workbook

import plain_http
from knowledge_base import KnowledgeBase
from processes import Serving, run, serving
from slipway.errors import SettingsError
from slipway.knowledge import opened
from slipway.knowledge.embedding import Embedder
from slipway.settings import folders
from slipway.store import Store
from waiting import PATIENCE_S, seconds_until, until

WORDS_ONLY = {"embedding": "none"}


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    write(folder / "leave.md", "# Leave\n\nThere are thirty days of leave in a year.\n")
    write(folder / "sub" / "travel.md", "# Travel\n\nTrains are booked by the office.\n")
    return folder


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def ask(server: Serving, question: str, **headers: str) -> list[dict[str, Any]]:
    """Return the sources of the answer."""
    answer = server.post("/v1/answers", {"question": question}, headers=headers)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["sources"])


def texts(server: Serving, question: str) -> str:
    return "\n".join(source["text"] for source in ask(server, question))


def listed(server: Serving, **headers: str) -> dict[str, dict[str, Any]]:
    return {
        each["path"]: each for each in server.get("/v1/documents", headers=headers).json()["data"]
    }


def ingest(
    cwd: Path, *args: str, env: dict[str, str] | None = None, code: int = 0
) -> dict[str, Any]:
    done = run("ingest", "--json", *args, cwd=cwd, env=env)
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout)["docs"])


def settings_file(tmp_path: Path, **settings: Any) -> str:
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings))
    return str(file)


# A running server


@pytest.fixture
def server(tmp_path: Path, docs: Path) -> Iterator[Serving]:
    with serving(tmp_path, "--docs", str(docs), settings=WORDS_ONLY) as serves:
        yield serves


def test_a_question_right_after_an_edit_never_shows_the_old_text(
    server: Serving, docs: Path
) -> None:
    for days in range(31, 61):
        write(docs / "leave.md", f"# Leave\n\nThere are {days} days of leave in a year.\n")
        now = f"There are {days} days of leave in a year."
        assert texts(server, "days of leave in a year") in (now, ""), (
            "what was read half written is read again"
        )
        until(lambda: texts(server, "days of leave in a year") == now)  # noqa: B023


def test_an_edit_that_keeps_size_and_time_is_seen(server: Serving, docs: Path) -> None:
    """Reproducible builds make such edits."""
    file = docs / "leave.md"
    os.utime(file, (1_000_000_000, 1_000_000_000))
    until(lambda: "thirty" in texts(server, "days of leave"))
    file.write_text(file.read_text().replace("thirty", "twenty"))
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert "twenty" in texts(server, "days of leave")


def test_new_words_are_found_within_a_second(server: Serving, docs: Path) -> None:
    took = list[float]()
    for number in range(5):
        write(docs / "leave.md", f"# Leave\n\nAsk for sabbatical{number} in writing.\n")
        word = f"sabbatical{number}"
        took.append(seconds_until(lambda word=word: word in texts(server, word)))  # type: ignore[misc]
        time.sleep(0.4)
    assert sorted(took)[2] <= 0.9 + server.at_once_s(), took


def test_a_deleted_file_and_its_passages_disappear_at_once(server: Serving, docs: Path) -> None:
    (source,) = ask(server, "days of leave")
    (docs / "leave.md").unlink()
    assert server.get(f"/v1/passages/{source['id']}").status_code == 404
    assert ask(server, "days of leave") == []
    (source,) = ask(server, "trains office")
    shutil.rmtree(docs / "sub")
    (docs / "sub").write_text("a file where the folder was")
    assert ask(server, "trains office") == []


def test_old_passages_of_an_edited_file_disappear_at_once(server: Serving, docs: Path) -> None:
    (source,) = ask(server, "days of leave")
    write(docs / "leave.md", "# Leave\n\nSomething else.\n")
    assert server.get(f"/v1/passages/{source['id']}").status_code == 404


def test_new_and_renamed_files_are_found_under_their_names(server: Serving, docs: Path) -> None:
    write(docs / "new" / "boats.md", "# Boats\n\nThe ferry leaves at noon.\n")
    until(lambda: [each["path"] for each in ask(server, "ferry noon")] == ["new/boats.md"])
    (docs / "new" / "boats.md").rename(docs / "ships.md")
    assert "new/boats.md" not in [each["path"] for each in ask(server, "ferry noon")]
    until(lambda: [each["path"] for each in ask(server, "ferry noon")] == ["ships.md"])


def test_a_missing_folder_keeps_its_documents_and_is_followed_when_it_returns(
    server: Serving, docs: Path, tmp_path: Path
) -> None:
    docs.rename(tmp_path / "away")
    time.sleep(1.5)
    assert "thirty" in texts(server, "days of leave")
    (tmp_path / "away").rename(docs)
    write(docs / "leave.md", "# Leave\n\nThere are ninety days of leave.\n")
    assert "ninety" in texts(server, "days of leave")
    write(docs / "late.md", "# Late\n\nThe lighthouse is repaired.\n")
    until(lambda: ask(server, "lighthouse") != [])


def test_another_folder_in_its_place_is_followed(
    server: Serving, docs: Path, tmp_path: Path
) -> None:
    write(tmp_path / "next" / "leave.md", "# Leave\n\nThere are seven days of leave.\n")
    docs.rename(tmp_path / "away")
    (tmp_path / "next").rename(docs)
    assert "thirty" not in texts(server, "days of leave")
    until(lambda: listed(server).keys() == {"leave.md"})
    write(docs / "more.md", "# More\n\nThe jetty is long.\n")
    until(lambda: ask(server, "jetty") != [])


def upload(server: Serving, name: str, text: str, key: str = "", **fields: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return plain_http.post(
        f"{server.url}/v1/documents",
        files={"file": (name, text.encode())},
        data=fields,
        headers=headers,
        timeout=PATIENCE_S,
    )


KEYS = {
    "board": {"key": "key-of-the-board", "groups": ["board", "staff"], "documents": True},
    "staff": {"key": "key-of-the-staff", "groups": ["staff"], "documents": True},
}
WITH_KEYS = {**WORDS_ONLY, "keys": list(KEYS.values())}


def bearer(who: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEYS[who]['key']}"}


def test_uploads_survive_a_restart_and_their_tags_can_be_changed(
    tmp_path: Path, docs: Path
) -> None:
    board = str(KEYS["board"]["key"])
    with serving(tmp_path, "--docs", str(docs), settings=WITH_KEYS) as server:
        assert (
            upload(
                server, "plan.md", "# Plan\n\nWe buy the quarry.", board, groups="board", tags="a,b"
            ).status_code
            == 201
        )
        (path,) = {each["path"] for each in ask(server, "quarry", **bearer("board"))}
        assert ask(server, "quarry", **bearer("staff")) == []
    with serving(tmp_path, "--docs", str(docs), settings=WITH_KEYS) as server:
        assert listed(server, **bearer("board"))[path]["tags"] == ["a", "b"]
        assert ask(server, "quarry", **bearer("staff")) == []
        made = upload(
            server, "plan.md", "# Plan\n\nWe buy the quarry.", board, groups="staff", tags="b"
        ).json()["data"][0]
        assert (made["path"], made["tags"]) == (path, ["b"])
        assert [each["path"] for each in ask(server, "quarry", **bearer("staff"))] == [path]
        assert (
            server.get(f"/v1/documents/{made['id']}", headers=bearer("staff")).json()["state"]
            == "done"
        )
        assert (
            plain_http.delete(
                f"{server.url}/v1/documents/{made['id']}", headers=bearer("staff")
            ).status_code
            == 200
        )
        assert ask(server, "quarry", **bearer("board")) == []
        assert listed(server, **bearer("board")).keys() == {"leave.md", "sub/travel.md"}


def test_an_upload_with_unknown_readers_is_hidden(tmp_path: Path, docs: Path) -> None:
    with serving(tmp_path, "--docs", str(docs), settings=WITH_KEYS) as server:
        upload(
            server,
            "plan.md",
            "# Plan\n\nWe buy the quarry.",
            str(KEYS["board"]["key"]),
            groups="board",
        )
    for file in (tmp_path / ".slipway").glob("slipway.db*"):
        file.unlink()
    with serving(tmp_path, "--docs", str(docs), settings=WITH_KEYS) as server:
        assert ask(server, "quarry", **bearer("staff")) == []
        assert listed(server, **bearer("staff")).keys() == {"leave.md", "sub/travel.md"}
        assert "who may read it is not known any more" in server.log


def test_the_end_of_a_server_does_not_wait_for_a_slow_file(tmp_path: Path, docs: Path) -> None:
    import hostile

    with serving(tmp_path, "--docs", str(docs), settings=WORDS_ONLY) as server:
        name, slow = next(iter(hostile.SLOW.items()))
        (docs / name).write_bytes(slow.make())
        time.sleep(6.5)  # it is left for later after 5 s, and is read now with a long deadline
        limit_s = 4 + 10 * server.at_once_s()
        server.terminate()
        before = time.monotonic()
        assert server.process.wait(PATIENCE_S) == 0
        assert time.monotonic() - before < limit_s
        assert "Traceback" not in server.log
    assert ingest_states(tmp_path)[name] is None, "it did not fail: it was not read"


def ingest_states(tmp_path: Path) -> Any:
    db = sqlite3.connect(tmp_path / ".slipway" / "slipway.db")
    found = dict(db.execute("SELECT path, state FROM documents").fetchall())
    db.close()
    return type("States", (dict,), {"__missing__": lambda self, key: None})(found)


# `slipway ingest`


def test_a_second_reading_reads_and_embeds_nothing(
    tmp_path: Path, docs: Path, embedder: Embedder
) -> None:
    time.sleep(0.1)
    first = ingest(tmp_path, "--docs", str(docs))
    assert (first["read"], first["unchanged"], first["embedded"], first["dense"]) == (
        2,
        0,
        2,
        "2/2",
    )
    second = ingest(tmp_path, "--docs", str(docs))
    assert (second["read"], second["unchanged"], second["embedded"], second["dense"]) == (
        0,
        2,
        0,
        "2/2",
    )
    os.utime(docs / "leave.md")
    write(docs / "copy.md", (docs / "leave.md").read_text())
    third = ingest(tmp_path, "--docs", str(docs))
    assert (third["read"], third["unchanged"], third["embedded"]) == (1, 2, 0), (
        "the same text is not embedded twice"
    )


def test_files_under_a_name_that_is_no_text_are_read_like_others(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / os.fsdecode(b"caf\xe9.md")).write_text("# Coffee\n\nIt is hot.")
    write(tmp_path / "docs" / "front.md", '---\ntitle: "\\ud800"\n---\nThe quay.\n')
    knowledge = KnowledgeBase([tmp_path / "docs"])
    assert knowledge.build().read + knowledge.build().unchanged >= 2
    assert [hit.passage.path for hit in knowledge.search("hot coffee")] == ["caf\ufffd.md"]


def test_what_is_missing_of_a_document_is_reported_everywhere(tmp_path: Path, docs: Path) -> None:
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.append(["Price of tea", "Twice"])
    sheet.append([40, "=A2*2"])
    book.save(docs / "order.xlsx")
    config = settings_file(tmp_path, **WORDS_ONLY)
    done = run("ingest", "--docs", str(docs), "--config", config, cwd=tmp_path)
    assert done.returncode == 0, "the document is searched all the same"
    missing = "1 formula has no stored value. Open it in Excel and save it, so that the formulas"
    assert f"read in part: order.xlsx: {missing}" in done.stdout
    report = ingest(tmp_path, "--docs", str(docs), "--config", config)
    assert report["partly"].keys() == {"order.xlsx"}
    with serving(tmp_path, "--docs", str(docs), "--config", config) as server:
        (only,) = server.get("/v1/documents?state=partly").json()["data"]
        assert (only["path"], only["state"]) == ("order.xlsx", "partly")
        assert only["reason"] == "1 formula has no stored value."
        assert only["next"].startswith("Open it in Excel")
        assert only["passages"] == 1
        assert ask(server, "What is the price of tea?")[0]["path"] == "order.xlsx"


def test_the_report_for_people_names_each_failure_and_its_reason(
    tmp_path: Path, docs: Path
) -> None:
    (docs / "bad.txt").write_bytes(bytes(range(1, 32)) + b"\xff")
    config = settings_file(tmp_path, **WORDS_ONLY)
    done = run("ingest", "--docs", str(docs), "--config", config, cwd=tmp_path)
    assert done.returncode == 1
    assert "docs: 2 documents with 2 passages" in done.stdout
    assert (
        "2 read, 0 unchanged, 0 removed, 1 failed; search by meaning: off: switched off in the "
        "settings" in done.stdout
    )
    assert "failed: bad.txt: Its encoding could not be determined" in done.stdout
    assert "reading" in done.stderr
    reported = ingest(tmp_path, "--docs", str(docs), "--config", config, code=1)
    assert reported["failed"].keys() == {"bad.txt"}
    (docs / "bad.txt").unlink()
    assert ingest(tmp_path, "--docs", str(docs), "--config", config)["failed"] == {}
    nothing = run("ingest", "--docs", str(tmp_path / "nowhere"), cwd=tmp_path)
    assert nothing.returncode == 2
    assert "there is no folder or file" in nothing.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_server_with_keys_does_the_ingesting(tmp_path: Path, docs: Path, host: str) -> None:
    with serving(tmp_path, "--docs", str(docs), "--host", host, settings=WITH_KEYS) as server:
        (docs / "bad.txt").write_bytes(bytes(range(1, 32)) + b"\xff")
        write(docs / "new.md", "# New\n\nThe crane is yellow.\n")
        reported = ingest(
            tmp_path, "--docs", str(docs), env={"HTTP_PROXY": "http://127.0.0.1:9"}, code=1
        )
        assert (reported["documents"], reported["passages"], list(reported["failed"])) == (
            3,
            3,
            ["bad.txt"],
        )
        assert ask(server, "crane yellow", **bearer("staff")) != []
        other = run("ingest", "--docs", str(docs / "sub"), cwd=tmp_path)
        assert other.returncode == 1
        assert "does not serve" in other.stderr
        lock = json.loads((tmp_path / ".slipway" / "lock").read_text())
        assert (tmp_path / ".slipway" / "lock").stat().st_mode & 0o077 == 0
        assert (
            server.get(
                "/v1/documents/scan", headers={"Authorization": f"Bearer {lock['token']}"}
            ).status_code
            == 200
        )
        assert (
            server.get(
                "/v1/documents/scan", headers={"Authorization": "Bearer not-the-token"}
            ).status_code
            == 401
        )


def test_ingest_ends_with_a_sentence_if_another_command_uses_the_store(
    tmp_path: Path, docs: Path
) -> None:
    store = Store(tmp_path / ".slipway" / "slipway.db")
    done = run("ingest", "--docs", str(docs), cwd=tmp_path)
    assert done.returncode == 1
    assert f"The store is in use by process {os.getpid()}." in done.stderr
    store.close()


def test_a_document_that_is_replaced_is_never_missing(tmp_path: Path, docs: Path) -> None:
    """Neither while its file is, nor while it is read and indexed again."""
    known, stop = KnowledgeBase([docs]), threading.Event()
    known.build()

    def edit() -> None:
        for number in itertools.count():
            new = docs / ".new"
            new.write_text(f"# Leave\n\nThere are {number} days of leave in a year.\n")
            new.replace(docs / "leave.md")
            known.build()
            if stop.is_set():
                return

    editor = threading.Thread(target=edit)
    editor.start()
    try:
        found = [[hit.passage.path for hit in known.search("days of leave")] for _ in range(400)]
    finally:
        stop.set()
        editor.join()
    assert found == [["leave.md"]] * 400


# A store that is in use, broken, or incomplete


def test_a_second_server_on_a_store_says_so_and_serves(tmp_path: Path, docs: Path) -> None:
    with (
        serving(tmp_path, "--docs", str(docs), settings=WORDS_ONLY) as first,
        serving(tmp_path, "--docs", str(docs)) as second,
    ):
        until(lambda: "thirty" in texts(second, "days of leave"))
        assert (
            f"is in use by process {first.process.pid} at {first.url}: a temporary copy is used"
            in second.log
        )


@pytest.mark.parametrize("how", ["text", "head", "middle", "tables"])
def test_a_broken_store_ends_the_start_with_a_sentence(
    tmp_path: Path, docs: Path, how: str
) -> None:
    for n in range(60):
        write(docs / f"{n}.md", f"# Page {n}\n\n{'Many words are here. ' * 60}\n")
    known = KnowledgeBase([docs], Store(tmp_path / "s" / "slipway.db"))
    known.build()
    known.close()
    file = tmp_path / "s" / "slipway.db"
    data = bytearray(file.read_bytes())
    if how == "text":
        data = bytearray(b"this is no database" * 99)
    elif how == "head":
        data[:100] = bytes(100)
    elif how == "middle":
        data[4096:] = bytes(len(data) - 4096)
    else:
        data[100:4096] = os.urandom(3996)
    file.write_bytes(data)
    with pytest.raises(
        SettingsError,
        match=r"slipway\.db cannot be used \(.*\); move it away, and the documents are read again",
    ):
        opened(Store(file), [docs])


def spoilt(how: str, file: Path) -> None:
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        for at in range(len(data) // 4, max(len(data) // 2, len(data) // 4 + 1)):
            data[at] ^= 0xFF
        file.write_bytes(data)


@pytest.mark.parametrize("how", ["gone", "cut", "flipped"])
def test_a_broken_index_is_rebuilt(tmp_path: Path, docs: Path, how: str) -> None:
    for n in range(20):
        write(docs / f"{n}.md", f"# Page {n}\n\nWords about subject{n}.\n")
    known = KnowledgeBase([docs], Store(tmp_path / "s" / "slipway.db"))
    known.build()
    known.close()
    sound = tmp_path / "sound"
    shutil.copytree(tmp_path / "s" / "knowledge", sound)
    names = [
        file.relative_to(sound)
        for file in sound.rglob("*")
        if file.is_file() and file.suffix != ".lock"
    ]
    assert len(names) >= 12
    for name in names:
        shutil.rmtree(tmp_path / "s" / "knowledge")
        shutil.copytree(sound, tmp_path / "s" / "knowledge")
        spoilt(how, tmp_path / "s" / "knowledge" / name)
        known = KnowledgeBase([docs], Store(tmp_path / "s" / "slipway.db"))
        assert [hit.passage.path for hit in known.search("subject7")] == ["7.md"], name
        assert len(known.knowledge.synchronizer.collection.index) == known.counts.passages == 22, (
            name
        )
        known.close()


def test_a_full_disk_under_the_index_is_made_good(
    tmp_path: Path, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tantivy

    known = KnowledgeBase([docs])
    known.build()
    write(docs / "new.md", "# New\n\nThe crane is yellow.\n")
    with monkeypatch.context() as patched:
        patched.setattr(
            tantivy,
            "Document",
            lambda **_: (_ for _ in ()).throw(OSError(28, "No space left on device")),
        )
        with pytest.raises(OSError, match="No space"):
            known.build()
    write(docs / "newer.md", "# Newer\n\nThe winch is green.\n")
    known.build()
    assert [hit.passage.path for hit in known.search("crane yellow")] == ["new.md"]
    assert [hit.passage.path for hit in known.search("winch green")] == ["newer.md"]


# Meaning


def test_without_weights_the_keywords_serve_and_say_so(tmp_path: Path, docs: Path) -> None:
    cache = tmp_path / "cache"
    with serving(tmp_path, "--docs", str(docs), env={"SLIPWAY_CACHE": str(cache)}) as server:
        until(lambda: "thirty" in texts(server, "days of leave"))
        until(lambda: "off" in server.get("/readyz").json()["knowledge"]["docs"]["dense"])
        assert (
            "slipway weights pull minilm"
            in server.get("/readyz").json()["knowledge"]["docs"]["dense"]
        )
        assert "Search uses keywords only" in server.log


def test_another_model_embeds_behind_the_one_before(
    tmp_path: Path, docs: Path, embedder: Embedder
) -> None:
    for n in range(118):
        write(
            docs / f"{n}.md",
            f"# Page {n}\n\nThe harbour has pier {n}, and {'boats ' * 40}lie there.\n",
        )
    store = tmp_path / ".slipway" / "slipway.db"
    assert ingest(tmp_path, "--docs", str(docs))["dense"] == "120/120"
    other = tmp_path / "other"
    shutil.copytree(folders.cache() / "weights" / "minilm", other)
    tokens = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(tokens, indent=1))
    settings = {"embedding": str(other), "store": f"sqlite:///{store}"}
    with serving(tmp_path, "--docs", str(docs), settings=settings) as server:
        until(lambda: "by the previous model" in dense(server))
        assert dense(server).startswith("120/120 by the previous model")
        assert ask(server, "how many holidays may I take off work?")[0]["path"] == "leave.md", (
            "found by the old vectors"
        )
        until(lambda: dense(server) == "120/120")
        assert ask(server, "how many holidays may I take off work?")[0]["path"] == "leave.md"
        until(lambda: models_in(store) == 1)
    with serving(tmp_path, "--docs", str(docs), settings=settings) as server:
        until(lambda: dense(server) == "120/120")


def dense(server: Serving) -> str:
    return str(server.get("/readyz").json()["knowledge"]["docs"]["dense"])


def models_in(store: Path) -> int:
    with contextlib.closing(sqlite3.connect(store)) as db:
        return int(db.execute("SELECT count(DISTINCT model) FROM vectors").fetchone()[0])
