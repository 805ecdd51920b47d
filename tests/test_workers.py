"""Test `slipway serve --workers 2`: whichever worker gets a connection, everything works, and the
server looks like one from outside.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from processes import mocking, models, serving
from several_workers import Workers, total
from slipway.providers.mock import MockServer
from waiting import until

KEY = {"authorization": "Bearer workers-key-1"}
OTHER = {"authorization": "Bearer workers-key-2"}
TEA = "# Tea\n\n## Green tea\n\nGreen tea is brewed at 80 degrees for two minutes.\n"
BOTH = pytest.mark.parametrize("worker", [1, 2])
PAIRS = pytest.mark.parametrize(("asked", "other"), [(1, 2), (2, 1), (2, 2)])
MOST = 6  # answers in progress


class Site:
    """The server with two workers, the mock behind it, and the settings file."""

    def __init__(self, workers: Workers, mock: MockServer, file: Path) -> None:
        self.workers, self.mock, self.file = workers, mock, file
        self.to, self.server = workers.to, workers.server

    def ask(self, worker: int, question: str = "How is green tea brewed?", **more: Any) -> Any:
        reply = self.to(worker).post(
            "/v1/answers", json={"question": question, "app": "tea", **more}, headers=KEY
        )
        assert reply.status_code == 200, reply.text
        return reply.json()

    def chat(self, worker: int, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **more}
        return self.to(worker).post("/v1/chat/completions", json=body, headers=KEY)

    @contextmanager
    def streaming(self, worker: int, path: str, **body: Any) -> Iterator[httpx.Response]:
        """Begin a stream on a connection of its own to this worker."""
        with self.to(worker).stream(
            "POST", path, json={"stream": True, **body}, headers=KEY
        ) as reply:
            assert reply.status_code == 200, reply.read()
            yield reply

    def save(self, settings: Any) -> None:
        beside = self.file.with_suffix(".new")
        beside.write_text(json.dumps(settings))
        beside.replace(self.file)


def site_settings(mock: MockServer, folder: Path) -> dict[str, Any]:
    settings = models(mock.url, "mock-model", "say-100", "say-4000", "fault-cut-8")
    settings["models"]["one-by-one"] = {"base_url": mock.url, "name": "say-200", "at_once": 1}
    settings["models"]["two-by-two"] = {"base_url": mock.url, "name": "say-200", "at_once": 2}
    settings["models"]["kept"] = {"base_url": mock.url, "name": "mock-model", "cache": "1h"}
    settings["models"]["mock-model"]["price"] = {"input": 1, "output": 1}
    settings["models"]["own-metrics"] = {"base_url": mock.url, "metrics": True}
    settings["apps"] = {
        "tea": {
            "knowledge": str(folder / "tea.md"),
            "route": "mock-model",
            "limits": {"usd_per_day": 1000},
        },
        "slow-tea": {"knowledge": str(folder / "tea.md"), "route": "say-100"},
        "endless-tea": {"knowledge": str(folder / "tea.md"), "route": "say-4000"},
        "cut": {"knowledge": str(folder / "tea.md"), "route": "fault-cut-8"},
    }
    settings["keys"] = [
        {"key": "workers-key-1", "documents": True, "groups": ["staff"]},
        {"key": "workers-key-2"},
    ]
    settings["limits"] = {"answers": MOST}
    settings["embedding"] = "none"
    settings["conversations"] = "server"
    return settings


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("workers")
    (folder / "tea.md").write_text(TEA)
    file = folder / "own.yaml"
    with mocking(tokens=12, tpot_s=0.002, metrics="vllm") as mock:
        file.write_text(json.dumps(site_settings(mock, folder)))
        with (
            serving(folder, "--workers", "2", "--config", str(file)) as server,
            ExitStack() as stack,
        ):
            workers = Workers(server, stack)
            until(lambda: server.get("/readyz", headers=KEY).json()["knowledge"]["tea"]["ready"])
            yield Site(workers, mock, file)
            assert "Traceback" not in server.log, server.log


def events_of(reply: httpx.Response) -> Iterator[tuple[int, str, Any]]:
    number, name = 0, ""
    for line in reply.iter_lines():
        if line.startswith("id: "):
            number = int(line[4:])
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield number, name, json.loads(line[6:])


@BOTH
def test_each_worker_answers_for_models_and_apps(site: Site, worker: int) -> None:
    for model in ("mock-model", "tea", "one-by-one"):
        whole = site.chat(worker, model)
        assert whole.status_code == 200, whole.text
        assert whole.json()["choices"][0]["message"]["content"]
        streamed = site.chat(worker, model, stream=True)
        assert streamed.text.rstrip().endswith("data: [DONE]"), streamed.text
    old = site.to(worker).post(
        "/v1/completions", json={"model": "tea", "prompt": "Green tea?"}, headers=KEY
    )
    assert old.json()["object"] == "text_completion", old.text
    names = [each["id"] for each in site.to(worker).get("/v1/models", headers=KEY).json()["data"]]
    assert {"tea", "mock-model", "one-by-one"} <= set(names)
    assert "<html" in site.to(worker).get("/").text


@PAIRS
def test_an_answer_is_the_same_through_every_worker(site: Site, asked: int, other: int) -> None:
    answer = site.ask(asked)
    assert answer["sources"][0]["path"] == "tea.md"
    there = site.to(other)
    kept = there.get(f"/v1/answers/{answer['id']}", headers=KEY).json()
    assert (kept["text"], kept["state"]) == (answer["text"], "done")
    passage = there.get(f"/v1/passages/{answer['sources'][0]['id']}", headers=KEY)
    assert "80 degrees" in passage.json()["text"]
    vote = there.post("/v1/feedback", json={"answer": answer["id"], "helpful": True}, headers=KEY)
    assert vote.json()["replaced"] is False, vote.text
    again = site.to(asked).post(
        "/v1/feedback", json={"answer": answer["id"], "helpful": False}, headers=KEY
    )
    assert again.json()["replaced"] is True, again.text
    gone = there.delete(f"/v1/feedback/{answer['id']}", headers=KEY)
    assert gone.json()["withdrawn"] == 1, gone.text
    hidden = there.get(f"/v1/answers/{answer['id']}", headers=OTHER)
    assert hidden.status_code == 404


@PAIRS
def test_an_answer_that_one_worker_streams_is_resumed_at_another(
    site: Site, asked: int, other: int
) -> None:
    with site.streaming(asked, "/v1/answers", question="Green tea?", app="slow-tea") as reply:
        answer_id = reply.headers["x-slipway-answer-id"]
        seen = [event for event, _ in zip(events_of(reply), range(5), strict=False)]
    url, last = f"/v1/answers/{answer_id}/events", {"last-event-id": str(seen[-1][0])}
    with site.to(other).stream("GET", url, headers={**KEY, **last}) as rest:
        numbers = [*(each[0] for each in seen), *(each[0] for each in events_of(rest))]
    assert numbers == list(range(1, numbers[-1] + 1))


@PAIRS
def test_an_answer_is_stopped_and_retried_at_another_worker(
    site: Site, asked: int, other: int
) -> None:
    body = {"question": "Green tea?", "app": "endless-tea"}
    with site.streaming(asked, "/v1/answers", **body) as reply:
        events = events_of(reply)
        next(events)
        path = f"/v1/answers/{reply.headers['x-slipway-answer-id']}"
        stopped = site.workers.fresh(other).post(f"{path}/cancel", headers=KEY)
        assert stopped.status_code == 200, stopped.text
        *_, (last, name, error) = events
        assert (name, error["code"]) == ("error", "cancelled")
    with site.streaming(other, f"{path}/retry") as again:
        assert next(events_of(again))[0] == last + 1
    site.to(asked).post(f"{path}/cancel", headers=KEY)
    until(lambda: site.to(asked).get(path, headers=KEY).json()["state"] == "cancelled")


@BOTH
def test_documents_are_added_listed_and_removed_through_every_worker(
    site: Site, worker: int
) -> None:
    here, there = site.to(worker), site.to(3 - worker)
    text = b"# Lime\n\nLime blossom tea is brewed for seven minutes.\n" + b"x " * 200_000
    added = here.post(
        "/v1/documents",
        files={"file": (f"lime-{worker}.md", text)},
        data={"app": "tea", "tags": "a,b"},
        headers=KEY,
    )
    assert added.status_code == 201, added.text
    (document,) = added.json()["data"]
    path = f"/v1/documents/{document['id']}"
    until(lambda: there.get(path, headers=KEY).json()["state"] == "done")
    found = site.ask(3 - worker, "How long is lime blossom tea brewed?")
    assert any(each["path"].startswith(f"uploads/lime-{worker}~") for each in found["sources"])
    refused = here.request("DELETE", path, headers=OTHER)
    assert refused.status_code in (403, 404), refused.text
    assert there.delete(path, headers=KEY).json()["deleted"] is True
    assert here.get(path, headers=KEY).status_code == 404


@PAIRS
def test_a_trace_is_found_whichever_worker_answered(site: Site, asked: int, other: int) -> None:
    for model in ("mock-model", "tea"):
        answer_id = site.chat(asked, model).headers["x-slipway-answer-id"]
        trace = site.to(other).get(f"/v1/traces/{answer_id}", headers=KEY)
        assert trace.json()["tries"][0]["answer"]["app"] == model, trace.text
        assert site.to(other).get(f"/v1/traces/{answer_id}", headers=OTHER).status_code == 404
    assert site.to(other).get("/v1/traces/ans-unknown", headers=KEY).status_code == 404


@BOTH
def test_an_invalidation_reaches_the_answers_that_other_workers_keep(
    site: Site, worker: int
) -> None:
    for each in (1, 2):
        assert site.chat(each, "kept").headers["x-slipway-cache"] == "miss"
        assert site.chat(each, "kept").headers["x-slipway-cache"] == "hit"
    removed = site.to(worker).post("/v1/cache/invalidate", json={"app": "kept"}, headers=KEY)
    assert removed.json() == {"invalidated": 2, "everywhere": True}
    report = site.to(worker).get("/v1/cache/report", headers=KEY).json()
    row = next(row for row in report["saved"] if row["app"] == "kept")
    assert row["answers"] == 2 * worker


@BOTH
def test_conversations_and_links_are_kept_for_all(site: Site, worker: int) -> None:
    here, there = site.to(worker), site.to(3 - worker)
    body = {"title": "Tea", "at": 1.0, "turns": [{"question": "Why?"}]}
    path = f"/v1/conversations/c-{worker}"
    assert here.put(path, json=body, headers=KEY).status_code == 200
    assert there.get(path, headers=KEY).json()["title"] == "Tea"
    assert there.get(path, headers=OTHER).status_code == 404
    assert here.delete(path, headers=KEY).json()["deleted"] is True


@BOTH
def test_every_worker_refuses_what_one_refuses(site: Site, worker: int) -> None:
    client = site.to(worker)
    unknown = {"authorization": "Bearer not-a-known-key"}
    chat = {"model": "mock-model", "messages": [{"role": "user", "content": "Hello"}]}
    for path, body, headers, status, code in (
        ("/v1/chat/completions", chat, unknown, 401, "invalid_api_key"),
        ("/v1/chat/completions", chat, {}, 401, "invalid_api_key"),
        ("/v1/chat/completions", {**chat, "model": "moc-model"}, KEY, 404, "model_not_found"),
        ("/v1/answers", {"app": "tea"}, KEY, 400, "bad_request"),
        ("/v1/answers", {"question": "?", "app": "none"}, KEY, 404, "model_not_found"),
        ("/v1/nothing", {}, KEY, 404, "not_found"),
        ("/v1/chat/completions", chat, {**KEY, "host": "evil.example"}, 403, "forbidden"),
        ("/v1/answers", chat, {**KEY, "origin": "https://evil.example"}, 403, "forbidden"),
    ):
        reply = client.post(path, json=body, headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (status, code), reply.text
    forged = {**KEY, "x-slipway-relay": "0" * 64, "x-slipway-client": "10.0.0.1 5"}
    assert client.get("/v1/models", headers=forged).status_code == 200
    assert client.get("/v1/answers", headers=KEY).status_code == 405


@BOTH
def test_a_client_that_leaves_ends_its_answer(site: Site, worker: int) -> None:
    before = site.workers.metric(
        'slipway_answers_total{app="endless-tea",error="cancelled"', headers=KEY
    )
    body = {"model": "endless-tea", "messages": [{"role": "user", "content": "Green tea?"}]}
    with site.streaming(worker, "/v1/chat/completions", **body) as reply:
        next(reply.iter_lines())
    until(
        lambda: (
            site.workers.metric(
                'slipway_answers_total{app="endless-tea",error="cancelled"', headers=KEY
            )
            == before + 1
        )
    )


def test_metrics_are_the_sums_of_all_workers(site: Site) -> None:
    calls = len(site.mock.requests)
    attempts = site.workers.metric("slipway_attempts_total", headers=KEY)
    for n in range(12):
        assert site.chat(1 + n % 2, "mock-model", stream=n % 3 == 0).status_code == 200
    for worker in (1, 2):
        text = site.to(worker).get("/metrics", headers=KEY).text
        assert total(text, "slipway_attempts_total") - attempts == 12
        assert total(text, "slipway_answers_in_flight") == 0
        assert 'slipway_model_state{model="mock-model",state="closed"} 1.0' in text
        assert 'slipway_knowledge_documents{app="tea",state="read"}' in text
        assert 'slipway_engine_requests{model="own-metrics",state="running"}' in text
        assert 'slipway_budget_used_ratio{name="tea",period="day",scope="app"}' in text
        assert total(text, "slipway_build_info") == 1
    assert len(site.mock.requests) - calls == 12


@BOTH
def test_readiness_is_that_of_the_whole_server(site: Site, worker: int) -> None:
    ready = site.to(worker).get("/readyz", headers=KEY)
    body = ready.json()
    assert (ready.status_code, body["status"]) == (200, "ready")
    assert body["knowledge"]["tea"]["documents"] >= 1
    assert (body["workers"]["configured"], body["workers"]["running"]) == (2, 2)
    assert "knowledge" in site.to(worker).get("/readyz").json()
    assert site.to(worker).get("/readyz").json()["knowledge"] == {}


def test_the_limit_of_answers_holds_for_all_workers_together(site: Site) -> None:
    body = {"model": "say-4000", "messages": [{"role": "user", "content": "Hello"}]}
    streams = []
    with ExitStack() as stack:
        for n in range(MOST):
            client = site.workers.fresh(1 + n % 2)
            reply = stack.enter_context(
                client.stream(
                    "POST", "/v1/chat/completions", json={**body, "stream": True}, headers=KEY
                )
            )
            streams.append(reply.iter_lines())
            next(streams[-1])
        for worker in (1, 2):
            refused = site.chat(worker, "mock-model")
            assert refused.status_code == 503, refused.text
            assert refused.json()["error"]["code"] == "overloaded"
    until(lambda: site.workers.metric("slipway_answers_in_flight", headers=KEY) == 0)
    assert site.chat(2, "mock-model").status_code == 200


@pytest.mark.parametrize(("model", "most"), [("one-by-one", 1), ("two-by-two", 2)])
def test_a_model_gets_as_many_calls_at_once_as_it_takes(site: Site, model: str, most: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        clients = [site.workers.fresh(1 + n % 2) for n in range(4)]
        replies = [pool.submit(chat_through, client, model) for client in clients]
        calls = f'slipway_model_calls{{model="{model}",state='
        until(lambda: site.workers.metric(f'{calls}"waiting"', headers=KEY) == 4 - most)
        assert site.workers.metric(f'{calls}"running"', headers=KEY) <= most
        assert [reply.result().status_code for reply in replies] == [200] * 4


def chat_through(client: httpx.Client, model: str) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    return client.post("/v1/chat/completions", json=body, headers=KEY)
