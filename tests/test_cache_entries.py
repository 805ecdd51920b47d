"""Test the entries of the cache themselves: their age, the budget of bytes, and what is selected."""

import asyncio
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slipway.cache import AnswerCache, KeptAnswer, Lifetime, Selection, digest
from slipway.cache.keys import parameters_of
from slipway.cache.memory import MemoryEntries

APPS, TAGS, PATHS, TENANTS = ("a", "b"), ("t", "u"), ("x.md", "y.md"), ("red", "blue")


def entry(key: str, *, size: int = 10, at: float = 0.0, **fields: object) -> KeptAnswer:
    given: dict[str, object] = {
        "app": "a",
        "tenant": "red",
        "lifetime": Lifetime(fresh=10.0, refresh=5.0, error=100.0),
        **fields,
    }
    return KeptAnswer(key=key, kept_at=at, form="whole", body=b"x" * size, **given)  # type: ignore[arg-type]


def test_being_asked_does_not_make_an_answer_younger() -> None:
    now = 0.0
    cache = AnswerCache(now=lambda: now)
    cache.put(entry("k"))
    states = []
    for now in (1.0, 9.0, 9.9, 10.0, 14.9, 15.0, 109.0):
        found = asyncio.run(cache.get("k"))
        assert found is not None
        states.append(found.state(now))
    assert states == ["fresh", "fresh", "fresh", "refresh", "refresh", "error", "error"]
    now = 110.0
    assert asyncio.run(cache.get("k")) is None
    assert cache.stats().entries == 0


def test_the_least_used_answers_leave_when_memory_is_short() -> None:
    dropped = list[tuple[str, str]]()
    memory = MemoryEntries(10_000, lambda each, cause: dropped.append((each.key, cause)))
    for key in "abcd":
        memory.put(entry(key, size=1500))
        memory.get("a")
    memory.put(entry("e", size=1500))
    assert dropped == [("b", "evicted")]
    assert memory.bytes <= 10_000
    memory.put(entry("large", size=20_000))
    assert memory.get("large") is None
    assert memory.get("a") is not None


def test_an_answer_above_the_limit_is_not_kept() -> None:
    cache = AnswerCache(answer_kb=1.0, now=lambda: 0.0)
    cache.put(entry("small", size=1024))
    cache.put(entry("large", size=1025))
    assert asyncio.run(cache.get("small")) is not None
    assert asyncio.run(cache.get("large")) is None


names = st.tuples(
    st.sampled_from(APPS),
    st.sampled_from(TENANTS),
    st.sets(st.sampled_from(TAGS)),
    st.sets(st.sampled_from(PATHS)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), names), max_size=30), st.integers(2000, 20_000))
def test_a_selection_finds_exactly_what_it_matches(
    steps: list[tuple[int, tuple[str, str, set[str], set[str]]]], budget: int
) -> None:
    memory = MemoryEntries(budget)
    for number, (app, tenant, tags, paths) in steps:
        each = entry(str(number), app=app, tenant=tenant, tags=(*tags,), documents=(*paths,))
        memory.put(each)
        if number % 4 == 0:
            memory.drop(str(number // 4), "request")
    kept = list(memory)
    assert memory.bytes == sum(each.size for each in kept) <= budget
    choices = product((None, *APPS), (None, *TAGS), (None, *PATHS), (None, *TENANTS), (None, "3"))
    for app_, tag, path, tenant_, key in choices:
        wanted = Selection(app=app_, tag=tag, document=path, tenant=tenant_, key=key)
        found = {each.key for each in memory.select(wanted)}
        assert found == {each.key for each in kept if wanted.matches(each)}


def test_a_key_is_the_same_in_every_process() -> None:
    body = b'{"messages":[{"role":"user","content":"Hi"}],"temperature":0.0,"model":"m"}'
    assert digest("chat", parameters_of(body)) == "3324b8b2765735405f1e8e9d715bfd12"


@pytest.mark.parametrize("other", [("a", ["b"]), ("ab",), ("a", "b", None), (["a", "b"],)])
def test_parts_of_a_key_do_not_run_together(other: tuple[object, ...]) -> None:
    assert digest("a", "b") != digest(*other)
