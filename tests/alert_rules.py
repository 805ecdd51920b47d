"""Run the cases of alerts: by promtool on a file of rules, and by Slipway's own evaluator."""

import json
import subprocess
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from alert_cases import EDGES, SETTINGS, AlertCase, Counted
from slipway.telemetry.alerts.alert import AlertRule
from slipway.telemetry.alerts.evaluator import Evaluator
from slipway.telemetry.alerts.expressions import duration
from slipway.telemetry.alerts.prometheus import rule_fields
from slipway.telemetry.definitions import METRICS
from slipway.telemetry.history import History

KEPT = "StoreDown"  # its cases test that an alert is kept for a minute; the others do without


def as_prometheus(series: Iterable[Counted]) -> list[dict[str, str]]:
    """Return series as promtool reads them; a histogram becomes its buckets and its count."""
    found: dict[str, list[float]] = {}
    for each in series:
        metric = METRICS[each.metric]
        if each.observed is None:
            suffix = "_total" if metric.kind == "counter" else ""
            add(found, f"{metric.name}{suffix}{written(each.labels)}", each.totals)
            continue
        labels = each.labels
        for edge in (*EDGES[each.metric], float("inf")):
            le = "+Inf" if edge == float("inf") else str(edge)
            totals = each.totals if each.observed <= edge else [0.0] * len(each.totals)
            add(found, f"{metric.name}_bucket{written((*labels, ('le', le)))}", totals)
        add(found, f"{metric.name}_count{written(labels)}", each.totals)
    return [
        {"series": name, "values": " ".join(f"{value:.10g}" for value in values)}
        for name, values in found.items()
    ]


def add(found: dict[str, list[float]], name: str, values: Sequence[float]) -> None:
    known = found.get(name)
    found[name] = (
        list(values) if known is None else [a + b for a, b in zip(known, values, strict=True)]
    )


def written(labels: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels) + "}"


def promtool_problems(rules: Sequence[AlertRule], cases: Sequence[AlertCase], folder: Path) -> str:
    """Return what `promtool test rules` says is wrong; an empty text if nothing is."""
    rule_file = folder / "rules.yml"
    fields = [rule_fields(rule, SETTINGS) for rule in rules]
    for each in fields:
        del each["annotations"]  # promtool would compare them, too
        if each["alert"] != KEPT:
            each.pop("keep_firing_for", None)
    rule_file.write_text(json.dumps({"groups": [{"name": "slipway", "rules": fields}]}))
    files = []
    by_step: dict[float, list[AlertCase]] = defaultdict(list)
    is_momentary = all(rule.definition.for_s == 0 for rule in rules) and cases[0].name != KEPT
    for case in cases:
        if is_momentary:  # what was before does not matter: one evaluation is enough
            for at_s, fires in case.moments:
                alone = replace(case, checks=(), times=((at_s, fires),))
                by_step[at_s or case.step_s].append(alone)
        else:
            by_step[case.step_s].append(case)
    for number, (step_s, some) in enumerate(by_step.items()):
        file = folder / f"test-{number}.yml"
        tests = [one_test(case, fields) for case in some]
        text = {
            "rule_files": ["rules.yml"],
            "evaluation_interval": duration(step_s),
            "tests": tests,
        }
        file.write_text(json.dumps(text))
        files.append(str(file))
    done = subprocess.run(
        ["promtool", "test", "rules", *files], capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def one_test(case: AlertCase, rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    expected: list[dict[str, Any]] = []
    for at_s, fires in case.moments:
        # of several variants of an alert, that with the labels of the case is meant
        expected.append({"eval_time": f"{round(at_s)}s", "alertname": case.name, "fires": fires})
    return {
        "name": f"{case.name}: {case.says}",
        "interval": f"{round(case.step_s)}s",
        "input_series": as_prometheus(case.series),
        "alert_rule_test": [
            {
                "eval_time": each["eval_time"],
                "alertname": each["alertname"],
                "exp_alerts": [expectation(case, rules)] if each["fires"] else [],
            }
            for each in expected
        ],
    }


def expectation(case: AlertCase, rules: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rule = next(rule for rule in rules if rule["alert"] == case.name)
    return {"exp_labels": {**rule["labels"], **dict(case.labels)}}


def own_problems(rules: Sequence[AlertRule], case: AlertCase) -> list[str]:
    """Return at which times Slipway's own evaluator does not say what the case expects."""
    clock = [0.0]
    metrics = {
        key: msgspec.structs.replace(metric, buckets=EDGES[key]) if metric.buckets else metric
        for key, metric in METRICS.items()
    }
    start = 1_790_000_000.0
    evaluator = Evaluator() if case.name == KEPT else Evaluator(keep_s=0)
    history = History(
        lambda: rows_at(case, clock[0]), lambda: gauges_at(case, clock[0]), metrics=metrics
    )
    found = []
    checks = dict(case.moments)
    look_s = 2 * max(rule.definition.for_s for rule in rules) + 5 * case.step_s + 120
    times = sorted({*(n * case.step_s for n in range(len(case.series[0].totals))), *checks})
    for at_s in times:
        clock[0] = at_s
        history.sample(start + at_s)
        if any(at_s <= check <= at_s + look_s for check in checks):
            evaluator.step(rules, history, start + at_s)
        if at_s in checks:
            fires = any(
                state.phase == "firing"
                and case.labels
                == tuple((name, state.labels.get(name, "")) for name, _ in case.labels)
                for state in evaluator.states.values()
            )
            if fires != checks[at_s]:
                found.append(f"{case.name}: {case.says}: at {at_s:g} s, firing is {fires}")
    return found


def rows_at(case: AlertCase, at_s: float) -> Iterable[tuple[str, tuple[str, ...], list[float]]]:
    for each in case.series:
        metric, total = METRICS[each.metric], each.totals[int(at_s // case.step_s)]
        labels = tuple(value for _, value in each.labels)
        if each.observed is not None:
            row = [0.0] * (len(EDGES[each.metric]) + 2)
            row[bisect_left(EDGES[each.metric], each.observed)] = total
            row[-1] = total * each.observed
            yield each.metric, labels, row
        elif metric.kind == "counter":
            yield each.metric, labels, [total]


def gauges_at(case: AlertCase, at_s: float) -> Iterable[tuple[str, tuple[str, ...], float]]:
    for each in case.series:
        if METRICS[each.metric].kind == "gauge":
            labels = tuple(value for _, value in each.labels)
            yield each.metric, labels, each.totals[int(at_s // case.step_s)]
