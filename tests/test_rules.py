"""Test rules: what is fixed is answered without a model, and nothing else is."""

import json
from collections.abc import Iterator

import pytest

from processes import Serving, serving

RULES = """
timezone: Europe/Paris
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
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(RULES)
    with serving(folder, settings={"apps": {"faq": {"rules": "./rules.yaml"}}}) as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("When are you open?", "We are open Monday to Friday, 9:00 to 17:00."),
        ("  WHEN are   you open", "We are open Monday to Friday, 9:00 to 17:00."),
        ("Hi, when are you open? Thanks!", "We are open Monday to Friday, 9:00 to 17:00."),
        ("Ｗｈｅｎ are you open？", "We are open Monday to Friday, 9:00 to 17:00."),
        ("请问你们 几点开门？谢谢", "周一至周五 9:00-17:00。"),
    ],
)
def test_a_question_is_answered_however_it_is_written(
    server: Serving, asked: str, answer: str
) -> None:
    reply = server.post("/v1/answers", {"question": asked}).json()
    assert (reply["text"], reply["served_by"], reply["abstained"]) == (answer, "rule", False)
    assert reply["model"] is None
    assert reply["usage"] is None


@pytest.mark.parametrize("asked", ["When are you not open?", "When were you open?", "几点开门"])
def test_another_question_is_not_answered(server: Serving, asked: str) -> None:
    reply = server.post("/v1/answers", {"question": asked}).json()
    assert reply["abstained"]


def test_a_rule_answers_as_chunks_as_events_and_whole(server: Serving) -> None:
    whole = server.chat("faq", messages=[{"role": "user", "content": "When are you open"}]).json()
    assert whole["slipway"]["served_by"] == "rule"
    stream = server.chat(
        "faq", messages=[{"role": "user", "content": "When are you open"}], stream=True
    ).text
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == whole["choices"][0]["message"]["content"]
    assert stream.rstrip().endswith("data: [DONE]")
    events = server.post("/v1/answers", {"question": "When are you open", "stream": True}).text
    assert 'event: done\ndata: {"id":"ans-' in events
    assert '"served_by":"rule"' in events
