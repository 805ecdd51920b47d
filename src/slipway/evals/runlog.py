"""Keep the log of a run: a JSONL file with everything that its report needs.

A line is a `run` (what was asked, how, and of whom), an `item` (in the order in which they were
asked), an `answer` with its raw output, or a judge's `verdict`. Of two lines about the same thing,
the latest counts. Nothing is ever changed; a run that goes on writes behind what is there.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from slipway.errors import SettingsError
from slipway.evals.items import Item
from slipway.evals.locking import lock
from slipway.evals.scoring import Cited
from slipway.types import Record


class Reply(Record, frozen=True, kw_only=True):
    """What one candidate said to one item. `error` is the sentence of what failed; the time to the
    first token, the time for each further token and the cost are None if nobody knows them.
    """

    text: str = ""
    error: str = ""
    served_by: str | None = None
    model: str | None = None
    cited: tuple[Cited, ...] = ()
    ttft_s: float | None = None
    duration_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: str | None = None

    @property
    def tpot_s(self) -> float | None:
        """Return the seconds for each token after the first."""
        if self.ttft_s is None or self.duration_s is None or (self.output_tokens or 0) < 2:
            return None
        return (self.duration_s - self.ttft_s) / ((self.output_tokens or 0) - 1)


class RunLine(Record, frozen=True, kw_only=True, tag_field="line", tag="run"):
    """What was asked, how, and of whom: candidates by their names, with what each is. `order` are
    the items' ids as they are asked. `at` is in seconds since the epoch.
    """

    set: str
    digest: str
    title: str
    scorer: str
    style: str
    examples: bool
    parameters: dict[str, Any]
    extractor: int
    wording: int
    version: str
    candidates: dict[str, str]
    order: tuple[str, ...]
    at: float
    stop: bool = False
    budget_usd: float | None = None
    judge: str | None = None


class ItemLine(Record, frozen=True, kw_only=True, tag_field="line", tag="item"):
    item: Item
    hash: str


class AnswerLine(Record, frozen=True, kw_only=True, tag_field="line", tag="answer"):
    """`made` is another one for another candidate, prompt, or parameters. `cached`: it was paid for
    in an earlier run, and its times are of then.
    """

    candidate: str
    item: str
    item_hash: str
    prompt_hash: str
    made: str
    at: float
    reply: Reply
    cached: bool = False


class VerdictLine(Record, frozen=True, kw_only=True, tag_field="line", tag="verdict"):
    """Whether an answer is right, by the judge: asked twice, with answer and reference in both
    orders. None: the judge failed or said neither.
    """

    candidate: str
    item: str
    made: str
    judge: str
    verdicts: tuple[bool | None, bool | None]
    cost_usd: str | None = None


Line = RunLine | ItemLine | AnswerLine | VerdictLine


class RunLog:
    """All lines of one file. The file belongs to one run until its end."""

    def __init__(self, file: Path, *, writes: bool = False) -> None:
        self.file = file
        self.run: RunLine | None = None
        self.items: dict[str, Item] = {}
        self.answers: dict[tuple[str, str], AnswerLine] = {}
        self.verdicts: dict[tuple[str, str], VerdictLine] = {}
        self._out: BinaryIO | None = None
        if writes:
            self._open()
        else:
            self._read_all()

    def _open(self) -> None:
        with contextlib.ExitStack() as undo:
            try:
                self.file.parent.mkdir(parents=True, exist_ok=True)
                out = undo.enter_context(self.file.open("a+b"))
            except OSError as error:
                raise self._broken("--save", "written", error) from None
            lock(out, self.file)
            out.seek(0)
            data = out.read()
            end = data.rfind(b"\n") + 1
            self._take_all(data[:end])
            if data[end:]:  # a line that was being written when the process ended
                if not data[end:].startswith(b'{"line":'):
                    raise self._alien(data.count(b"\n") + 1)
                out.truncate(end)
            undo.pop_all()
            self._out = out

    def _read_all(self) -> None:
        try:
            data = self.file.read_bytes()
        except OSError as error:
            raise self._broken("LOG", "read", error) from None
        self._take_all(data[: data.rfind(b"\n") + 1])
        if self.run is None:
            raise SettingsError([f"{self.file}: there is no run in it; make one: slipway eval run"])

    def _take_all(self, data: bytes) -> None:
        decoder = msgspec.json.Decoder(Line)
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            try:
                self._take(decoder.decode(line))
            except msgspec.MsgspecError:
                raise self._alien(number) from None

    def _take(self, line: Line) -> None:
        match line:
            case RunLine():
                self.run = line
            case ItemLine():
                self.items[line.item.id] = line.item
            case AnswerLine():
                self.answers[line.candidate, line.item] = line
            case VerdictLine():
                self.verdicts[line.candidate, line.item] = line

    def keep(self, *lines: Line) -> None:
        """Write these lines, and remember them."""
        for line in lines:
            self._take(line)
        if self._out is not None:
            try:
                self._out.write(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
                self._out.flush()
            except OSError as error:
                raise self._broken("--save", "written", error) from None

    def answered(self, candidate: str, item: Item, made: str) -> AnswerLine | None:
        """Return the answer of this candidate, if it was made in this way and did not fail."""
        found = self.answers.get((candidate, item.id))
        return found if found is not None and found.made == made and not found.reply.error else None

    def verdict(self, answer: AnswerLine) -> VerdictLine | None:
        found = self.verdicts.get((answer.candidate, answer.item))
        return found if found is not None and found.made == answer.made else None

    def close(self) -> None:
        if self._out is not None:
            self._out.close()

    def _broken(self, what: str, verb: str, error: OSError) -> SettingsError:
        why = (error.strerror or str(error)).lower()
        return SettingsError([f"{what}: {self.file} cannot be {verb}: {why}"])

    def _alien(self, number: int) -> SettingsError:
        return SettingsError(
            [f"{self.file}:{number}: this is no line of an evaluation's log; name another file"]
        )


class Cache:
    """Replies of all runs on this machine, by what they are replies to: what was paid for once is
    not paid for again. Failures are not kept.
    """

    def __init__(self, file: Path) -> None:
        import sqlite3

        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(file, isolation_level=None, timeout=10)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS replies (made TEXT PRIMARY KEY, reply BLOB)"
            )
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                [f"{file} cannot be used as a cache ({error}); use --no-cache"]
            ) from None

    def get(self, made: str) -> Reply | None:
        row = self._db.execute("SELECT reply FROM replies WHERE made = ?", (made,)).fetchone()
        return msgspec.json.decode(row[0], type=Reply) if row else None

    def put(self, made: str, reply: Reply) -> None:
        encoded = msgspec.json.encode(reply)
        self._db.execute("INSERT OR REPLACE INTO replies VALUES (?, ?)", (made, encoded))

    def close(self) -> None:
        self._db.close()


@contextlib.contextmanager
def opened(file: Path) -> Iterator[RunLog]:
    """Open a log to write to."""
    log = RunLog(file, writes=True)
    try:
        yield log
    finally:
        log.close()
