"""Keep the records of the latest answers in memory, to be found by the answer's id.

A record says which models were tried, when, and how each try ended; never what was asked or
answered.
"""

import time
from typing import Any

import msgspec

from slipway.types import AnswerDone, AttemptDone, FeedbackGiven, PipelineRecord, RuleUsed

KEPT_ANSWERS = 2000
# An answer may be tried again any number of times; only its latest records are kept.
MAX_RECORDS = 200
TimedRecord = tuple[
    float, AnswerDone | AttemptDone | RuleUsed
]  # seconds since the epoch at which it ended


class Traces:
    """The traces of the latest KEPT_ANSWERS answers, filled by `emit`."""

    def __init__(self) -> None:
        self.records: dict[str, list[TimedRecord]] = {}  # by the answer's id, the oldest first

    def emit(self, record: PipelineRecord | FeedbackGiven) -> None:
        """Keep a record of an answer, of a call to a model, or of a rule."""
        if isinstance(record, AttemptDone):
            answer_id = record.answer_id
        elif isinstance(record, AnswerDone):
            answer_id = record.id
        elif isinstance(record, RuleUsed):
            answer_id = record.answer_id
        else:
            return
        records = self.records.get(answer_id)
        if records is None:
            records = self.records[answer_id] = []
            if len(self.records) > KEPT_ANSWERS:
                del self.records[next(iter(self.records))]
        records.append((time.time(), record))
        if len(records) > MAX_RECORDS:
            del records[0]

    def find(self, answer_id: str, owner: str | None) -> dict[str, Any] | None:
        """Return the trace of a finished answer of this owner, or None if there is none.

        If `owner` is None, answers of every owner are found.
        """
        records = self.records.get(answer_id, [])
        owners = {record.owner for _, record in records if isinstance(record, AnswerDone)}
        if not owners or owner not in (None, *owners):
            return None
        return {"id": answer_id, "tries": tries(records)}


def tries(records: list[TimedRecord]) -> list[dict[str, Any]]:
    """Group records by try, each with its calls to models and the rules that recognised the
    question. `answer` is None while a try runs.
    """
    found = list[dict[str, Any]]()
    attempts, rules = list[dict[str, Any]](), list[dict[str, Any]]()
    for at, record in records:
        if isinstance(record, AttemptDone):
            attempts.append({"ended_at": at, **record_fields(record)})
        elif isinstance(record, RuleUsed):
            rules.append(record_fields(record))
        else:
            answer = {"ended_at": at, **record_fields(record)}
            found.append({"answer": answer, "attempts": attempts, "rules": rules})
            attempts, rules = [], []
    running = {"answer": None, "attempts": attempts, "rules": rules}
    return [*found, running] if attempts or rules else found


def record_fields(record: AnswerDone | AttemptDone | RuleUsed) -> dict[str, Any]:
    """Return the fields of a record without the ids and the owner."""
    return {
        name: value
        for name, value in msgspec.to_builtins(record).items()
        if name not in ("id", "answer_id", "owner")
    }
