"""Rounding to q4_0 with an eye on what it does: GPTQ (Frantar et al. 2022) in numpy.

Weights are rounded column by column, and what each rounding changes in the outputs is made good by
the columns that are still to come, as far as the inputs of real text allow. Layers are rounded in
order, each on what the rounded layers before it give. A block's scale is the one of several that
costs least, weighted by how large the inputs are. No gradients and no torch: about a minute for a
model of 135 million weights.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from slipway.compress.activations import layers
from slipway.compress.checkpoint import Checkpoint, Floats, Tensor

BLOCK = 32
_DAMP = 0.01  # of the mean input's square, so that the matrix of inputs can be inverted
_SCALES = np.linspace(0.72, 1.08, 10, dtype=np.float32)  # tried beside the largest number / -8


def rounded(
    model: Checkpoint,
    kinds: dict[str, str],
    windows: Sequence[Sequence[int]],
    seen: Callable[[int, int], None],
) -> Checkpoint:
    """The model with its q4_0 tensors on the grid of their type. `seen(done, total)` counts layers.

    The values are kept as bytes of q4_0 (`packed`), since ggml would choose other scales.
    """
    tensors = dict(model.tensors)
    factors = list[tuple[Floats, Floats]]()  # of this layer: inputs, and what is known of them

    def weight(name: str, inputs: Floats) -> Floats:
        tensor = model.tensors[name]
        if kinds[name] != "q4_0":
            return tensor.load()
        rows = inputs.reshape(-1, inputs.shape[-1])
        factor = next((known for given, known in factors if given is inputs), None)
        if factor is None:
            factor = _factor(rows)
            factors.append((inputs, factor))
        steps, scales = _round(tensor.load(), factor, (rows * rows).mean(0))
        values = _values(steps, scales)
        data = _packed(steps, scales)
        tensors[name] = Tensor(
            shape=tensor.shape, kind="q4_0", load=lambda: values_of(data), packed=lambda: data
        )
        return values

    for layer in layers(model, windows, weight):
        factors.clear()
        seen(layer.number + 1, model.layers)
    return Checkpoint(architecture=model.architecture, fields=model.fields, tensors=tensors)


def _factor(rows: Floats) -> Floats:
    """The upper Cholesky factor of the inverse of the inputs' second moments."""
    square = (rows.T @ rows).astype(np.float64) / len(rows)
    square[np.diag_indices_from(square)] += _DAMP * np.trace(square) / len(square)
    lower = np.linalg.cholesky(np.linalg.inv(square))
    return np.asarray(lower.T, np.float32)


def _round(weights: Floats, factor: Floats, size: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """Steps of 0 to 15 for each number, and the scale of each block."""
    left, columns = weights.copy(), weights.shape[1]
    steps = np.empty(weights.shape, np.uint8)
    scales = np.empty((len(weights), columns // BLOCK), np.float32)
    for start in range(0, columns, BLOCK):
        here, rest = slice(start, start + BLOCK), slice(start + BLOCK, None)
        block, corner = left[:, here], factor[here, here]
        scale = _scale(block, size[here])
        scales[:, start // BLOCK] = scale
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)
        wrong = np.empty_like(block)
        for n in range(BLOCK):
            step = np.clip(np.rint(block[:, n] * inverse) + 8, 0, 15)
            steps[:, start + n] = step
            wrong[:, n] = (block[:, n] - (step - 8) * scale) / corner[n, n]
            block[:, n + 1 :] -= np.outer(wrong[:, n], corner[n, n + 1 :])
        left[:, rest] -= wrong @ factor[here, rest]
    return steps, scales


def _scale(block: Floats, size: Floats) -> Floats:
    """For each row the scale, as float16 holds it, that rounds the block at the least cost."""
    top = np.take_along_axis(block, np.abs(block).argmax(1)[:, None], 1)[:, 0] / -8
    best, least = top, np.full(len(block), np.inf, np.float32)
    for share in _SCALES:
        scale = (top * share).astype(np.float16).astype(np.float32)
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale != 0)[:, None]
        steps = np.clip(np.rint(block * inverse) + 8, 0, 15) - 8
        cost = ((block - steps * scale[:, None]) ** 2 * size).sum(1)
        best, least = np.where(cost < least, scale, best), np.minimum(cost, least)
    return np.asarray(best, np.float32)


def _values(steps: NDArray[np.uint8], scales: Floats) -> Floats:
    whole = steps.astype(np.float32) - 8
    return np.asarray(whole * np.repeat(scales, BLOCK, axis=1), np.float32)


def _packed(steps: NDArray[np.uint8], scales: Floats) -> NDArray[np.uint8]:
    """ggml's block_q4_0: a float16, then 16 bytes of two numbers each, n and n + 16."""
    blocks = steps.reshape(len(steps), -1, BLOCK)
    pairs = blocks[..., :16] | (blocks[..., 16:] << 4)
    heads = scales.astype(np.float16)[..., None].view(np.uint8)
    return np.concatenate([heads, pairs], -1).reshape(len(steps), -1)


def values_of(data: NDArray[np.uint8]) -> Floats:
    from gguf import GGMLQuantizationType, dequantize

    return np.asarray(dequantize(data, GGMLQuantizationType.Q4_0), np.float32)
