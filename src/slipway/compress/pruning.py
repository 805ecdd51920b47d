"""Taking parts out of a model: whole layers, or a share of the inner width of each layer's network.

Layers go by block influence (ShortGPT, Men et al. 2024): a layer whose output points where its
input did changes little. Width goes by activation x weight (Wanda's score, Sun et al. 2023, summed
over a neuron's weights), and is kept a multiple of 256, since other rows do not fit into the K
types. Unstructured zeros are not offered as a saving: GGUF stores a zero in as many bits as any
number.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np

from slipway.compress.activations import Layer, layers
from slipway.compress.checkpoint import Checkpoint, Floats, Tensor
from slipway.compress.refusals import refused
from slipway.types import Record

_STEP = 256
_WRITTEN = re.compile(r"(depth|width):(\d+)")
_INNER = {"ffn_gate.weight": 0, "ffn_up.weight": 0, "ffn_down.weight": 1}  # axis of the inner width


class Cut(Record, frozen=True, kw_only=True):
    """`depth`: how many layers go. `width`: the inner width that stays."""

    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.number}"


class Scores(Record, frozen=True, kw_only=True):
    """How much each layer does (0 is nothing), and each neuron of each layer's inner width."""

    influence: tuple[float, ...]
    neurons: tuple[Floats, ...]


def cut_from(text: str, model: Checkpoint) -> Cut:
    """Read `depth:3` or `width:1280`. Raises SettingsError for what this model cannot lose."""
    if text.startswith(("wanda:", "sparse:", "unstructured:")):
        raise refused(
            f"--prune: `{text}` sets single weights to zero, which makes a GGUF file neither "
            "smaller nor faster; choose depth:N or width:N"
        )
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise refused(f"--prune: `{text}` is not one; write depth:3 or width:1280")
    cut = Cut(kind=found[1], number=int(found[2]))
    most, inner = model.layers - 2, int(model.number("feed_forward_length"))
    if cut.kind == "depth" and not 1 <= cut.number <= most:
        raise refused(
            f"--prune: depth:{cut.number} is not possible with {model.layers} layers; "
            f"take out 1 to {most}"
        )
    if cut.kind == "width" and (cut.number % _STEP or not _STEP <= cut.number < inner):
        near = max(_STEP, min(round(cut.number / _STEP), (inner - 1) // _STEP) * _STEP)
        raise refused(
            f"--prune: width:{cut.number} is not possible; the width is {inner} and stays a "
            f"multiple of {_STEP} below it, such as width:{near}"
        )
    return cut


def scores(
    model: Checkpoint, windows: Sequence[Sequence[int]], seen: Callable[[int, int], None]
) -> Scores:
    """Run the windows through the model. `seen(done, total)` counts layers."""
    influence, neurons = list[float](), list[Floats]()
    for layer in layers(model, windows):
        influence.append(_influence(layer))
        down = model.tensors[f"blk.{layer.number}.ffn_down.weight"].load()
        size = np.sqrt((layer.gated**2).mean((0, 1)))
        neurons.append(size * np.abs(down).sum(0))
        seen(layer.number + 1, model.layers)
    return Scores(influence=tuple(influence), neurons=tuple(neurons))


def _influence(layer: Layer) -> float:
    a, b = layer.into, layer.out
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(1 - ((a * b).sum(-1) / np.maximum(norms, 1e-12)).mean())


def pruned(model: Checkpoint, cut: Cut, found: Scores) -> Checkpoint:
    """The model without what matters least; its tensors are still read when they are asked for."""
    return _shallower(model, cut, found) if cut.kind == "depth" else _narrower(model, cut, found)


def dropped(cut: Cut, found: Scores) -> list[int]:
    """The layers that go, least influence first. The first and last stay: they are of another kind."""
    inner = range(1, len(found.influence) - 1)
    return sorted(inner, key=lambda layer: found.influence[layer])[: cut.number]


def _shallower(model: Checkpoint, cut: Cut, found: Scores) -> Checkpoint:
    gone = set(dropped(cut, found))
    numbers = {old: new for new, old in enumerate(n for n in range(model.layers) if n not in gone)}
    tensors = dict[str, Tensor]()
    for name, tensor in model.tensors.items():
        at = re.match(r"blk\.(\d+)\.(.*)", name)
        if at is None:
            tensors[name] = tensor
        elif int(at[1]) in numbers:
            tensors[f"blk.{numbers[int(at[1])]}.{at[2]}"] = tensor
    fields = model.with_numbers(block_count=len(numbers))
    return Checkpoint(architecture=model.architecture, fields=fields, tensors=tensors)


def _narrower(model: Checkpoint, cut: Cut, found: Scores) -> Checkpoint:
    kept = [np.sort(np.argsort(-each)[: cut.number]) for each in found.neurons]

    def narrow(tensor: Tensor, axis: int, which: Sequence[int]) -> Tensor:
        size = tuple(cut.number if n == axis else each for n, each in enumerate(tensor.shape))
        load = tensor.load
        return msgspec.structs.replace(
            tensor, shape=size, kind="f32", load=lambda: np.take(load(), which, axis)
        )

    def changed(items: Mapping[str, Tensor]) -> dict[str, Tensor]:
        out = dict[str, Tensor]()
        for name, tensor in items.items():
            at = re.match(r"blk\.(\d+)\.(.*)", name)
            inner = _INNER.get(at[2]) if at else None
            is_cut = at is not None and inner is not None
            out[name] = narrow(tensor, inner or 0, kept[int(at[1])]) if is_cut and at else tensor  # type: ignore[arg-type]
        return out

    fields = model.with_numbers(feed_forward_length=cut.number)
    return Checkpoint(
        architecture=model.architecture, fields=fields, tensors=changed(model.tensors)
    )
