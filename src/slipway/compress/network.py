"""A model in torch, as one function of its tensors; and weights rounded as a file would store them.

Only distillation needs it. Products are made in bfloat16 if the processor has them, sums in
float32.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional as fn

from slipway.compress.activations import Shape, angles, shape_of
from slipway.compress.checkpoint import Checkpoint

Torch = Any  # torch.Tensor; torch is an extra, and its types are not at hand where it is missing
_BLOCK = 32  # numbers that share a scale in q4_0


class Network:
    """How to run tensors as this model; the tensors come with each call."""

    def __init__(self, model: Checkpoint, length: int) -> None:
        self.kind = model.architecture
        self.shape: Shape = shape_of(model)
        self.turn = tuple(torch.from_numpy(each)[:, None, :] for each in angles(model, length))

    def __call__(self, weights: Mapping[str, Torch], tokens: Torch) -> Torch:
        """Logits (window, token, vocabulary) in float32."""
        return self.logits(weights, self.states(weights, tokens))

    def states(self, weights: Mapping[str, Torch], tokens: Torch) -> Torch:
        """What the last layer gives (window, token, width), in float32."""
        x = fn.embedding(tokens, weights["token_embd.weight"]).float()
        for number in range(self.shape.layers):
            layer = _Layer(weights, f"blk.{number}.")
            x = x + self._attention(self._norm(x, layer["attn_norm.weight"]), layer)
            h = self._norm(x, layer["ffn_norm.weight"])
            gate, up = (_times(h, layer[f"ffn_{name}.weight"]) for name in ("gate", "up"))
            x = x + _times(fn.silu(gate) * up, layer["ffn_down.weight"]).float()
        return x

    def logits(self, weights: Mapping[str, Torch], states: Torch) -> Torch:
        """The logits (window, token, vocabulary) of states, in float32."""
        out = weights.get("output.weight", weights["token_embd.weight"])
        return _times(self._norm(states, weights["output_norm.weight"]), out).float()

    def _norm(self, x: Torch, weight: Torch) -> Torch:
        return fn.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), self.shape.epsilon)

    def _attention(self, h: Torch, layer: "_Layer") -> Torch:
        q = self._turned(self._heads(h, layer, "attn_q", self.shape.heads))
        k = self._turned(self._heads(h, layer, "attn_k", self.shape.kv_heads))
        v = self._heads(h, layer, "attn_v", self.shape.kv_heads)
        q, k, v = (each.transpose(1, 2) for each in (q, k.to(v.dtype), v))
        k, v = (x.repeat_interleave(self.shape.heads // self.shape.kv_heads, 1) for x in (k, v))
        mixed = fn.scaled_dot_product_attention(q.to(v.dtype), k, v, is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(*h.shape[:2], -1)
        return _times(mixed, layer["attn_output.weight"]).float()

    def _heads(self, h: Torch, layer: "_Layer", name: str, count: int) -> Torch:
        x = _times(h, layer[f"{name}.weight"])
        if self.kind.biases:
            x = x + layer[f"{name}.bias"].to(x.dtype)
        x = x.view(*h.shape[:2], count, self.shape.head)
        is_normed = self.kind.head_norms and name != "attn_v"
        return self._norm(x, layer[f"{name}_norm.weight"]) if is_normed else x

    def _turned(self, x: Torch) -> Torch:
        cos, sin = (each[: x.shape[1]] for each in self.turn)
        half = x.shape[-1] // 2
        if self.shape.interleaved:
            a, b = x[..., 0::2], x[..., 1::2]
            return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        a, b = x[..., :half], x[..., half:]
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class _Layer:
    def __init__(self, weights: Mapping[str, Torch], prefix: str) -> None:
        self._weights, self._prefix = weights, prefix

    def __getitem__(self, name: str) -> Torch:
        return self._weights[self._prefix + name]


def _times(x: Torch, weight: Torch) -> Torch:
    return fn.linear(x.to(weight.dtype), weight)


def fast_type() -> Any:
    """bfloat16 if this processor multiplies in it, else float32."""
    has = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has else torch.float32


def weights_of(model: Checkpoint, kind: Any = None) -> dict[str, Torch]:
    """All tensors in torch, in this type (float32)."""
    kind = kind or torch.float32
    return {name: torch.tensor(each.load(), dtype=kind) for name, each in model.tensors.items()}


def as_q4_0(weight: Torch) -> Torch:
    """What ggml's q4_0 would give back for these numbers: 16 steps for each 32 of them."""
    blocks = weight.reshape(-1, _BLOCK)
    top = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    step = top / -8
    inverse = torch.where(step == 0, torch.zeros_like(step), 1 / step)
    whole = (blocks * inverse + 8.5).floor_().clamp_(0, 15).sub_(8)
    return (whole * step.half().float()).reshape(weight.shape)
