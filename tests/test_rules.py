"""Test rules: what is fixed is answered without a model, and nothing else is."""

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from processes import Serving, mocking, models, run, serving
from slipway.admission import OPERATOR
from slipway.app.loading import load_settings
from slipway.app.rulebooks import collected_from
from slipway.rules import RuleBook, RuleQuestion, read_rules
from slipway.rules.normalising import normal_form
from slipway.rules.suggesting import suggestions
from slipway.settings import Flags
from slipway.store import CollectedAnswer
from slipway.types import Answered, Asker
from waiting import until

BRANCHES = "city,address,names\nParis,12 rue de Rivoli,Paname|巴黎\nNew York,5 5th Ave,NYC|纽约\n"
RULES = """
timezone: Europe/Paris
tables:
  branches: {file: branches.csv, also: names}
rules:
  - name: opening-hours
    questions:
      - When are you open?
      - 你们几点开门？
    answer:
      en: We are open Monday to Friday, 9:00 to 17:00.
      zh: 周一至周五 9:00-17:00。
    tests:
      - "hello, when are you OPEN"
  - name: branch
    patterns:
      - where is the {city:branches} (branch|shop)
      - "{city:branches}的地址[是什么]"
    answer: "{city}: {city.address}"
  - name: parking
    patterns: ["how much (is|are|does) {n:number} day[s] of parking [cost]", "停车{n:number}天多少钱"]
    slots: {n: {type: number, min: 1, max: 60}}
    answer: "{money(n * 4.5, 'EUR')}"
  - name: return
    patterns: I bought it {day:date}[,] until when can I return it
    answer: "Until {day + 14}, a {weekday(day + 14)}."
  - name: convert
    patterns: ["convert {x:unit} (to|into) {to:unit_name}", "{x:unit}(是|等于)多少{to:unit_name}"]
    answer: "{x} = {round(to(x, to), 2)}"
  - name: calculator
    patterns: (what is|calculate) {x:formula}
    answer: "{x.result}"
  - name: size
    patterns: "do you have {size:small|medium|large} shirts"
    answer: "Yes, {size}."
  - name: greet
    patterns: my name is {name:text}
    answer: "Hello, {name}!"
  - name: order
    patterns: '/order (?P<id>[A-Z]{2}\\d{4})/'
    answer: "Order {id}."
  - name: salary
    questions: When is the salary paid?
    answer: On the 25th.
    groups: [staff]
  - name: refund
    questions: How do I get a refund?
    answer: Ask at the desk.
    shadow: true
  - name: cancel
    questions: How do I cancel it?
    answer: In your account.
"""


def write_rules(folder: Path, rules: str = RULES) -> Path:
    (folder / "branches.csv").write_text(BRANCHES, encoding="utf-8")
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    return folder / "rules.yaml"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("rules")
    write_rules(folder)
    keys = [
        {"key": "key-of-staff", "groups": ["staff"]},
        {"key": "key-of-guest"},
    ]
    with mocking(text="A ramp for {ships}.") as mock:
        tree = {
            **models(f"http://127.0.0.1:{mock.port}/v1", "m1"),
            "apps": {
                "faq": {"rules": "./rules.yaml"},
                "desk": {"rules": {"file": "./rules.yaml", "collect": True}, "route": "m1"},
            },
            "keys": keys,
        }
        with serving(folder, settings=tree) as server:
            yield server


def ask(server: Serving, asked: str, key: str = "key-of-guest", **more: Any) -> dict[str, Any]:
    body = {"app": "faq", **({"question": asked} if "messages" not in more else {}), **more}
    reply = server.post("/v1/answers", body, headers={"Authorization": f"Bearer {key}"})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> RuleBook:
    return RuleBook(read_rules(write_rules(tmp_path_factory.mktemp("book"))))


def said(book: RuleBook, asked: str, today: str = "2026-03-10") -> str | None:
    question = RuleQuestion(text=asked, asker=Asker(owner="x"), today=date.fromisoformat(today))
    match = book.match(question).match
    return match.text if match is not None else None


SECRET = "The bonus is 5000 crowns.\x1b]0;\x9b\x85\u202e"
OPEN = "We are open Monday to Friday, 9:00 to 17:00."


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("When are you open?", OPEN),
        ("  WHEN are   you open", OPEN),
        ("Hi, when are you open? Thanks!", OPEN),
        ("Ｗｈｅｎ are you open？", OPEN),
        ("请问你们 几点开门？谢谢", "周一至周五 9:00-17:00。"),
        ("Where is the nyc shop?", "New York: 5 5th Ave"),
        ("巴黎的地址是什么？", "Paris: 12 rue de Rivoli"),
        ("How much does twenty-one days of parking cost?", "94.50 EUR"),
        ("停车十二天多少钱", "54.00 EUR"),
        ("I bought it yesterday, until when can I return it?", "Until 2026-03-23, a Monday."),
        ("i bought it 25/12/2025 until when can I return it", "Until 2026-01-08, a Thursday."),
        ("convert 5 km to miles", "5 km = 3.11 mi"),
        ("Convert 100 °F into celsius", "100 °F = 37.78 °C"),
        ("3斤等于多少千克", "3 斤 = 1.5 kg"),
        ("what is 12 * (3 + 4)?", "84"),
        ("what is 0.1 + 0.2", "0.3"),
        ("What is 1/3?", "≈ 0.333333"),
        ("do you have LARGE shirts", "Yes, large."),
        ("order ab1234", "Order ab1234."),
        (
            "my name is <b>*Eve*</b> [x](http://e/) & co",
            r"Hello, \<b\>\*Eve\*\</b\> \[x\](http://e/) \& co!",
        ),
    ],
)
def test_a_rule_answers_however_the_question_is_written(
    book: RuleBook, asked: str, answer: str
) -> None:
    assert said(book, asked) == answer


@pytest.mark.parametrize(
    "asked",
    [
        "When are you not open?",
        "When were you open?",
        "几点开门",
        "Where is the London shop?",
        "how much are 61 days of parking",
        "how much are 1,5 days of parking",  # could be 15, or one and a half
        "I bought it 3/4/2026, until when can I return it",  # in March or in April
        "I bought it 31 February, until when can I return it",
        "convert 5 km to kg",
        "what is 1/0",
        "what is 9^9^9^9",
        "what is 9**9**9",
        "what is 7",
        "do you have tiny shirts",
        "order ab12345",
        "When are you open? " * 100,
        "?!",
    ],
)
def test_a_rule_that_is_not_sure_says_nothing(book: RuleBook, asked: str) -> None:
    assert said(book, asked) is None


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300))
@example("1" * 300)
@example("what is " + "(" * 90 + "1" + ")" * 90)
@example("what is " + "9^64*" * 30 + "9")
@example("convert 1e999999999 km to miles")
def test_no_question_breaks_the_rules(book: RuleBook, text: str) -> None:
    said(book, text)
    assert normal_form(normal_form(text)) == normal_form(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("बैंक की शाखा", "बैंक का शाखा"),  # vowel signs make another word
        ("ธนาคารเปิด", "ธนาคารเปิ่ด"),
        ("is x ≤ 5", "is x ≥ 5"),
        ("learn C", "learn C++"),
        ("is it -5", "is it 5"),
        ("version 1.5", "version 15"),
        ("pay 5 €", "pay 5 ₹"),
    ],
)
def test_questions_that_differ_in_a_sign_stay_apart(one: str, other: str) -> None:
    assert normal_form(one) != normal_form(other)


def test_a_text_is_no_huge_number(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{name: a, patterns: 'twice {x:text}', answer: '{x * 2}'}]")
    book = RuleBook(read_rules(file))
    assert said(book, "twice 4.5") == "9"
    assert said(book, "twice 1e999999999") is None
    assert said(book, "twice " + "9" * 150) is None


def test_explain_says_which_rule_answers_and_which_nearly_does(tmp_path: Path) -> None:
    write_rules(tmp_path)
    (tmp_path / "slipway.yaml").write_text("apps: {faq: {rules: ./rules.yaml}}")
    nearly = run("rules", "explain", "convert 5 km to kg", cwd=tmp_path).stdout
    assert "it fits `convert {x:unit} (to|into) {to:unit_name}`" in nearly
    assert "the answer cannot be computed: km (length) is not kg (mass)" in nearly
    assert nearly.endswith("no rule answers this question\n")
    staff = run("rules", "explain", "When is the salary paid?", "--json", cwd=tmp_path).stdout
    (rule,) = json.loads(staff)["faq"]["recognised"]
    assert (rule["rule"], rule["no_answer"]) == ("salary", "only for the groups staff")


def test_a_rule_answers_as_chunks_as_events_and_whole(server: Serving) -> None:
    headers = {"Authorization": "Bearer key-of-guest"}
    body = {"model": "faq", "messages": [{"role": "user", "content": "When are you open"}]}
    whole = server.post("/v1/chat/completions", body, headers=headers).json()
    assert whole["slipway"]["served_by"] == "rule"
    stream = server.post("/v1/chat/completions", {**body, "stream": True}, headers=headers).text
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"] == OPEN
    assert stream.rstrip().endswith("data: [DONE]")
    question = {"app": "faq", "question": "When are you open", "stream": True}
    events = server.post("/v1/answers", question, headers=headers).text
    assert re.findall("^event: (.*)$", events, re.MULTILINE) == [
        "section",
        "delta",
        "section",
        "done",
    ]


def test_without_documents_and_model_other_questions_get_an_honest_sentence(
    server: Serving,
) -> None:
    reply = ask(server, "Who are you?")
    assert reply["abstained"]
    assert reply["text"] == "There is no prepared answer to this question."
    assert ask(server, "你是谁？")["text"] == "这个问题没有现成的答案。"


def test_what_no_rule_answers_goes_on_to_the_model(server: Serving) -> None:
    assert ask(server, "When are you open?", app="desk")["served_by"] == "rule"
    other = ask(server, "Who are you?", app="desk")
    assert (other["served_by"], other["model"]) == ("model", "m1")


def test_a_rule_with_groups_is_for_them_only(server: Serving) -> None:
    assert ask(server, "When is the salary paid?")["abstained"]
    assert ask(server, "When is the salary paid?", "key-of-staff")["text"] == "On the 25th."


def test_a_shadow_rule_is_traced_and_counted_but_does_not_answer(server: Serving) -> None:
    reply = ask(server, "How do I get a refund?")
    assert reply["abstained"]
    headers = {"Authorization": "Bearer key-of-guest"}
    trace = server.get(f"/v1/traces/{reply['id']}", headers=headers).json()
    (rule,) = trace["tries"][0]["rules"]
    assert (rule["rule"], rule["kind"], rule["shadow"]) == ("refund", "question", True)
    assert rule["reason"] == "it is `How do I get a refund?`"
    metrics = server.get("/metrics", headers=headers).text
    assert 'slipway_rule_hits_total{app="faq",kind="question",outcome="shadow"}' in metrics


@pytest.mark.parametrize("asked", ["How do I cancel it?", "When are you open?"])
def test_a_follow_up_is_not_answered_out_of_context(server: Serving, asked: str) -> None:
    """`it` is something that was named before; the other question says all by itself."""
    assert ask(server, asked)["served_by"] == "rule"
    before = [
        {"role": "user", "content": "Tell me about the gold contract."},
        {"role": "assistant", "content": "It costs 5 EUR."},
    ]
    reply = ask(server, asked, messages=[*before, {"role": "user", "content": asked}])
    assert reply["abstained"] == ("it" in asked.split()[-1])


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_object"}},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "When are you open?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                    ],
                }
            ]
        },
    ],
)
def test_what_a_rule_cannot_see_or_write_is_left_to_the_model(
    server: Serving, more: dict[str, Any]
) -> None:
    body = {
        "model": "desk",
        "messages": [{"role": "user", "content": "When are you open?"}],
        **more,
    }
    headers = {"Authorization": "Bearer key-of-guest"}
    reply = server.post("/v1/chat/completions", body, headers=headers).json()
    assert reply["slipway"]["served_by"] == "model"


def test_repeated_questions_become_rules_once_a_person_accepts_them(
    server: Serving, tmp_path: Path
) -> None:
    assert ask(server, "When are you open?", app="desk", key="key-of-staff")["served_by"] == "rule"
    for asked in ("What is a slipway?", "what is a slipway", "What is a SLIPWAY!"):
        assert ask(server, asked, app="desk", key="key-of-staff")["served_by"] == "model"
    config = min(server.log_file.parent.glob("settings-*.yaml"))

    def proposed() -> list[dict[str, Any]]:
        found = run("rules", "suggest", "--app", "desk", "--json", "--config", str(config))
        assert found.returncode == 0, found.stderr
        rows: list[dict[str, Any]] = json.loads(found.stdout)["desk"]
        return [row for row in rows if row["name"] == "what-is-a-slipway"]

    (row,) = until(proposed)
    assert row["questions"] == ["What is a slipway?"]
    assert row["answer"] == "A ramp for {ships}."
    assert (row["count"], row["groups"]) == (3, ["staff"])
    unknown = run("rules", "suggest", "--accept", "no-such", "--config", str(config))
    assert unknown.returncode == 2
    assert "there is no proposal `no-such`; known: " in unknown.stderr
    done = run(
        "rules", "suggest", "--app", "desk", "--accept", row["name"], "--config", str(config)
    )
    assert "rule `what-is-a-slipway` added" in done.stdout
    # the running server reads it, and it is for the group of those who asked
    until(lambda: not ask(server, "What is a slipway?", "key-of-staff")["abstained"])
    answer = ask(server, "What is a slipway?", "key-of-staff")
    assert (answer["text"], answer["abstained"]) == ("A ramp for {ships}.", False)
    assert ask(server, "What is a slipway?")["abstained"]
    report = run("rules", "report", "--app", "desk", "--json", "--config", str(config))
    rules = {row["rule"]: row for row in json.loads(report.stdout)}
    assert rules["opening-hours"]["served"] >= 1
    assert rules["what-is-a-slipway"]["groups"] == ["staff"]


def collected(number: int, groups: tuple[str, ...], text: str = SECRET) -> CollectedAnswer:
    question = "What is the bonus?"
    return CollectedAnswer(
        answer=f"ans-{number}",
        at=1.0,
        app="desk",
        tenant="default",
        question=question,
        text=text,
        groups=groups,
        sources=("a\n- b.md",),
    )


@pytest.mark.parametrize(
    ("others", "groups"),
    [
        ([("hr",)] * 2, ("hr",)),
        ([("board",)], ("board", "hr")),
        ([("hr", "staff")] * 3, ("hr",)),
        ([()], ()),
    ],
)
def test_a_proposed_rule_tells_nobody_what_they_may_not_read(
    book: RuleBook, others: list[tuple[str, ...]], groups: tuple[str, ...]
) -> None:
    rows = [collected(n, each) for n, each in enumerate([*[("hr",)] * 4, *others])]
    (found,) = suggestions(rows, book)
    assert found.groups == groups
    # somebody without a group got another answer, from what everybody may read
    (found,) = suggestions([*rows, collected(9, (), "See the handbook.")], book)
    assert found.groups == groups
    assert all(line.startswith(("#", "-", "  ")) for line in found.yaml().splitlines())
    assert yaml.safe_load(found.yaml())[0]["answer"] == SECRET
    assert found.yaml().replace("\n", "").isprintable()


def test_nobody_knows_which_of_several_groups_a_document_is_for(book: RuleBook) -> None:
    assert suggestions([collected(n, ("hr", "staff")) for n in range(5)], book) == []


def test_what_the_operator_asks_makes_no_rule(tmp_path: Path) -> None:
    """The operator may read everything, without a group."""
    (tmp_path / "slipway.yaml").write_text(
        "models: {m: {base_url: 'http://127.0.0.1:9/v1'}}\n"
        f"apps: {{desk: {{route: m, rules: {{file: '{write_rules(tmp_path)}', collect: true}}}}}}\n"
    )
    settings = load_settings(Flags(config=tmp_path / "slipway.yaml")).settings
    answered = Answered(
        id="ans-1",
        at=1.0,
        tenant="default",
        owner="a-key",
        app="desk",
        model="m",
        served_by="model",
        prompt=None,
        question="What is the bonus?",
        text=SECRET,
        is_whole=True,
    )
    assert collected_from(answered, settings) is not None
    assert collected_from(replace(answered, owner=OPERATOR.owner), settings) is None


# Tests of rules


BROKEN = """
rules:
  - name: hours
    questions: When are you open?
    answer: From 9:00.
    tests:
      - {ask: "When are you open?", answer: From 8:00.}
  - name: desk
    questions: Where is the desk?
    answer: Upstairs.
"""


def test_a_rule_with_a_failing_test_is_off_and_check_fails(tmp_path: Path) -> None:
    rules = write_rules(tmp_path, BROKEN)
    (tmp_path / "slipway.yaml").write_text("apps: {faq: {rules: ./rules.yaml}}")
    says = (
        "rules.yaml:7: rules[0].tests[0]: test of `hours` failed: `When are you open?` is answered "
        "`From 9:00.`, not `From 8:00.`"
    )
    tested = run("rules", "test", cwd=tmp_path)
    assert (tested.returncode, tested.stdout) == (1, f"{says}\n1 test, 1 failed\n")
    checked = run("check", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (2, f"slipway: {says}\n")
    with serving(tmp_path, "--config", str(tmp_path / "slipway.yaml")) as server:
        assert "the rule is off until that is fixed" in server.log
        assert server.post("/v1/answers", {"question": "When are you open?"}).json()["abstained"]
        desk = server.post("/v1/answers", {"question": "Where is the desk?"}).json()
        assert desk["text"] == "Upstairs."
        # a changed file is read again, and an invalid one is refused
        rules.write_text(BROKEN.replace("From 8:00", "From 9:00"))
        until(
            lambda: (
                server.post("/v1/answers", {"question": "When are you open?"}).json()["text"]
                == "From 9:00."
            )
        )
        rules.write_text("rules: [{name: x}]")
        until(lambda: "settings not applied" in server.log)
        assert "rules.yaml:1: rules[0]: `answer` is missing" in server.log
        assert not server.post("/v1/answers", {"question": "When are you open?"}).json()[
            "abstained"
        ]
