"""Test how the mock provider continues answers that were cut, in the ways that models have."""

import asyncio
import random
import re
from typing import Any

import pytest

from raw_http import ask, chat, code_of, get, json_of, settings, wire, with_mock
from slipway.providers.mock import CONTINUES, GO_ON, PREFACES, MockServer

QUESTION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "From these.\n[1] Ships float.\nWhat floats?"},
]


def prefilled(so_far: str, **keys: Any) -> list[dict[str, Any]]:
    return [*QUESTION, {"role": "assistant", "content": so_far, **keys}]


def prompted(so_far: str) -> list[dict[str, Any]]:
    return [
        *prefilled(so_far),
        {"role": "user", "content": f"The answer broke off. {GO_ON}, without a word before it."},
    ]


FORMS = pytest.mark.parametrize("form", [prefilled, prompted])
STREAMED = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def said(
    messages: list[dict[str, Any]],
    *,
    stream: bool = True,
    model: str = "m",
    limit: int | None = None,
    **more: Any,
) -> str:
    got = get(
        {"model": model, "messages": messages, "stream": stream, "max_tokens": limit},
        **{"tokens": 60, "ttft_s": 0.0, "tpot_s": 0.0, **more},
    )
    return "".join(got.texts) if stream else str(json_of(got)["choices"][0]["message"]["content"])


TRUTH = said(QUESTION)
PLACES = random.Random(7).sample(range(1, len(TRUTH)), 12)


@FORMS
@STREAMED
def test_continuing_from_any_cut_gives_the_full_text(form: Any, stream: bool) -> None:
    for at in [*PLACES, len(TRUTH)]:
        assert TRUTH[:at] + said(form(TRUTH[:at]), stream=stream) == TRUTH


@FORMS
def test_neither_the_models_name_nor_the_providers_own_keys_matter(form: Any) -> None:
    assert said(form(TRUTH[:100]), model="another") == TRUTH[100:]
    assert said(prefilled(TRUTH[:100], prefix=True, partial=True)) == TRUTH[100:]
    assert said(form(TRUTH[:100]), seed=1) == said(
        QUESTION, seed=1
    )  # another seed never said so, and begins again
    assert said(form("I never said this.")) == TRUTH
    assert said(form("")) == TRUTH


def test_an_ordinary_conversation_is_not_continued() -> None:
    reported = [*prefilled(TRUTH[:100]), {"role": "user", "content": "And what sinks?"}]
    assert said(reported) not in {TRUTH, TRUTH[100:]}
    assert said([{"role": "user", "content": f"{GO_ON}."}])
    assert len(said([{"role": "assistant", "content": "Alone"}]).split()) == 60


def test_usage_and_limit_count_only_new_text() -> None:
    partial = " ".join(TRUTH.split()[:40]) + " "
    got = get({"model": "m", "messages": prompted(partial)}, tokens=60)
    assert json_of(got)["usage"]["completion_tokens"] == 20
    assert (
        json_of(got)["usage"]["prompt_tokens"]
        > json_of(get({"model": "m", "messages": QUESTION}))["usage"]["prompt_tokens"]
    )
    assert said(prompted(partial), limit=5).split() == TRUTH.split()[40:45]


@FORMS
def test_shaped_and_fixed_answers_are_continued_too(form: Any) -> None:
    for model, text in [
        ("echo", None),
        ("say-9", None),
        ("fault-lies-3", None),
        ("fault-inject", None),
        ("m", "一二三 四五六 七"),
    ]:
        whole = said(QUESTION, model=model, text=text)
        assert whole[:7] + said(form(whole[:7]), model=model, text=text) == whole


@FORMS
def test_several_choices_each_have_their_own_truth(form: Any) -> None:
    body = {"model": "m", "n": 2}
    first, second = (
        c["message"]["content"] for c in json_of(get({**body, "messages": QUESTION}))["choices"]
    )
    one, two = (
        c["message"]["content"]
        for c in json_of(get({**body, "messages": form(second[:20])}))["choices"]
    )
    assert (one, second[:20] + two) == (first, second)


# Habits


@FORMS
@STREAMED
def test_repeat_says_the_last_words_once_more(form: Any, stream: bool) -> None:
    counts = set()
    for at in PLACES:
        partial, rest = TRUTH[:at], TRUTH[at:]
        again = said(form(partial), continues="repeat", stream=stream)
        assert again.endswith(rest)
        overlap = again.removesuffix(rest)
        assert partial.endswith(overlap)
        assert partial[: -len(overlap)] in {
            "",
            *(TRUTH[: m.end()] for m in re.finditer(r"\s", TRUTH)),
        }  # it begins with a word
        counts.add(len(overlap.split()))
    assert counts <= set(range(1, 13))
    assert len(counts) > 2
    assert said(form(TRUTH[:3]), continues="repeat") == TRUTH


@FORMS
def test_restart_begins_from_the_beginning(form: Any) -> None:
    assert {said(form(TRUTH[:at]), continues="restart") for at in PLACES} == {TRUTH}


@FORMS
def test_preface_announces_the_continuation(form: Any) -> None:
    prefaces = {
        said(form(TRUTH[:at]), continues="preface").removesuffix(TRUTH[at:]) for at in PLACES
    }
    assert prefaces <= set(PREFACES)
    assert len(prefaces) > 3


@FORMS
def test_space_is_wrong_at_the_joint_and_nowhere_else(form: Any) -> None:
    gap = TRUTH.index(" ", 100)
    assert said(form(TRUTH[:gap]), continues="space") == TRUTH[gap + 1 :]
    after = {
        said(form(TRUTH[:at]), continues="space").removesuffix(TRUTH[at:])
        for at in range(gap + 1, gap + 4)
    }
    assert after <= {" ", "\n"}


@pytest.mark.parametrize("habit", CONTINUES)
def test_where_nothing_is_left_nothing_is_said(habit: str) -> None:
    got = get(
        {"model": "m", "messages": prefilled(TRUTH), "stream": True}, tokens=60, continues=habit
    )
    assert (got.texts, got.finishes, got.events[-1]) == ([], ["stop"], "DONE")


def test_a_habit_that_there_is_not_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no 'always'\. Known: exact, repeat"):
        MockServer(settings(continues="always"))


def test_an_answer_that_two_mocks_cut_anywhere_is_completed() -> None:
    """The third mock has no fault; it continues every complete event of the first two."""

    async def use() -> str:
        text = ""
        for script in (("cutany",), ("cutchar-3",), ()):
            async with MockServer(settings(tokens=60, script=script)) as mock:
                got = await ask(
                    mock.port,
                    wire(
                        {
                            "model": "m",
                            "messages": prompted(text) if text else QUESTION,
                            "stream": True,
                        }
                    ),
                )
                events = re.findall(rb'"content":"((?:[^"\\]|\\.)*)"[^\n]*\n\n', got.body)
                text += "".join(event.decode() for event in events)
        return text

    assert asyncio.run(use()) == TRUTH


# The truth


def test_the_truth_can_be_asked_for_whatever_the_script_breaks() -> None:
    async def use(mock: MockServer) -> list[str]:
        bodies: list[dict[str, Any]] = [
            {"model": "m", "messages": QUESTION},
            {"model": "fault-cut-3", "messages": QUESTION, "stream": True},
            {"model": "m", "messages": prompted(TRUTH[:50])},
            {"model": "say-9", "messages": QUESTION},
        ]
        texts = [
            json_of(await ask(mock.port, wire(body, path="/truth")))["text"] for body in bodies
        ]
        assert (
            mock.requests,
            json_of(await ask(mock.port, wire(b"", path="/healthz", method="GET")))["calls"],
        ) == ([], 0)
        return texts

    script = ("status-503", "refuse@1h", "cutany", "say-3@1", "echo%50")
    *same, short = with_mock(use, tokens=60, script=script)
    assert set(same) == {TRUTH}
    assert len(short.split()) == 9
    assert with_mock(use, tokens=60, script=("down",))[0] == TRUTH
    assert with_mock(use, script=("say-60",))[0] == TRUTH  # what is said in every reply is true


def test_asking_for_the_full_text_of_a_request_that_is_no_chat_is_an_error() -> None:
    assert get(wire({"model": "m"}, path="/truth")).status == 400
    assert code_of(get(wire(chat("fault-stal-5"), path="/truth"))) == "model_not_found"
