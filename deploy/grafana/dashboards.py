"""Write the Grafana dashboards beside this file, from the table of panels below.

    python deploy/grafana/dashboards.py [--check]

Each panel is a row: its title, what it shows, its kind, its unit and its queries. `A` in a query
stands for the labels of the chosen apps, `M` for those of the chosen models. With --check, nothing
is written, and the exit status is 1 if a file is not as this script would write it.
"""

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = {  # what is put for a letter in braces, by the label that names apps or models
    "{A": '{app=~"$app"',
    "{G": '{gen_ai_request_model=~"$app"',
    "{M": '{model=~"$model"',
    "{R": '{gen_ai_response_model=~"$model"',
}
RATE = "[$__rate_interval]"
FAILED = 'error!="",error!~"cancelled|client_gone"'
TTFT = "gen_ai_server_time_to_first_token_seconds"
TPOT = "gen_ai_server_time_per_output_token_seconds"
DURATION = "gen_ai_server_request_duration_seconds"
CALLS = "gen_ai_client_operation_duration_seconds"
TOKENS = "gen_ai_client_token_usage"
WIDTHS = {"stat": (4, 4), "timeseries": (8, 8), "state-timeline": (16, 8), "bargauge": (8, 8)}

Query = tuple[str, str]  # PromQL, and the name of its lines
Panel = tuple[str, str, str, str, list[Query]]  # title, meaning, kind, unit, queries


def quantiles(metric: str, chosen: str, by: str = "") -> list[Query]:
    """Return the queries of the median, the 95th and the 99th percentile of a histogram."""
    name = f" {{{{{by}}}}}" if by else ""
    return [
        (
            f"histogram_quantile({q}, sum by (le{', ' + by if by else ''}) "
            f"(rate({metric}_bucket{{{chosen}}}{RATE})))",
            f"p{q[2:].ljust(2, '0')}{name}",
        )
        for q in (("0.95",) if by else ("0.5", "0.95", "0.99"))
    ]


def rate(metric: str, chosen: str, by: str, more: str = "") -> list[Query]:
    """Return the query of a counter's rate, one line for each value of a label."""
    labels = ", ".join(by.split())
    name = " ".join(f"{{{{{each}}}}}" for each in by.split())
    return [(f"sum by ({labels}) (rate({metric}{{{chosen}{more}}}{RATE}))", name)]


SERVICE: list[Panel] = [
    (
        "Good answers",
        "Share of answers without an error. Answers that nobody waited for do not count.",
        "stat",
        "percentunit",
        [
            (
                f"1 - (sum(rate(slipway_answers_total{{A,{FAILED}}}{RATE})) or vector(0)) / "
                f"sum(rate(slipway_answers_total{{A}}{RATE}))",
                "good",
            )
        ],
    ),
    (
        "Answers",
        "Finished answers per second.",
        "stat",
        "reqps",
        [(f"sum(rate(slipway_answers_total{{A}}{RATE}))", "answers")],
    ),
    (
        "First token, p95",
        "Time from the question to the first token, of streamed answers.",
        "stat",
        "s",
        [quantiles(TTFT, "G")[1]],
    ),
    (
        "In progress",
        "Answers that are being written now, of the whole server.",
        "stat",
        "short",
        [("sum(slipway_answers_in_flight)", "answers")],
    ),
    (
        "Store",
        "1 while the store can be used.",
        "stat",
        "bool_on_off",
        [("min(slipway_store_up)", "store")],
    ),
    (
        "Running for",
        "Time since the start of the server.",
        "stat",
        "s",
        [("time() - min(process_start_time_seconds)", "uptime")],
    ),
    ("Answers by app", "", "timeseries", "reqps", rate("slipway_answers_total", "A", "app")),
    (
        "What answered",
        "A model, a rule, the cache, or a quote of the documents.",
        "timeseries",
        "reqps",
        rate("slipway_answers_total", "A", "served_by", ',error=""'),
    ),
    (
        "Errors by code",
        "docs/errors.md explains each code.",
        "timeseries",
        "reqps",
        rate("slipway_answers_total", "A", "error", ',error!=""'),
    ),
    ("Time to the first token", "", "timeseries", "s", quantiles(TTFT, "G")),
    ("Time per output token", "", "timeseries", "s", quantiles(TPOT, "G")),
    ("Time of whole answers", "", "timeseries", "s", quantiles(DURATION, "G")),
    (
        "Answers of the cache",
        "What the cache did for the questions that asked it.",
        "timeseries",
        "reqps",
        rate("slipway_cache_answers_total", "A", "state"),
    ),
    (
        "Cache memory",
        "",
        "timeseries",
        "bytes",
        [("sum(slipway_cache_bytes)", "memory of kept answers")],
    ),
    (
        "Rows that wait for the store",
        "Rows in the journal. They grow while the store is down. Lost rows should always be 0.",
        "timeseries",
        "short",
        [
            ("sum(slipway_store_waiting_rows)", "waiting"),
            ("sum(increase(slipway_store_lost_rows_total[$__range]))", "lost"),
        ],
    ),
    (
        "Reloads of the settings",
        "Applied, or refused because they are invalid; since the start.",
        "timeseries",
        "short",
        [("sum by (outcome) (slipway_settings_reloads_total)", "{{outcome}}")],
    ),
]

MODELS: list[Panel] = [
    (
        "State of the models",
        "The circuit breaker: 0 closed (in use), 1 half-open (tried), 2 open (not called).",
        "state-timeline",
        "short",
        [
            (
                'sum by (model) (slipway_model_state{M,state="half-open"} + ignoring(state) '
                '2 * slipway_model_state{M,state="open"})',
                "{{model}}",
            )
        ],
    ),
    ("Calls by model", "", "timeseries", "reqps", rate("slipway_attempts_total", "M", "model")),
    ("Calls by zone", "", "timeseries", "reqps", rate("slipway_attempts_total", "M", "zone")),
    (
        "Failed calls",
        "A failed call need not be a failed answer: a route asks the next model.",
        "timeseries",
        "reqps",
        rate("slipway_attempts_total", "M", "model error", ',error!="",error!="cancelled"'),
    ),
    (
        "Failed calls by zone",
        "",
        "timeseries",
        "percentunit",
        [
            (
                f'sum by (zone) (rate(slipway_attempts_total{{M,error!="",error!="cancelled"}}'
                f"{RATE})) / sum by (zone) (rate(slipway_attempts_total{{M}}{RATE}))",
                "{{zone}}",
            )
        ],
    ),
    (
        "Time of calls, p95",
        "",
        "timeseries",
        "s",
        [
            (
                "histogram_quantile(0.95, sum by (le, gen_ai_request_model) "
                f'(rate({CALLS}_bucket{{gen_ai_request_model=~"$model"}}{RATE})))',
                "{{gen_ai_request_model}}",
            )
        ],
    ),
    (
        "First token by model, p95",
        "",
        "timeseries",
        "s",
        quantiles(TTFT, "R", "gen_ai_response_model"),
    ),
    (
        "Time per output token by model, p95",
        "",
        "timeseries",
        "s",
        quantiles(TPOT, "R", "gen_ai_response_model"),
    ),
    (
        "Calls that run and wait",
        "",
        "timeseries",
        "short",
        [("sum by (model, state) (slipway_model_calls{M})", "{{model}} {{state}}")],
    ),
    (
        "Wait in the queue, p95",
        "Of models with a limit (`at_once`).",
        "timeseries",
        "s",
        quantiles("slipway_queue_wait_seconds", "M", "model"),
    ),
    (
        "Oldest call that waits",
        "",
        "timeseries",
        "s",
        [("max by (model) (slipway_queue_oldest_seconds{M})", "{{model}}")],
    ),
    ("Retries", "", "timeseries", "reqps", rate("slipway_retries_total", "M", "model")),
    (
        "Failovers",
        "Calls to a model in place of the first one of its route.",
        "timeseries",
        "reqps",
        rate("slipway_failovers_total", "M", "model role how"),
    ),
    (
        "Breakers opened",
        "How often a model was taken out of use.",
        "timeseries",
        "short",
        [("sum by (model) (increase(slipway_breaker_openings_total{M}[$__range]))", "{{model}}")],
    ),
]

ENGINES: list[Panel] = [
    (
        "Requests in the model's server",
        "As vLLM or llama.cpp says itself.",
        "timeseries",
        "short",
        [("sum by (model, state) (slipway_engine_requests{M})", "{{model}} {{state}}")],
    ),
    (
        "Memory for keys and values",
        "",
        "timeseries",
        "percentunit",
        [("max by (model) (slipway_engine_kv_cache_use_ratio{M})", "{{model}}")],
    ),
    (
        "Prompt tokens found in the prefix cache",
        "",
        "timeseries",
        "percentunit",
        [
            (
                f'sum by (model) (rate(slipway_engine_prefix_cache_tokens_total{{M,outcome="hit"}}'
                f"{RATE})) / sum by (model) "
                f'(rate(slipway_engine_prefix_cache_tokens_total{{M,outcome="queried"}}{RATE}))',
                "{{model}}",
            )
        ],
    ),
    (
        "Tokens of the model's server",
        "",
        "timeseries",
        "short",
        rate("slipway_engine_tokens_total", "M", "model gen_ai_token_type"),
    ),
    (
        "Requests stopped for memory",
        "",
        "timeseries",
        "short",
        rate("slipway_engine_preemptions_total", "M", "model"),
    ),
    (
        "Age of these numbers",
        "It grows while the metrics of the model's server cannot be read.",
        "timeseries",
        "s",
        [("max by (model) (slipway_engine_scrape_age_seconds{M})", "{{model}}")],
    ),
]

GPUS: list[Panel] = [
    (
        "Use of the GPUs",
        "",
        "timeseries",
        "percentunit",
        [("max by (gpu) (slipway_gpu_use_ratio)", "GPU {{gpu}}")],
    ),
    (
        "Memory of the GPUs",
        "",
        "timeseries",
        "percentunit",
        [
            (
                "max by (gpu) (slipway_gpu_memory_used_bytes / slipway_gpu_memory_bytes)",
                "GPU {{gpu}}",
            )
        ],
    ),
]

MONEY: list[Panel] = [
    (
        "Spent in the range",
        "USD in the time that is shown. The ledger is exact: `slipway ledger report`.",
        "stat",
        "currencyUSD",
        [("sum(increase(slipway_cost_usd_total{A}[$__range]))", "spent")],
    ),
    (
        "Spent in an hour",
        "USD per hour at the current rate.",
        "stat",
        "currencyUSD",
        [(f"3600 * sum(rate(slipway_cost_usd_total{{A}}{RATE}))", "an hour")],
    ),
    (
        "Cost of an answer",
        "USD, on average, of answers without an error.",
        "stat",
        "currencyUSD",
        [
            (
                "sum(increase(slipway_cost_usd_total{A}[$__range])) / "
                'sum(increase(slipway_answers_total{A,error=""}[$__range]))',
                "an answer",
            )
        ],
    ),
    (
        "Saved in the range",
        "USD that answers would have cost for which no model was called.",
        "stat",
        "currencyUSD",
        [("sum(increase(slipway_saved_usd_total{A}[$__range]))", "saved")],
    ),
    (
        "Calls of unknown price",
        "Set the model's `price`.",
        "stat",
        "short",
        [("sum(increase(slipway_unpriced_calls_total{A}[$__range])) or vector(0)", "calls")],
    ),
    (
        "Spending by app",
        "USD an hour.",
        "timeseries",
        "currencyUSD",
        [(f"3600 * sum by (app) (rate(slipway_cost_usd_total{{A}}{RATE}))", "{{app}}")],
    ),
    (
        "Spending by model",
        "USD an hour.",
        "timeseries",
        "currencyUSD",
        [(f"3600 * sum by (model) (rate(slipway_cost_usd_total{{A}}{RATE}))", "{{model}}")],
    ),
    (
        "Tokens",
        "Per second. Cached tokens are part of the input, reasoning of the output.",
        "timeseries",
        "short",
        [
            (
                f"sum by (gen_ai_token_type) (rate({TOKENS}_sum{{G}}{RATE}))",
                "{{gen_ai_token_type}}",
            )
        ],
    ),
    (
        "Tokens of an answer, p95",
        "",
        "timeseries",
        "short",
        [
            (
                "histogram_quantile(0.95, sum by (le, gen_ai_token_type) "
                f"(rate({TOKENS}_bucket{{G}}{RATE})))",
                "{{gen_ai_token_type}}",
            )
        ],
    ),
    (
        "Answers that no model wrote",
        "By what saved the call.",
        "timeseries",
        "reqps",
        rate("slipway_saved_answers_total", "A", "by"),
    ),
    (
        "Budgets",
        "Share that is spent, of the budgets with the largest shares.",
        "bargauge",
        "percentunit",
        [
            (
                "topk(10, max by (scope, name, period) (slipway_budget_used_ratio))",
                "{{scope}} {{name}} a {{period}}",
            )
        ],
    ),
    (
        "Budgets by share",
        "How many budgets are below 80 %, above it, or spent.",
        "timeseries",
        "short",
        [("sum by (period, used) (slipway_budgets)", "{{period}} {{used}}")],
    ),
]

KNOWLEDGE: list[Panel] = [
    (
        "Documents",
        "",
        "stat",
        "short",
        [('sum(slipway_knowledge_documents{A,state="read"})', "read")],
    ),
    (
        "Unreadable documents",
        "`slipway ingest` lists them with the reason.",
        "stat",
        "short",
        [('sum(slipway_knowledge_documents{A,state=~"failed|partly"}) or vector(0)', "failed")],
    ),
    ("Passages", "", "stat", "short", [("sum(slipway_knowledge_passages{A})", "passages")]),
    (
        "Thumbs down",
        "Share of the votes in the time that is shown.",
        "stat",
        "percentunit",
        [
            (
                '(sum(increase(slipway_feedback_total{A,helpful="no"}[$__range])) or vector(0)) / '
                'sum(increase(slipway_feedback_total{A,helpful=~"yes|no"}[$__range]))',
                "no",
            )
        ],
    ),
    (
        "Reports of problems",
        "",
        "stat",
        "short",
        [
            (
                'sum(increase(slipway_feedback_total{A,helpful="report"}[$__range])) or vector(0)',
                "reports",
            )
        ],
    ),
    (
        "Files last checked",
        "Time since the files were compared with what was read of them.",
        "timeseries",
        "s",
        [("max by (app) (slipway_knowledge_check_age_seconds{A})", "{{app}}")],
    ),
    (
        "Documents last changed",
        "",
        "timeseries",
        "s",
        [("max by (app) (slipway_knowledge_change_age_seconds{A})", "{{app}}")],
    ),
    (
        "Votes",
        "",
        "timeseries",
        "reqps",
        rate("slipway_feedback_total", "A", "app helpful"),
    ),
    (
        "Citations",
        "Flagged: the source lacks words of the sentence. Dropped: it named no source.",
        "timeseries",
        "reqps",
        rate("slipway_citations_total", "A", "outcome"),
    ),
    (
        "Answers without a model",
        "Quotes of the documents, and prepared texts.",
        "timeseries",
        "percentunit",
        [
            (
                "sum by (served_by) (rate(slipway_answers_total"
                f'{{A,served_by=~"quote|rule",error=""}}{RATE})) / ignoring(served_by) group_left '
                f'sum(rate(slipway_answers_total{{A,error=""}}{RATE}))',
                "{{served_by}}",
            )
        ],
    ),
    (
        "Rules",
        "Questions that a rule recognised.",
        "timeseries",
        "reqps",
        rate("slipway_rule_hits_total", "A", "kind outcome"),
    ),
    (
        "Kept answers removed",
        "Why they left the cache.",
        "timeseries",
        "reqps",
        rate("slipway_cache_removed_total", "", "cause"),
    ),
]

DASHBOARDS: dict[str, tuple[str, str, list[tuple[str, list[Panel]]]]] = {
    "slipway-service": (
        "Slipway: service",
        "Whether users are well served: traffic, errors, times, cache and store.",
        [("", SERVICE)],
    ),
    "slipway-models": (
        "Slipway: models and zones",
        "How the models are: states, calls, times, queues and failovers.",
        [("", MODELS), ("Servers of the models (`metrics:` of a model)", ENGINES), ("GPUs", GPUS)],
    ),
    "slipway-money": (
        "Slipway: money",
        "What is spent and saved, by app and model, against budgets.",
        [("", MONEY)],
    ),
    "slipway-knowledge": (
        "Slipway: knowledge and feedback",
        "The documents and their freshness, citations, votes and rules.",
        [("", KNOWLEDGE)],
    ),
}


def expression(query: str) -> str:
    """Return a query with the labels of the chosen apps or models written out."""
    for letter, labels in CHOSEN.items():
        for end in (",", "}"):
            query = query.replace(letter + end, labels + end)
    return query.replace("{,", "{").replace("{}", "")


def panel(number: int, x: int, y: int, row: Panel) -> dict[str, Any]:
    title, meaning, kind, unit, queries = row
    width, height = WIDTHS[kind]
    return {
        "id": number,
        "title": title,
        "description": meaning,
        "type": kind,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + n),
                "datasource": SOURCE,
                "expr": expression(query),
                "legendFormat": name,
                "instant": kind in ("stat", "bargauge"),
                "range": kind not in ("stat", "bargauge"),
            }
            for n, (query, name) in enumerate(queries)
        ],
    }


def placed(parts: list[tuple[str, list[Panel]]]) -> list[dict[str, Any]]:
    """Return the panels from left to right, each part below a row with its title."""
    found, y = list[dict[str, Any]](), 0
    for title, rows in parts:
        if title:
            grid = {"x": 0, "y": y, "w": 24, "h": 1}
            found.append({"id": len(found) + 1, "title": title, "type": "row", "gridPos": grid})
            y += 1
        x = height = 0
        for row in rows:
            width, next_height = WIDTHS[row[2]]
            if x + width > 24 or (height and next_height != height):
                x, y, height = 0, y + height, 0
            found.append(panel(len(found) + 1, x, y, row))
            x, height = x + width, next_height
        y += height
    return found


def variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }


def dashboard(uid: str) -> dict[str, Any]:
    title, meaning, parts = DASHBOARDS[uid]
    panels = placed(parts)
    return {
        "uid": uid,
        "title": title,
        "description": meaning,
        "tags": ["slipway"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "links": [{"title": "Slipway", "type": "dashboards", "tags": ["slipway"]}],
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                variable("app", "label_values(slipway_answers_total, app)"),
                variable("model", "label_values(slipway_attempts_total, model)"),
            ]
        },
        "panels": panels,
    }


def main() -> int:
    stale = 0
    for uid in DASHBOARDS:
        file, text = HERE / f"{uid}.json", json.dumps(dashboard(uid), indent=1) + "\n"
        if file.exists() and file.read_text() == text:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"{file.name} is not as dashboards.py writes it", file=sys.stderr)
        else:
            file.write_text(text)
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
