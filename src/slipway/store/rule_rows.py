"""What rules leave behind: every statement about their hits, and about answers that are collected
to find new rules.
"""

import json
import time
from collections.abc import Sequence

from slipway.store.contract import CollectedAnswer, RuleHits
from slipway.store.database import Database
from slipway.types import RuleUsed

_HIT = """INSERT INTO rule_hits VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (answer, rule) DO NOTHING"""
_COUNT = """SELECT app, rule,
    SUM(CASE WHEN shadow = 0 THEN 1 ELSE 0 END), SUM(shadow), MAX(at),
    SUM(CASE WHEN shadow = 0 AND EXISTS (SELECT 1 FROM feedback
        WHERE feedback.answer = rule_hits.answer AND kind = 'vote' AND helpful = 0)
        THEN 1 ELSE 0 END)
    FROM rule_hits WHERE at >= ? GROUP BY app, rule"""
_COLLECT = """INSERT INTO collected VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (answer) DO NOTHING"""
_COLLECTED = """SELECT answer, at, app, tenant, question, text, groups, sources,
    EXISTS (SELECT 1 FROM feedback WHERE feedback.answer = collected.answer
        AND (kind = 'report' OR helpful = 0))
    FROM collected WHERE app = ? ORDER BY at"""
_TRIM_S = 60.0  # between two looks for rows that are too old or too many


class SqlRuleRows:
    """The contract `RuleRows`, kept in the tables of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._trim_at = {"rule_hits": 0.0, "collected": 0.0}

    def count_hits(self, hits: Sequence[RuleUsed], *, days: int, at_most: int) -> None:
        rows = [
            (hit.answer_id, hit.at, hit.app, hit.rule, hit.version, hit.kind, int(hit.shadow))
            for hit in hits
        ]
        self._add(_HIT, rows, "rule_hits", days, at_most)

    def hits(self, since: float) -> list[RuleHits]:
        with self._database.snapshot() as db:
            return [
                RuleHits(
                    app=app,
                    rule=rule,
                    served=int(served),
                    shadow=int(shadow),
                    last_at=last_at,
                    unhelpful=int(unhelpful),
                )
                for app, rule, served, shadow, last_at, unhelpful in db.execute(_COUNT, (since,))
            ]

    def collect(self, answers: Sequence[CollectedAnswer], *, days: int, at_most: int) -> None:
        rows = [
            (
                *(each.answer, each.at, each.app, each.tenant, each.question, each.text),
                *(json.dumps(each.groups), json.dumps(each.sources)),
            )
            for each in answers
        ]
        self._add(_COLLECT, rows, "collected", days, at_most)

    def collected(self, app: str) -> list[CollectedAnswer]:
        with self._database.snapshot() as db:
            return [
                CollectedAnswer(
                    answer=answer,
                    at=at,
                    app=app_name,
                    tenant=tenant,
                    question=question,
                    text=text,
                    groups=tuple(json.loads(groups)),
                    sources=tuple(json.loads(sources)),
                    unhelpful=bool(unhelpful),
                )
                for answer, at, app_name, tenant, question, text, groups, sources, unhelpful in (
                    db.execute(_COLLECTED, (app,))
                )
            ]

    def _add(
        self,
        statement: str,
        rows: Sequence[tuple[object, ...]],
        table: str,
        days: int,
        at_most: int,
    ) -> None:
        with self._database.transaction(durable=True) as db:
            db.executemany(statement, rows)
            if time.monotonic() >= self._trim_at[table]:
                drop = f"""DELETE FROM {table} WHERE at < ?
                    OR at < (SELECT at FROM {table} ORDER BY at DESC LIMIT 1 OFFSET ?)"""  # noqa: S608
                db.execute(drop, (time.time() - days * 86400, at_most - 1))
                self._trim_at[table] = time.monotonic() + _TRIM_S
