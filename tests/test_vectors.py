"""Test exact search over vectors while rows change, and how text is embedded."""

import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from slipway.knowledge.embedding import Embedder
from slipway.knowledge.vectors import Vectors

Floats = NDArray[np.float32]
SIZE = 8


def vector(id_: int, size: int = SIZE) -> Floats:
    """Always the same for an id; few different ones, so that there are equals."""
    made = np.random.default_rng(id_ % 50).normal(size=size).astype(np.float32)
    return made / np.linalg.norm(made)


def matrix(ids: Iterable[int], size: int = SIZE) -> Floats:
    return np.array([vector(id_, size) for id_ in ids], np.float32).reshape(-1, size)


def brute(ids: Iterable[int], query: Floats, limit: int) -> list[tuple[int, float]]:
    return sorted(
        ((id_, float(vector(id_) @ query)) for id_ in ids),
        key=lambda pair: (-round(pair[1], 5), pair[0]),
    )[:limit]


CHANGE = st.tuples(
    st.sampled_from(["put", "drop"]), st.lists(st.integers(0, 300), max_size=80, unique=True)
)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(CHANGE, max_size=8),
    limit=st.integers(0, 30),
    asked=st.integers(0, 400),
    kept=st.integers(1, 4),
)
def test_search_finds_the_same_as_comparing_all(
    changes: list[tuple[str, list[int]]], limit: int, asked: int, kept: int
) -> None:
    vectors, known = Vectors(SIZE), set[int]()
    for what, ids in changes:
        if what == "put":
            vectors.put(ids, matrix(ids))
            known |= set(ids)
        else:
            vectors.drop(ids)
            known -= set(ids)
    query = vector(asked)
    allowed = {id_ for id_ in known if id_ % kept == 0}
    mask = np.zeros(max(allowed, default=0) + 1, np.bool_)
    mask[list(allowed)] = True
    assert len(vectors) == len(known)
    for inside, said in ((known, None), (allowed, allowed), (allowed, mask)):
        found, expected = vectors.search(query, limit, said), brute(inside, query, limit)
        assert [score for _, score in found] == pytest.approx(
            [score for _, score in expected], abs=1e-5
        )
        assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]


def exactly(rows: Floats, ids: Sequence[int], query: Floats, limit: int) -> list[tuple[int, float]]:
    """Plain numpy over all rows, in float64."""
    cosines = (rows * query.astype(np.float64)).sum(axis=1)
    best = np.lexsort((ids, -cosines))[:limit]
    return [(ids[row], float(cosines[row])) for row in best]


def made(kind: str, count: int, size: int, draw: np.random.Generator) -> Floats:
    """Rows that rounding can hardly tell apart, or rounds badly."""
    rows = draw.normal(size=(count, size))
    if kind == "clusters":
        rows = draw.normal(size=(3, size))[draw.integers(0, 3, count)] + rows * 1e-4
    elif kind == "equals":
        rows = rows[draw.integers(0, min(count, 4), count)]
    elif kind == "one number outweighs":
        rows[np.arange(count), draw.integers(0, min(size, 3), count)] += 50
    elif kind == "nearly nothing":
        rows *= 10.0 ** -draw.choice([1, 8, 25, 32, 43, 50], size=(count, 1))
    elif kind == "halves of a step":  # where each number is rounded as far as can be
        rows = (draw.integers(-126, 126, size=(count, size)) + 0.5) / 127
        rows[:, 0] = 1
    if kind != "nearly nothing":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    single = rows.astype(np.float32)
    if kind == "the last bit":
        up = np.where(draw.random((count, size)) < 2 / size, np.float32(np.inf), single[0])
        single = np.nextafter(single[:1].repeat(count, axis=0), up)
    return single


KINDS = [
    "random",
    "clusters",
    "equals",
    "one number outweighs",
    "nearly nothing",
    "halves of a step",
    "the last bit",
]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 3000),
    size=st.sampled_from([1, 3, 64, 384]),
    limit=st.integers(1, 60),
)
def test_search_is_exact_to_the_bit(
    kind: str, seed: int, count: int, size: int, limit: int
) -> None:
    draw = np.random.default_rng(seed)
    rows = made(kind, count, size, draw)
    ids = [int(id_) for id_ in draw.permutation(2 * count)[:count]]
    query = made(kind if kind != "nearly nothing" else "random", 1, size, draw)[0]
    vectors = Vectors(size)
    for start in range(0, count, 700):
        vectors.put(ids[start : start + 700], rows[start : start + 700])
    mask = draw.random(2 * count) < 0.3
    for asked in (query, rows[-1], -rows[0]):
        assert vectors.search(asked, limit) == exactly(rows, ids, asked, limit)
        inside = [row for row, id_ in enumerate(ids) if mask[id_]]
        found = vectors.search(asked, limit, mask)
        assert found == exactly(rows[inside], [ids[row] for row in inside], asked, limit)
        assert vectors.compare(asked, [id_ for id_, _ in found]) == dict(found)


def test_a_row_that_is_not_finite_spoils_no_search() -> None:
    vectors = Vectors(SIZE)
    vectors.put([1, 2, 3], np.array([vector(1), [np.nan] * SIZE, [np.inf] * SIZE], np.float32))
    assert vectors.search(vector(1), 3) == [(1, pytest.approx(1)), (2, 0), (3, 0)]


def test_rows_are_found_after_memory_was_taken_and_given_back() -> None:
    vectors = Vectors(SIZE)
    rows = np.random.default_rng(1).normal(size=(10_000, SIZE)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    vectors.put(range(10_000), rows)
    assert all(vectors.search(rows[id_], 1)[0][0] == id_ for id_ in (0, 4095, 4096, 9999))
    vectors.drop(range(9_990))
    assert next(id_ for id_, _ in vectors.search(rows[9_995], 20)) == 9_995
    assert {id_ for id_, _ in vectors.search(rows[0], 20)} == set(range(9_990, 10_000))


def test_wrong_shapes_are_refused_and_nothing_is_changed() -> None:
    vectors = Vectors(SIZE)
    with pytest.raises(ValueError, match="2 ids of 8 dimensions"):
        vectors.put([1, 2], matrix([1]))
    vectors.put([1], matrix([1]))
    with pytest.raises(ValueError, match="8 dimensions"):
        vectors.search(np.ones(3, np.float32), 1)
    assert vectors.search(vector(1), 1)[0][0] == 1


def test_a_few_can_be_compared_by_number() -> None:
    vectors = Vectors(SIZE)
    vectors.put([5, 7], matrix([5, 7]))
    assert vectors.compare(vector(5), [7, 5, 9]) == pytest.approx(
        {5: 1.0, 7: float(vector(5) @ vector(7))}, abs=1e-6
    )


def test_searches_stay_right_while_rows_come_and_go() -> None:
    """Eight threads always find a permanent vector first, with score 1; removed vectors are not
    found.
    """
    vectors, stop = Vectors(SIZE), threading.Event()
    steady = np.eye(SIZE, dtype=np.float32)
    vectors.put(range(SIZE), steady)

    def change() -> None:
        passing = matrix(range(100, 5_000)) * 0.5
        while not stop.is_set():
            vectors.put(range(100, 5_000), passing)
            vectors.drop(range(100, 5_000))

    def ask(which: int) -> bool:
        return all(vectors.search(steady[which], 1) == [(which, 1.0)] for _ in range(200))

    changer = threading.Thread(target=change)
    changer.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            assert all(threads.map(ask, range(SIZE)))
    finally:
        stop.set()
        changer.join()
    assert len(vectors.search(steady[0], 6_000)) == SIZE


def test_texts_with_the_same_meaning_are_near(embedder: Embedder) -> None:
    texts = [
        "The harbour closes at dusk.",
        "Ships cannot enter after sunset.",
        "Bread is baked from flour and water.",
    ]
    vectors = embedder.embed(texts)
    assert vectors.shape == (3, embedder.dimensions)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2
    assert embedder.embed_query("When may a ship no longer come in?") @ vectors[1] > 0.5


def test_a_vector_depends_on_nothing_but_its_text(embedder: Embedder) -> None:
    texts = [
        "one",
        "a somewhat longer text about harbours",
        "word " * 600,
        "",
        "\ud800 half a pair",
        "one",
    ]
    together = embedder.embed(texts)
    assert not np.isnan(together).any()
    assert (together[0] == together[5]).all()
    with ThreadPoolExecutor(8) as threads:
        alone = list(threads.map(embedder.embed_query, texts * 4))
    assert all(
        (vector == together[number % len(texts)]).all() for number, vector in enumerate(alone)
    )


def test_the_end_of_a_long_text_is_not_seen(embedder: Embedder) -> None:
    assert (
        embedder.embed_query("word " * 300) == embedder.embed_query("word " * 300 + "and more")
    ).all()


def test_progress_counts_texts(embedder: Embedder) -> None:
    seen: list[tuple[int, int]] = []
    embedder.embed(["a", "b"], lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert embedder.embed([]).shape == (0, 384)


def test_nothing_heavy_is_loaded_before_it_is_used() -> None:
    code = (
        "import slipway.knowledge.embedding, slipway.knowledge.vectors, sys; print({'numpy', "
        "'onnxruntime', 'tokenizers'} & set(sys.modules))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "set()\n"
    )


def test_rows_that_are_put_again_take_no_more_space() -> None:
    vectors, matrix = Vectors(4), np.eye(4, dtype=np.float32)
    for _ in range(600):
        vectors.put([1, 2, 3, 4], matrix)
    assert len(vectors) == 4
    assert [found for found, _ in vectors.search(matrix[2], 1)] == [3]
