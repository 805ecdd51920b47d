"""Spans: sent to a real collector's address as OTLP, joined to the client's trace, in nobody's way."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from collector import Collector, collecting, facts
from processes import Serving, mocking, run, serving
from slipway import tracing
from slipway.telemetry.otlp_export import AT_ONCE, MOST_WAITING, OtlpExporter
from slipway.types import AttemptDone, TraceContext, Usage
from waiting import until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def mock() -> Iterator[Any]:
    with mocking() as mock:
        yield mock


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, collector: Collector, mock: Any
) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("spans")
    (folder / "docs").mkdir()
    (folder / "docs" / "leave.md").write_text("# Leave\n\nEveryone has 30 days of leave.\n")
    model = {"base_url": mock.url, "name": "mock-model", "price": {"input": 1, "output": 2}}
    settings = {
        "models": {"m": model, "away": {"base_url": "http://127.0.0.1:9/v1", "retries": 0}},
        "routes": {"main": ["away", "m"]},
        "apps": {"docs": {"knowledge": ["./docs"], "route": "m"}},
        "otlp": {"endpoint": collector.url, "headers": {"x-tenant": "one"}},
    }
    with serving(folder, settings=settings) as server:
        yield server


def test_an_apps_answer_is_a_workflow_with_a_retrieval_and_a_chat(
    server: Serving, collector: Collector
) -> None:
    reply = server.post("/v1/answers", {"question": "How many days of leave?", "app": "docs"})
    own, *parts = collector.of(reply.json()["id"])
    assert own.name == "invoke_workflow docs"
    assert own.trace_id.hex() == reply.json()["id"].removeprefix("ans-")
    assert own.parent_span_id == b""
    assert facts(own.attributes)["gen_ai.operation.name"] == "invoke_workflow"
    assert [span.name for span in parts] == [
        *("planning", "retrieval docs", "prompt", "chat m"),
    ] or [span.name for span in parts] == [
        *("chat m", "planning", "retrieval docs", "prompt"),
    ]
    search = facts(next(s for s in parts if s.name == "retrieval docs").attributes)
    assert search["gen_ai.operation.name"] == "retrieval"
    assert search["slipway.knowledge.passages"] == 1
    chat = next(s for s in parts if s.name == "chat m")
    said = facts(chat.attributes)
    usage = reply.json()["usage"]
    assert chat.kind == Span.SPAN_KIND_CLIENT
    assert said["gen_ai.request.model"] == said["gen_ai.response.model"] == "m"
    assert said["gen_ai.usage.input_tokens"] == usage["input_tokens"]
    assert said["gen_ai.usage.output_tokens"] == usage["output_tokens"]
    assert said["slipway.cost_usd"] == pytest.approx(float(reply.json()["cost_usd"]))
    for part in parts:
        assert own.start_time_unix_nano <= part.start_time_unix_nano + 2_000_000
        assert part.end_time_unix_nano <= own.end_time_unix_nano + 2_000_000
    assert collector.resources[0]["service.name"] == "slipway"
    assert collector.headers[0]["x-tenant"] == "one"
    assert collector.headers[0]["content-type"] == "application/x-protobuf"


def test_the_clients_trace_goes_on_to_the_model(
    server: Serving, collector: Collector, mock: Any
) -> None:
    reply = server.post(
        "/v1/chat/completions",
        {"model": "main", "messages": [{"role": "user", "content": "Hello"}]},
        headers={"traceparent": TRACEPARENT, "tracestate": "a=1,b=2"},
    )
    own, *calls = collector.of(reply.headers["x-slipway-answer-id"])
    assert (own.trace_id.hex(), own.parent_span_id.hex()) == (TRACE, PARENT)
    assert own.trace_state == "a=1,b=2"
    assert [(span.name, span.status.code) for span in calls] == [("chat away", 2), ("chat m", 0)]
    assert facts(calls[0].attributes)["error.type"] == "provider_down"
    sent = mock.requests[-1].headers
    assert sent["traceparent"] == f"00-{TRACE}-{calls[1].span_id.hex()}-01"
    assert sent["tracestate"] == "a=1,b=2"


def test_a_client_that_does_not_sample_is_not_exported(
    server: Serving, collector: Collector, mock: Any
) -> None:
    unsampled = TRACEPARENT[:-2] + "00"
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    quiet = server.post("/v1/chat/completions", body, headers={"traceparent": unsampled})
    assert mock.requests[-1].headers["traceparent"].endswith("-00")
    loud = server.post("/v1/chat/completions", body)
    collector.of(loud.headers["x-slipway-answer-id"])
    quiet_id = quiet.headers["x-slipway-answer-id"]
    assert quiet_id not in [facts(s.attributes).get("slipway.answer.id") for s in collector.spans]


def test_without_a_collector_the_clients_trace_is_passed_on_unchanged(
    tmp_path: Path, mock: Any
) -> None:
    settings = {"models": {"m": {"base_url": mock.url, "name": "mock-model"}}}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
    with serving(tmp_path, settings=settings) as server:
        server.post("/v1/chat/completions", body, headers={"traceparent": TRACEPARENT})
        assert mock.requests[-1].headers["traceparent"] == TRACEPARENT
        server.post("/v1/chat/completions", body)
        assert "traceparent" not in mock.requests[-1].headers


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"00", TRACEPARENT.upper().encode(), b"ff" + TRACEPARENT[2:].encode()),
        *(f"{TRACEPARENT}-more".encode(), f"00-{'0' * 32}-{PARENT}-01".encode()),
        *(f"00-{TRACE}-{'0' * 16}-01".encode(), f"00-{TRACE}-{PARENT}-01\n".encode()),
    ],
)
def test_an_invalid_traceparent_counts_as_none(sent: bytes) -> None:
    assert tracing.parsed({b"traceparent": sent}, None) is None
    begun = tracing.parsed({b"traceparent": sent}, 1.0)
    assert begun is not None
    assert begun.trace_id == ""


def test_a_later_version_of_traceparent_is_understood() -> None:
    found = tracing.parsed({b"traceparent": b"01" + TRACEPARENT[2:].encode() + b"-more"}, None)
    assert found is not None
    assert (found.trace_id, found.span_id, found.is_sampled) == (TRACE, PARENT, True)


def test_a_share_of_the_answers_is_sampled() -> None:
    found = [tracing.parsed({}, 0.25) for _ in range(4000)]
    assert 800 < sum(each is not None and each.is_sampled for each in found) < 1200


# A collector that does not take what is sent


def records(count: int) -> list[tuple[float, AttemptDone]]:
    trace = TraceContext(trace_id=TRACE, span_id=PARENT, is_exported=True)
    done = AttemptDone(
        answer_id="ans-1",
        model="m",
        provider="openai",
        zone="z",
        status=200,
        error=None,
        duration_s=0.5,
        ttft_s=0.1,
        usage=Usage(input_tokens=70_000, output_tokens=300),
        trace=trace,
        span=PARENT,
        upstream="x" * 200,
    )
    return [(time.time(), done)] * count


def test_a_busy_collector_gets_the_spans_later_and_a_refusing_one_does_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with collecting() as collector:
        exporter = OtlpExporter(collector.url, {})
        collector.statuses = [503, 429]
        exporter.start()
        exporter.take(records(3))
        assert until(lambda: len(collector.spans) == 3)
        (said,) = {str(facts(span.attributes)) for span in collector.spans}
        assert "'gen_ai.usage.input_tokens': 70000" in said
        assert "x" * 200 in said
        collector.statuses = [400]
        exporter.take(records(2))
        assert until(lambda: exporter.dropped == 2)
        exporter.take(records(AT_ONCE + 1))
        assert until(lambda: exporter.sent == AT_ONCE + 4)
        exporter.close()
    assert sum("takes no spans" in each.message for each in caplog.records) == 2


def test_a_dead_collector_costs_a_bounded_queue() -> None:
    dropped = list[int]()
    exporter = OtlpExporter("http://127.0.0.1:9", {}, dropped.append)
    exporter.take(records(MOST_WAITING))
    exporter.take(records(7))
    assert dropped == [7]
    exporter.close()
    assert sum(dropped) == MOST_WAITING + 7


def test_a_wrong_collector_is_named(tmp_path: Path) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text('otlp: {endpoint: "collector:4318", sample: 0.1%x, headers: {a: "b\\nc"}}\n')
    said = run("check", "--config", str(file), cwd=tmp_path).stderr
    assert "otlp.endpoint: `collector:4318` is not an address" in said
    assert "otlp.headers.a: line breaks" in said
    assert "otlp.sample" in said
