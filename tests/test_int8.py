"""Test that products in 8-bit integers match those of floats as far as 8 bits can tell."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tokenizers import Tokenizer

from slipway import weights
from slipway.knowledge.embedding import LONGEST, Embedder
from slipway.knowledge.int8 import exact_if_signed, in_integers

Floats = NDArray[np.float32]


# A model of one product, written by the rules of protocol buffers


def number(field: int, value: int) -> bytes:
    tag = field << 3
    return bytes([tag & 127 | 128, tag >> 7, value]) if tag > 127 else bytes([tag, value])


def message(field: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([field << 3 | 2]) + length + bytes([size]) + content


def node(kind: str, inputs: list[str], output: str, attribute: bytes = b"") -> bytes:
    return message(
        1,
        b"".join(message(1, name.encode()) for name in inputs)
        + message(2, output.encode())
        + message(4, kind.encode())
        + attribute,
    )


def tensor(name: str, kind: int, values: NDArray[Any]) -> bytes:
    sizes = b"".join(number(1, size) for size in values.shape)
    return message(
        5, sizes + number(2, kind) + message(8, name.encode()) + message(9, values.tobytes())
    )


def value(field: int, name: str) -> bytes:
    two = message(2, message(1, message(2, b"n")) + message(1, message(2, b"m")))
    return message(field, message(1, name.encode()) + message(2, message(1, number(1, 1) + two)))


def model(kept: NDArray[np.int8], scale: Floats, opset: int = 17, *more: bytes) -> bytes:
    to_float = message(5, message(1, b"to") + number(3, 1) + number(20, 2))
    nodes = [
        node("Cast", ["kept"], "wide", to_float),
        node("Mul", ["wide", "scale"], "weights"),
        node("MatMul", ["x", "weights"], "y"),
    ]
    tensors = [tensor("kept", 3, kept), tensor("scale", 1, scale)]
    graph = b"".join([*nodes, *more, message(2, b"one"), *tensors, value(11, "x"), value(12, "y")])
    return number(1, 8) + message(7, graph) + message(8, number(2, opset))


def run(content: bytes, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    y: Floats = session.run(None, {"x": x})[0]
    return y


def exact() -> bool:
    """Return whether this processor adds signed weights without overflow."""
    sums = onnxruntime.InferenceSession(exact_if_signed(), providers=["CPUExecutionProvider"]).run(
        None, {}
    )[0]
    assert sums.shape == (2, 16)
    return bool((sums == 64 * 255 * 127).all())


EXACT = exact()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(1, 9),
    inner=st.integers(1, 70),
    columns=st.integers(1, 40),
    size=st.floats(-3, 3),
    signed=st.sampled_from([False, EXACT]),
)
def test_integer_products_agree_with_floats(
    signed: bool, seed: int, rows: int, inner: int, columns: int, size: float
) -> None:
    draw = np.random.default_rng(seed)
    kept = draw.integers(-127, 128, (inner, columns)).astype(np.int8)
    scale = draw.uniform(0.001, 0.1, (1, columns)).astype(np.float32)
    x = (draw.normal(size=(rows, inner)) * 10**size).astype(np.float32)
    x[0] *= draw.integers(0, 2)  # a row of zeros has no scale
    content = model(kept, scale)
    rewritten = in_integers(content, signed=signed)
    assert rewritten is not None
    exact, found = run(content, x), run(rewritten, x)
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    furthest = (
        0.51 * step * np.abs(kept.astype(np.float32)).sum(axis=0) * scale
    )  # half a step, for each number of the row
    assert np.all(np.abs(found - exact) <= furthest + 1e-4 * np.abs(exact) + 1e-6)
    assert np.array_equal(
        found, run(in_integers(content, signed=False) or b"", x)
    )  # the same on every processor
    alone = np.concatenate([run(rewritten, x[row : row + 1]) for row in range(rows)])
    assert np.array_equal(found, alone)  # no row depends on its neighbours


@pytest.mark.parametrize("signed", [False, EXACT])
def test_the_extremes_fit_into_the_sums_of_any_processor(signed: bool) -> None:
    """A processor without instructions for int8 adds two products of signed weights in 16 bits."""
    kept, ones = np.full((64, 4), -127, np.int8), np.ones((1, 4), np.float32)
    x = np.ones((2, 64), np.float32) * np.array([[1.0], [-1.0]], np.float32)
    found = run(in_integers(model(kept, ones), signed=signed) or b"", x)
    assert found == pytest.approx(np.array([[-127.0 * 64] * 4, [127.0 * 64] * 4]))


def test_unknown_nodes_of_the_graph_stay_as_they_are() -> None:
    kept, ones = np.ones((3, 2), np.int8), np.ones((1, 2), np.float32)
    assert in_integers(model(kept, ones, opset=18), signed=True) is None
    assert in_integers(b"", signed=True) is None
    square = np.ones((2, 2), np.int8)
    assert in_integers(model(square, ones), signed=True) is not None
    assert in_integers(model(square, ones.T), signed=True) is None  # a scale for each row
    for reader in (
        node("Neg", ["weights"], "z"),
        node("Neg", ["kept"], "z"),
        node("MatMul", ["weights", "x"], "z"),
    ):
        assert (
            in_integers(model(square, ones, 17, reader), signed=True) is None
        )  # something else reads them too
    for broken in (model(kept, ones)[:-3], b"\x3a\xff", b"\xff" * 20, b"\x38\x05"):
        with pytest.raises(ValueError, match=r"message|field"):
            in_integers(broken, signed=False)


def test_vectors_agree_with_floats(embedder: Embedder) -> None:
    files = weights.found("minilm") or {}
    plain = onnxruntime.InferenceSession(
        str(files["model.onnx"]), providers=["CPUExecutionProvider"]
    )
    tokenizer = Tokenizer.from_file(str(files["tokenizer.json"]))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    texts = [
        "How long is a refund?",
        "x",
        "Ein Satz mit Umlauten: äöü.",
        "退款需要多长时间？",
        " ".join(["tax", "law", "of", "1999"] * 200),
    ]
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], np.int64)
        states = plain.run(
            None,
            {
                "input_ids": ids,
                "attention_mask": np.ones_like(ids),
                "token_type_ids": np.zeros_like(ids),
            },
        )[0][0]
        exact = states.mean(axis=0) / np.linalg.norm(states.mean(axis=0))
        assert float(embedder.embed([text])[0] @ exact) > 0.99
    assert embedder.model.endswith("/8")
