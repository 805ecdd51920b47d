"""Test that every mistake in a rules file gets a sentence with its line, field and fix."""

import sys
from pathlib import Path

import pytest

from slipway.errors import SettingsError
from slipway.rules import read_rules

HEAD = "rules:\n  - name: a\n    answer: x\n"
Q = HEAD + "    questions: When are you open?\n"
P = HEAD + "    patterns: "
MISTAKES = [
    ("rules:\n  - questions: Hi\n    answer: x", "2: rules[0]: `name` is missing; add `name: …`"),
    ("rules:\n  - name: a\n    questions: Hi", "2: rules[0]: `answer` is missing"),
    (HEAD, "2: rules[0]: `a` matches nothing; add `questions`, `patterns` or `examples`"),
    (Q.replace("answer: x", "answer: ''"), "3: rules[0].answer: the answer is empty"),
    (Q + "    question: Hi", "5: rules[0].question: there is no such field; did you mean"),
    (
        Q + "  - name: a\n    answer: y\n    questions: Hi there you",
        "5: rules[1].name: `a` is already the name of the rule on line 2; rename one",
    ),
    (
        Q + "  - name: b\n    answer: y\n    questions:\n      - WHEN are you open",
        "8: rules[1].questions[0]: `WHEN are you open` is claimed by two rules: `b` here, and `a` on",
    ),
    (
        HEAD + "    examples: [one day, two days]\n    counter_examples: [one day]",
        "4: rules[0].examples[0]: `one day` is an example and a counter-example of `a`",
    ),
    (Q + "    counter_examples: [x y]", "counter-examples need `examples`; add them"),
    (Q.replace("When are you open?", "'?!'"), "`?!` has no words; write a question"),
    (Q.replace("answer: x", "answer: in {n} days"), "the answer uses `{n}`, which only `patterns`"),
    (Q.replace("answer: x", "answer: 'a { b'"), "a `{` is alone; write `{{` for a brace itself"),
    (
        Q.replace("answer: x", "answer: \"{__import__('os')}\""),
        "there is no function `__import__`; known: round, min",
    ),
    (Q.replace("answer: x", "answer: '{today.year}'"), "`today` is a date and has no `.year`"),
    (Q.replace("answer: x", "answer: '{[1][0]}'"), "is not allowed; use slots, numbers"),
    (P + "'{x:text}?'", "it fits every question; add words that must be there"),
    (
        Q.replace("answer: x", "answer: {en: x, de: y}"),
        "3: rules[0].answer: `de` is no language that rules recognise; write `en` or `zh`",
    ),
    (P + "'/(a+)+(?=b)/'", "4: rules[0].patterns: `(?=…` could backtrack without end"),
    (P + "'/(a)\\1/'", "a back-reference could backtrack without end, so it is refused"),
    (P + "'/(a/'", "it is no regular expression that RE2 knows: missing )"),
    (P + "a {n:number", "`{` is not closed; add `}`"),
    (P + "a (b|c", "`(` is not closed; add `)`"),
    (P + "a b)", "`)` closes nothing; write `\\` before it"),
    (P + "'a {n:nomber}'", "there is no slot type `nomber`; known: text, number, date"),
    (P + "'{n:number} or {n:number}'", "the slot `n` is there twice; give each its own name"),
    (
        (P + "'for {n:number} days'").replace("answer: x", "answer: '{m * 2}'"),
        "the answer uses `{m}`, and this pattern has no such slot; its slots: n",
    ),
    (P + "'a {n:number}'\n    slots: {m: number}", "no pattern has the slot `m`"),
    (
        "tables: {t: {file: t.csv, key: town}}\n" + Q,
        "1: tables.t: `FOLDER/t.csv` has no column `town`, which `key` names; its columns are: city",
    ),
    ("tables: {t: missing.csv}\n" + Q, "`FOLDER/missing.csv` cannot be read: no such file"),
    ("tables: {t: twice.csv}\n" + Q, "has the key `PARIS`, as line 2 has"),
    (
        ("tables: {t: t.csv}\n" + P + "'in {c:t}'").replace("answer: x", "answer: '{c.zip}'"),
        "the answer uses `{c.zip}`, and the t `c` has no `zip`; it has: city, price",
    ),
    ("timezone: Mars/Base\n" + Q, "1: timezone: `Mars/Base` is not a time zone"),
    ("rules: [", "this is not valid YAML"),
    (Q + "    tests: [{ask: Hi, on: soon}]", "`soon` is not valid"),
]


@pytest.mark.parametrize(("rules", "says"), MISTAKES)
def test_each_mistake_names_its_place_and_the_fix(tmp_path: Path, rules: str, says: str) -> None:
    (tmp_path / "t.csv").write_text("city,price\nParis,5\n")
    (tmp_path / "twice.csv").write_text("city\nParis\nPARIS\n")
    file = tmp_path / "rules.yaml"
    file.write_text(rules)
    with pytest.raises(SettingsError) as refused:
        read_rules(file)
    problems = "\n".join(refused.value.problems).replace(str(tmp_path), "FOLDER")
    assert says in problems, problems
    assert problems.startswith("FOLDER/rules.yaml")


def test_one_question_may_have_an_answer_for_each_group(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(
        Q.replace("answer: x", "answer: x\n    groups: [staff]")
        + "  - {name: b, answer: y, questions: 'when are you open'}"
    )
    assert len(read_rules(file).content.rules) == 2


def test_a_rule_sees_nothing_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(Q.replace("answer: x", "answer: 'costs ${{HOME}}'"))
    assert read_rules(file).content.rules[0].answer == "costs ${{HOME}}"


def test_patterns_say_which_extra_they_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)  # as if it was not installed
    file = tmp_path / "rules.yaml"
    file.write_text(P + "'for {n:number} days'")
    with pytest.raises(SettingsError) as refused:
        read_rules(file)
    assert "run `pip install 'slipway[rules]'`" in refused.value.problems[0]
    file.write_text(Q)
    assert read_rules(file).content.rules[0].name == "a"
