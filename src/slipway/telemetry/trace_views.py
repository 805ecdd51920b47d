"""Show the records of an answer: as the JSON of a trace, as spans on a time line, as a summary."""

from collections.abc import Mapping, Sequence
from typing import Any

from slipway.ledger import format_usd, usd
from slipway.telemetry.trace_files import Found
from slipway.types import AttemptDone, RuleUsed

IDS = frozenset({"id", "answer_id", "owner"})
SUMMARY = ("app", "model", "served_by", "tenant", "error", "duration_s", "ttft_s")


def tries(records: Sequence[Found]) -> list[dict[str, Any]]:
    """Group records by try, each with its calls to models and the rules that recognised the
    question. `answer` is None while a try runs.
    """
    found = list[dict[str, Any]]()
    attempts, rules = list[dict[str, Any]](), list[dict[str, Any]]()
    for each in records:
        if each.kind is AttemptDone:
            attempts.append(timed(each))
        elif each.kind is RuleUsed:
            rules.append(shown(each.fields))
        else:
            found.append(one_try(timed(each), attempts, rules))
            attempts, rules = [], []
    return [*found, one_try(None, attempts, rules)] if attempts or rules else found


def one_try(
    answer: dict[str, Any] | None, attempts: list[dict[str, Any]], rules: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "answer": answer,
        "attempts": attempts,
        "rules": rules,
        "spans": spans(answer, attempts),
    }


def shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a record without the ids and the owner, and its cost in USD."""
    found = {name: value for name, value in fields.items() if name not in IDS}
    if "cost" in found:
        found["cost_usd"] = cost_usd(found.pop("cost"))
    return found


def timed(record: Found) -> dict[str, Any]:
    """Return the fields of a record with the times at which it began and ended."""
    fields = shown(record.fields)
    return {
        "began_at": round(record.at - fields["duration_s"], 6),
        "ended_at": record.at,
        **fields,
    }


def cost_usd(picodollars: int | None) -> str | None:
    return format_usd(usd(picodollars))


def spans(
    answer: Mapping[str, Any] | None, attempts: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return what happened on a time line that begins with the question, in order of the start.

    `kind` is `stage` or `attempt`. Routing spans all calls; settlement is what follows the last one.
    """
    if answer is None:
        if not attempts:
            return []
        start = min(each["began_at"] - (each.get("waited_s") or 0.0) for each in attempts)
        return [attempt_span(each, start) for each in attempts]
    start = answer["began_at"]
    found = [stage("admission", 0.0, answer.get("admission_s", 0.0))]
    found += [
        stage(s["name"], s["began_s"], s["duration_s"], s.get("error"), dict(s["facts"]))
        for s in answer.get("stages", ())
    ]
    calls = [attempt_span(each, start) for each in attempts]
    if calls:
        began = min(each["start_s"] for each in calls)
        ended = max(each["start_s"] + each["duration_s"] for each in calls)
        skipped = {"skipped": dict(answer["skipped"])} if answer.get("skipped") else {}
        found.append(stage("routing", began, ended - began, None, {"calls": len(calls), **skipped}))
        found += calls
    last = max(each["start_s"] + each["duration_s"] for each in found)
    last = min(last, answer["duration_s"])  # a trial may go on after the answer
    found.append(stage("settlement", last, answer["duration_s"] - last))
    return sorted(found, key=lambda each: (each["start_s"], each["kind"] != "stage"))


def stage(
    name: str,
    start_s: float,
    duration_s: float,
    error: str | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "kind": "stage",
        "name": name,
        "start_s": round(max(0.0, start_s), 6),
        "duration_s": round(duration_s, 6),
        "error": error,
        "cost_usd": None,
        "facts": facts or {},
    }


def attempt_span(attempt: Mapping[str, Any], start: float) -> dict[str, Any]:
    """Return the span of a call to a model."""
    usage = attempt.get("usage") or {}
    facts = {
        "provider": attempt["provider"],
        "zone": attempt["zone"],
        "role": attempt.get("role"),
        "kind": attempt.get("kind"),
        "status": attempt.get("status"),
        "ttft_s": attempt.get("ttft_s"),
        "waited_s": attempt.get("waited_s"),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "used": attempt.get("used"),
        "why": attempt.get("why"),
    }
    return {
        "kind": "attempt",
        "name": attempt["model"],
        "start_s": round(max(0.0, attempt["began_at"] - start), 6),
        "duration_s": round(attempt["duration_s"], 6),
        "error": attempt["error"],
        "cost_usd": attempt.get("cost_usd"),
        "facts": {name: value for name, value in facts.items() if value is not None},
    }


def summary(answer: Found) -> dict[str, Any]:
    """Return an answer as a row of a list. `at` is when it ended, in seconds since the epoch."""
    fields = answer.fields
    usage = fields.get("usage") or {}
    return {
        "id": fields["id"],
        "at": answer.at,
        **{name: fields.get(name) for name in SUMMARY},
        "cost_usd": cost_usd(fields.get("cost")),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens"),
        "cache": fields.get("cache"),
        "endpoint": fields.get("endpoint"),
    }
