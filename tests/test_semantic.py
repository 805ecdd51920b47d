"""Test answers to similar questions through HTTP: they must be earned, and are explained."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from behaviours import Behaviour, Upstream, good, running
from processes import Serving, run, serving
from slipway import weights
from waiting import until

TOPICS = {  # what people want to do -> the answer
    "reset my password": "Open Settings and choose Forgotten.",
    "cancel my subscription": "Write to billing; it ends with the month.",
    "download an invoice": "Invoices are under Account as PDF files.",
    "invite a colleague": "Press Invite in the team list.",
    "change my email address": "Edit the profile and confirm the link.",
    "export the project data": "Use the export button on the project page.",
}
WAYS = (
    "How do I {}?", "How can I {}?", "What should I do to {}?", "Please tell me how to {}",
    "I want to {}, how?", "Is there a way to {}?", "Hello, how do I {}?", "how would I {}",
    "What do I need to {}?", "I need to {}, please help", "Where can I {}?", "Can you tell me how to {}?",
    "I would like to {}", "Could I {} somewhere?", "Show me how to {}", "Which steps to {}?",
    "I have to {} now", "Explain how to {}", "Guide me, I must {}", "May I {} here?",
    "Help me {}", "Trying to {}, any hint?", "How does one {}?", "So how do I {} then?",
    "Can I {} myself?", "Quick question: how do I {}?", "I am looking for how to {}",
)  # fmt: skip
RED, BLUE, BOSS, HR = "sw-red-key-1", "sw-blue-key", "sw-boss-key", "sw-hr-key-1"


class Topics(Upstream):
    """Answers by topic; `calls` counts what was asked."""

    def __init__(self) -> None:
        super().__init__("")
        self.calls = Counter[str]()

    def behaviour(self, request: dict[str, Any], path: str) -> Behaviour:
        asked = str(request["messages"][-1]["content"])
        self.calls[asked] += 1
        if "<answer-1>" in asked:  # it is the judge
            return good("They say the SAME.", streamed=bool(request.get("stream")))
        text = next((answer for topic, answer in TOPICS.items() if topic in asked), f"No: {asked}")
        return good(text, streamed=bool(request.get("stream")))


class Taught:
    """A server whose app `desk` has been asked until it answers similar questions."""

    def __init__(self, server: Serving, upstream: Topics, folder: Path) -> None:
        self.server, self.upstream, self.folder = server, upstream, folder
        self.states = list[str]()

    def ask(self, question: str, key: str = RED, app: str = "desk", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {key}"}
        body = {"question": question, "app": app, **more}
        reply = self.server.post("/v1/answers", body, headers=headers)
        assert reply.status_code == 200, reply.text
        return reply

    def teach(self, app: str) -> None:
        ways = [way for each in WAYS[:-3] for way in (each, f"Hi there! {each}")]
        asked = [way.format(topic) for way in ways for topic in TOPICS]
        random.Random(1).shuffle(asked)
        self.states = [self.ask(each, app=app).json()["cache"]["state"] for each in asked]

    def served(self, ways: tuple[str, ...], key: str = RED) -> list[httpx.Response]:
        """Ask every topic in these ways, and return the replies that came from similar questions."""
        replies = [self.ask(way.format(topic), key) for way in ways for topic in TOPICS]
        return [each for each in replies if each.json()["cache"]["state"] == "semantic"]

    def metrics(self) -> str:
        return self.server.get("/metrics", headers={"authorization": f"Bearer {RED}"}).text

    def explain(
        self, question: str, key: str = BOSS, app: str = "desk", **more: Any
    ) -> httpx.Response:
        return self.server.post(
            "/v1/cache/explain",
            {"app": app, "question": question, **more},
            headers={"authorization": f"Bearer {key}"},
        )


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taught]:
    if not weights.found("minilm"):
        pytest.skip("no weights: slipway weights pull minilm")
    upstream, folder = Topics(), tmp_path_factory.mktemp("documents")
    (folder / "accounts.md").write_text("# Accounts\n\nTo reset my password, open Settings.\n")
    (folder / "salaries.md").write_text("# Salaries\n\nThe salary of a captain is high.\n")
    semantic = {"max_error": "20%", "compare": "exact"}
    with running(upstream) as url:
        cache = {"exact": "1h", "semantic": semantic}
        settings = {
            "keys": [
                {"key": RED, "tenant": "red"},
                {"key": BLUE, "tenant": "blue"},
                {"key": HR, "tenant": "red", "groups": ["hr"], "documents": True},
                {"key": BOSS, "tenant": "red", "documents": True},
            ],
            "models": {"m": {"base_url": url, "retries": 0, "price": {"input": 1, "output": 2}}},
            "apps": {
                "desk": {"route": "m", "cache": cache},
                "strict": {"route": "m", "cache": {"exact": "1h", "semantic": "1%"}},
                "clinic": {"route": "m", "cache": cache, "stakes": "high"},
                "plain": {"route": "m", "cache": "1h"},
                "judged": {
                    "route": "m",
                    "cache": {
                        "exact": "1h",
                        "semantic": {"max_error": "5%", "compare": "judge", "judge": "m"},
                    },
                },
                "docs": {
                    "route": "m",
                    "knowledge": str(folder),
                    "access": [{"path": "salaries.md", "groups": ["hr"]}],
                    "cache": cache,
                },
            },
        }
        with serving(tmp_path_factory.mktemp("semantic"), settings=settings) as server:
            taught = Taught(server, upstream, folder)
            taught.teach("desk")
            yield taught


def test_the_first_similar_questions_are_answered_by_the_model(taught: Taught) -> None:
    assert set(taught.states[:50]) == {"miss"}
    assert "semantic" in taught.states


def test_a_similar_question_gets_the_kept_answer_and_the_reply_says_so(taught: Taught) -> None:
    calls = taught.upstream.calls.total()
    served = taught.served(WAYS[-3:])
    assert len(served) + taught.upstream.calls.total() - calls == 3 * len(TOPICS)
    assert len(served) >= 4
    for reply in served:
        answer = reply.json()
        original = answer["cache"]["question"]
        topic = next(topic for topic in TOPICS if topic in original)
        assert answer["text"] == TOPICS[topic]
        assert answer["served_by"] == "semantic"
        assert answer["cost_usd"] in (None, "0")
        assert answer["cache"]["saved"]["by"] == "semantic"
        assert reply.headers["x-slipway-cache"] == "semantic"
        assert reply.headers["x-slipway-served-by"] == "semantic"
        assert 0.5 < float(reply.headers["x-slipway-cache-similarity"]) <= 1
        assert unquote(reply.headers["x-slipway-cache-question"]) == original


def test_chat_completions_get_it_as_well(taught: Taught) -> None:
    found = []
    for topic in TOPICS:
        body = {
            "model": "desk",
            "messages": [{"role": "user", "content": f"And how do I {topic} then?"}],
        }
        headers = {"authorization": f"Bearer {RED}"}
        reply = taught.server.post("/v1/chat/completions", body, headers=headers)
        assert reply.json()["choices"][0]["message"]["content"] == TOPICS[topic]
        found.append(reply.headers["x-slipway-cache"])
    assert "semantic" in found


def test_what_a_guard_refuses_is_never_served(taught: Taught) -> None:
    changed = ("Why can I not {}?", "How do I {} on 3 devices?", "How do I {} with Google?")
    assert taught.served(changed) == []
    near = taught.explain("How do I not reset my password?").json()["near"]
    refused = {each["refused"] for each in near if " not " not in each["text"]}
    assert refused == {"negation"}


def test_other_tenants_share_nothing(taught: Taught) -> None:
    assert taught.served(WAYS[:3], BLUE) == []


def test_a_follow_up_is_not_compared(taught: Taught) -> None:
    conversation = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello, what can I do?"},
        {"role": "user", "content": "Kindly, how would I reset my password?"},
    ]
    for _ in range(8):
        headers = {"authorization": f"Bearer {RED}"}
        body = {"messages": conversation, "app": "desk"}
        reply = taught.server.post("/v1/answers", body, headers=headers).json()
        assert reply["cache"]["state"] in ("miss", "hit")


def test_an_app_with_high_stakes_or_without_the_setting_serves_only_the_same(
    taught: Taught,
) -> None:
    for app in ("clinic", "plain"):
        for way in WAYS[:6]:
            reply = taught.ask(way.format("reset my password"), app=app)
            assert reply.json()["cache"]["state"] == "miss"
        explained = taught.explain("How do I reset my password?", app=app).json()
        assert explained["outcome"] == "off"
    assert "apps.clinic.cache.semantic: it is off, since" in taught.server.log


def test_a_new_app_is_in_shadow_and_says_what_is_missing(taught: Taught) -> None:
    for way in WAYS[:4]:
        taught.ask(way.format("reset my password"), app="strict")
    explained = taught.explain("So, how do I reset my password?", app="strict").json()
    assert explained["outcome"] == "shadow"
    assert "Nothing is served yet" in explained["why"]
    assert explained["bound"]["max_error"] == 0.01
    assert explained["questions"] == 4


def test_explaining_shows_candidates_guards_score_and_bound(taught: Taught) -> None:
    explained = taught.explain("And how do I reset my password?").json()
    assert explained["outcome"] == "served"
    assert explained["near"][0]["refused"] is None
    assert "password" in explained["near"][0]["text"]
    assert explained["score"] >= explained["bound"]["threshold"]
    assert explained["bound"]["serving"]
    assert explained["bound"]["per_hit"] <= 0.2


def test_a_model_may_compare_the_answers(taught: Taught) -> None:
    for question in ("How do I reset my password?", "How can I reset my password?"):
        taught.ask(question, app="judged")
    line = 'slipway_semantic_lookups_total{app="judged",outcome="same"} 1.0'
    until(lambda: line in taught.metrics())
    judged = [asked for asked in taught.upstream.calls if "<answer-1>" in asked]
    assert len(judged) == 1
    assert "<question-2>\nHow can I reset my password?\n</question-2>" in judged[0]


def test_who_may_read_other_documents_shares_nothing(taught: Taught) -> None:
    until(lambda: taught.ask("reset my password?", HR, "docs").json()["sources"])
    assert len(taught.explain("Hello, reset my password?", HR, "docs").json()["near"]) == 1
    assert taught.explain("Hello, reset my password?", BOSS, "docs").json()["near"] == []


def test_a_kept_answer_of_a_changed_document_is_no_candidate(taught: Taught) -> None:
    taught.ask("How do I reset my password?", BOSS, "docs")
    near = taught.explain("How can I reset my password?", BOSS, "docs").json()["near"]
    assert [each["text"] for each in near] == ["How do I reset my password?"]
    (taught.folder / "accounts.md").write_text("# Accounts\n\nTo reset my password, call us.\n")
    headers = {"authorization": f"Bearer {BOSS}"}
    taught.server.post("/v1/documents/scan", {}, headers=headers)
    until(lambda: not taught.explain("How can I reset my password?", BOSS, "docs").json()["near"])


def test_explaining_needs_a_key_that_may_see_what_others_asked(taught: Taught) -> None:
    refused = taught.explain("How?", key=RED)
    assert refused.status_code == 403
    assert "documents: true" in refused.json()["error"]["message"]
    assert taught.explain("How?", tenant="blue").status_code == 403
    assert taught.explain(" ").status_code == 400
    assert taught.explain("How?", app="m").json()["error"]["param"] == "app"
    unknown = taught.explain("How?", app="dex")
    assert "`desk`" in unknown.json()["error"]["message"]


def test_the_command_explains(taught: Taught) -> None:
    asked = ("cache", "explain", "And how do I reset my password?", "--app", "desk")
    said = run(*asked, "--url", taught.server.url, "--key", BOSS)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("desk: served. Its score ")
    assert "the error per hit is below" in said.stdout
    assert json.loads(run(*asked, "--url", taught.server.url, "--key", BOSS, "--json").stdout)[
        "near"
    ]


def test_a_vote_down_removes_the_question_and_counts(taught: Taught) -> None:
    ways = ("Well, how do I {}?", "Ok, how can I {}?", "Now how do I {}?", "Please, how do I {}?")
    answer = taught.served(ways)[0].json()
    headers = {"authorization": f"Bearer {RED}"}
    vote = {"answer": answer["id"], "helpful": False}
    assert taught.server.post("/v1/feedback", vote, headers=headers).status_code == 200
    explained = taught.explain(answer["cache"]["question"]).json()
    assert explained["bound"]["reported"] == 1
    assert answer["cache"]["question"] not in [near["text"] for near in explained["near"]]


def test_metrics_count_what_happened(taught: Taught) -> None:
    shown = taught.metrics()
    for line in (
        'slipway_semantic_lookups_total{app="desk",outcome="serve"}',
        'slipway_semantic_lookups_total{app="desk",outcome="same"}',
        'slipway_semantic_refused_total{app="desk",guard="negation"}',
        'slipway_semantic_error_bound{app="desk",per="hit"}',
        'slipway_semantic_serving{app="desk"} 1.0',
    ):
        assert line in shown


WRONG = [
    ({"semantic": "1%"}, "answers must be kept for it; add `exact: 1h`"),
    ({"exact": "1h", "semantic": "40%"}, "`40%` is too much; write `20%` or less"),
    ({"exact": "1h", "semantic": "some"}, "`some` is not a share; write `5%`"),
    ({"exact": "1h", "semantic": {"max_error": "1%", "compare": "judge"}}, "belong together"),
    (
        {"exact": "1h", "semantic": {"max_error": "1%", "compare": "judge", "judge": "x"}},
        "there is no model or route `x`",
    ),
]


def test_each_mistake_in_the_settings_gets_a_sentence(tmp_path: Path) -> None:
    models: dict[str, Any] = {"m": {"base_url": "http://127.0.0.1:9/v1"}}
    apps = {f"a{n}": {"route": "m", "cache": cache} for n, (cache, _) in enumerate(WRONG)}
    models["n"] = {**models["m"], "cache": {"exact": "1h", "semantic": "1%"}}
    file = tmp_path / "slipway.yaml"
    file.write_text(json.dumps({"models": models, "apps": apps, "embedding": "none"}))
    checked = run("check", "--config", str(file))
    assert checked.returncode == 2
    for number, (_, sentence) in enumerate(WRONG):
        lines = [line for line in checked.stderr.splitlines() if f"apps.a{number}." in line]
        assert any(sentence in line for line in lines), (sentence, lines)
        assert any("it needs an embedding" in line for line in lines)
    assert "models.n.cache.semantic: only apps have it" in checked.stderr
