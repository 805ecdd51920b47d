"""What happened to the latest answers: their records, kept in memory until the server ends, and
found by the answer's id.

A record says which models were tried, and how that ended and when; never what was asked or
answered.
"""

import time
from typing import Any

import msgspec

from slipway.types import AnswerDone, AttemptDone, FeedbackGiven

KEPT = 2000  # answers
MOST = 200  # records of one answer, which may be tried again any number of times; the latest count
Kept = tuple[float, AnswerDone | AttemptDone]  # seconds since the epoch at which it ended


class Traces:
    """Subscribes to records (`emit`)."""

    def __init__(self) -> None:
        self.records: dict[str, list[Kept]] = {}  # by the answer's id, the oldest first

    def emit(self, record: AnswerDone | AttemptDone | FeedbackGiven) -> None:
        if isinstance(record, AttemptDone):
            self._keep(record.answer_id, record)
        elif isinstance(record, AnswerDone):
            self._keep(record.id, record)

    def _keep(self, answer_id: str, record: AnswerDone | AttemptDone) -> None:
        records = self.records.get(answer_id)
        if records is None:
            records = self.records[answer_id] = []
            if len(self.records) > KEPT:
                del self.records[next(iter(self.records))]
        records.append((time.time(), record))
        if len(records) > MOST:
            del records[0]

    def find(self, answer_id: str, owner: str | None) -> dict[str, Any] | None:
        """The trace of an answer that has ended, of this owner, or of anybody where `owner` is
        None.
        """
        records = self.records.get(answer_id, [])
        owners = {record.owner for _, record in records if isinstance(record, AnswerDone)}
        if not owners or owner not in (None, *owners):
            return None
        return {"id": answer_id, "tries": tries(records)}


def tries(records: list[Kept]) -> list[dict[str, Any]]:
    """Each try with its calls to models; `answer` is None for one that is under way. Fields are
    those of the records.
    """
    found, attempts = list[dict[str, Any]](), list[dict[str, Any]]()
    for at, record in records:
        if isinstance(record, AttemptDone):
            attempts.append({"ended_at": at, **fields(record)})
        else:
            found.append({"answer": {"ended_at": at, **fields(record)}, "attempts": attempts})
            attempts = []
    return [*found, {"answer": None, "attempts": attempts}] if attempts else found


def fields(record: AnswerDone | AttemptDone) -> dict[str, Any]:
    """All but what is said once, and who asked."""
    return {
        name: value
        for name, value in msgspec.to_builtins(record).items()
        if name not in ("id", "answer_id", "owner")
    }
