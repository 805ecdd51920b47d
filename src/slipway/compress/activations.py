"""What flows through a model's layers, in plain numpy: enough to see which parts matter.

`pruning.py` calibrates with it, so that pruning needs no torch; logits come from here in tests
only.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from slipway.compress.checkpoint import Checkpoint, Floats
from slipway.compress.refusals import refused
from slipway.types import Record

Weight = Callable[[str, Floats], Floats]  # (tensor's name, what it will be multiplied with)
Get = Callable[[str, Floats], Floats]  # the same within a layer


_NONE: Floats = np.zeros((), np.float32)  # a vector is not multiplied with anything


class Shape(Record, frozen=True, kw_only=True):
    """The numbers that a forward pass needs."""

    layers: int
    heads: int
    kv_heads: int
    head: int
    epsilon: float
    interleaved: bool


def shape_of(model: Checkpoint) -> Shape:
    """Raises SettingsError for positions that are scaled in a way that is not known here."""
    scaling = model.fields.get(f"{model.architecture.name}.rope.scaling.type")
    if scaling is not None and scaling.value not in ("none", ""):
        what = (
            f"MODEL: its rotary positions are scaled by `{scaling.value}`, which is not known here"
        )
        raise refused(f"{what}; it can be quantised, not pruned or distilled")
    heads = int(model.number("attention.head_count"))
    width = int(model.number("embedding_length"))
    return Shape(
        layers=model.layers,
        heads=heads,
        kv_heads=int(model.number("attention.head_count_kv", heads)),
        head=int(model.number("attention.key_length", width // heads)),
        epsilon=model.number("attention.layer_norm_rms_epsilon"),
        interleaved=model.architecture.interleaved,
    )


def angles(model: Checkpoint, length: int) -> tuple[Floats, Floats]:
    """Cosines and sines of the rotary positions (Su et al. 2021): (length, head / 2) each."""
    half = shape_of(model).head // 2
    base = model.number("rope.freq_base", 10_000.0)
    speed = base ** (-np.arange(half, dtype=np.float64) / half)
    if "rope_freqs.weight" in model.tensors:
        speed = speed / model.tensors["rope_freqs.weight"].load().astype(np.float64)
    angle = np.arange(length)[:, None] * speed
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


class Layer(Record, frozen=True, kw_only=True):
    """One layer's input and output, and what its network of gates multiplies `ffn_down` with."""

    number: int
    into: Floats
    out: Floats
    gated: Floats


def layers(
    model: Checkpoint, windows: Sequence[Sequence[int]], weight: Weight | None = None
) -> Iterator[Layer]:
    """Each layer's activations on these windows of equal length, in order: (window, token, width).

    `weight` gives the matrix to go on with; the model's own if it is left out.
    """
    shape, tokens = shape_of(model), np.asarray(windows)
    turn = angles(model, tokens.shape[1])
    x = model.tensors["token_embd.weight"].load()[tokens]
    for number in range(shape.layers):

        def get(name: str, by: Floats, number: int = number) -> Floats:
            full = f"blk.{number}.{name}"
            if weight is None or by is _NONE:
                return model.tensors[full].load()
            return weight(full, by)

        into = x
        x = x + _attention(
            _norm(x, get("attn_norm.weight", _NONE), shape.epsilon), get, model, turn
        )
        h = _norm(x, get("ffn_norm.weight", _NONE), shape.epsilon)
        gate = h @ get("ffn_gate.weight", h).T
        gated = gate / (1 + np.exp(-gate)) * (h @ get("ffn_up.weight", h).T)
        x = x + gated @ get("ffn_down.weight", gated).T
        yield Layer(number=number, into=into, out=x, gated=gated)


def logits(model: Checkpoint, windows: Sequence[Sequence[int]]) -> Floats:
    """What the model predicts after each token: (window, token, vocabulary)."""
    x = None
    for layer in layers(model, windows):
        x = layer.out
    if x is None:
        raise AssertionError("a model has layers")
    name = "output.weight" if "output.weight" in model.tensors else "token_embd.weight"
    norm = model.tensors["output_norm.weight"].load()
    found: Floats = _norm(x, norm, shape_of(model).epsilon) @ model.tensors[name].load().T
    return found


def _norm(x: Floats, weight: Floats, epsilon: float) -> Floats:
    scale: Floats = 1 / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(epsilon))
    return x * scale * weight


def _attention(h: Floats, get: Get, model: Checkpoint, turn: tuple[Floats, Floats]) -> Floats:
    shape, kind = shape_of(model), model.architecture

    def heads(name: str, count: int) -> Floats:
        x = h @ get(f"{name}.weight", h).T
        x = x + get(f"{name}.bias", _NONE) if kind.biases else x
        x = x.reshape(*h.shape[:2], count, shape.head)
        is_normed = kind.head_norms and name != "attn_v"
        return _norm(x, get(f"{name}_norm.weight", _NONE), shape.epsilon) if is_normed else x

    q = turned(heads("attn_q", shape.heads), turn, interleaved=shape.interleaved)
    k = turned(heads("attn_k", shape.kv_heads), turn, interleaved=shape.interleaved)
    v = heads("attn_v", shape.kv_heads)
    k, v = (np.repeat(x, shape.heads // shape.kv_heads, axis=2) for x in (k, v))
    scores = np.einsum("wihd,wjhd->whij", q, k, optimize=True) / np.float32(np.sqrt(shape.head))
    length = h.shape[1]
    scores[..., ~np.tri(length, dtype=bool)] = -np.inf
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed = np.einsum("whij,wjhd->wihd", scores, v, optimize=True).reshape(*h.shape[:2], -1)
    out: Floats = mixed @ get("attn_output.weight", mixed).T
    return out


def turned(x: Floats, turn: tuple[Floats, Floats], *, interleaved: bool) -> Floats:
    """Queries or keys (window, token, head, number) turned by their positions."""
    cos, sin = (each[:, None, :] for each in turn)
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    pair = [a * cos - b * sin, a * sin + b * cos]
    out: Floats = np.stack(pair, -1).reshape(x.shape) if interleaved else np.concatenate(pair, -1)
    return out
