"""Test which pairs of questions the guards of the semantic cache refuse, and why."""

import pytest

from slipway.cache.semantic_guards import refusal

REFUSED = [  # (asked, kept, the guard)
    ("What does 5 GB cost?", "What does 50 GB cost?", "number"),
    ("What does the second month cost?", "What do three months cost?", "number"),
    ("Is 1,000 too many?", "Is 1000.5 too many?", "number"),
    ("Can I pay for two seats?", "Can I pay for 3 seats?", "number"),
    ("Is a refund possible after 5 days?", "Is a refund possible after 5 weeks?", "unit"),
    ("I was charged $10, why?", "I was charged €10, why?", "unit"),
    ("Are you open on Monday?", "Are you open on Sunday?", "date"),
    ("What is new in March?", "What is new in April?", "date"),
    ("Why is my card accepted?", "Why is my card not accepted?", "negation"),
    ("Why can I log in?", "Why can't I log in?", "negation"),
    ("Can I travel with a passport?", "Can I travel without a passport?", "negation"),
    ("How do I turn on dark mode?", "How do I turn off dark mode?", "opposite"),
    ("How do I activate my card?", "How do I deactivate my card?", "opposite"),
    ("Is the safe locked?", "Is the safe unlocked?", "opposite"),
    ("Why is the port open?", "Why is the port closed?", "opposite"),
    ("How do I upload a file to the app?", "How do I download a file from the app?", "opposite"),
    ("Do you take Visa?", "Do you take Mastercard?", "name"),
    ("Is there a shop in Berlin?", "Is there a shop in Paris?", "name"),
    ("Does it run on gpt-4?", "Does it run on gpt-5?", "number"),
    ("Does the app run on Android phones?", "Does the app run on phones?", "name"),
    ("Will I get a visa or Mastercard?", "Will I get a Mastercard or Mastercard?", "name"),
    ("How do I move money from savings to checking?",
     "How do I move money from checking to savings?", "order"),
    ("Does the dog bite the man?", "Does the man bite the dog?", "order"),
    ("Who approves the travel budget?", "Who approves the training budget?", "word"),
    ("How do I cancel my order?", "Wie kann ich meine Bestellung stornieren und was ist der Preis?",
     "language"),
    ("How do I stop the auto top-up?", "How do I auto top-up?", "opposite"),
    ("怎么取消订单?", "怎么查看订单?", "opposite"),
    ("怎么关闭通知?", "怎么打开通知?", "opposite"),
    ("为什么我的卡能用?", "为什么我的卡不能用?", "negation"),
    ("退款需要三天吗?", "退款需要五天吗?", "number"),
    ("退款需要3天吗?", "退款需要3周吗?", "unit"),
    ("周一营业吗?", "周日营业吗?", "date"),
    ("从北京到上海怎么走?", "从上海到北京怎么走?", "order"),
    ("北京的办公室在哪里?", "上海的办公室在哪里?", "word"),
    ("退款怎么申请?", "How do I request a refund?", "language"),
]  # fmt: skip
ALLOWED = [
    ("How do I reset my password?", "how can I reset my password"),
    ("I forgot my password, what now?", "How do I reset a forgotten password?"),
    ("Where can I see my invoices?", "How do I find the invoices of my account?"),
    ("Can I have five users?", "Is it possible to have 5 users?"),
    ("Is 1,000 too many?", "Is 1000 too many?"),
    ("I don't want it, and I can't return it?", "Is returning it possible if I want to?"),
    ("Which currencies do you support?", "What currencies are supported?"),
    ("怎么申请退款?", "请问如何申请退款"),
    ("你们是不是周一营业?", "你们周一营业吗?"),
]


@pytest.mark.parametrize(("asked", "kept", "guard"), REFUSED)
def test_a_pair_that_must_not_share_an_answer_is_refused(asked: str, kept: str, guard: str) -> None:
    reasons = {refusal(asked, kept), refusal(kept, asked)}
    assert None not in reasons
    assert guard in reasons


@pytest.mark.parametrize(("asked", "kept"), ALLOWED)
def test_two_ways_to_ask_the_same_pass(asked: str, kept: str) -> None:
    assert refusal(asked, kept) is None
    assert refusal(kept, asked) is None


def test_a_word_known_as_a_name_counts_in_any_case_and_place() -> None:
    pair = ("visa works in which shops nearby", "in which shops nearby is it of use")
    assert refusal(*pair) is None
    assert refusal(*pair, known=frozenset({"visa"})) == "name"


def test_any_text_can_be_read() -> None:
    for text in (
        "",
        " ",
        "?!",
        "\ud800",
        "1/0-:",
        "ا ب",
        "x" * 10_000,
        "a1" * 2_000,
        "$€£",
        "一" * 99,
    ):
        assert refusal(text, text) is None
