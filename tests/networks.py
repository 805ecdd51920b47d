"""Make a small network with random weights: 4 layers, 320 tokens, under a megabyte."""

from pathlib import Path

import numpy as np

from slipway.compress.architectures import ARCHITECTURES
from slipway.compress.checkpoint import Checkpoint, Field, Tensor
from slipway.compress.quantising import write

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
WIDTH, INNER, HEADS, KV_HEADS, LAYERS = 64, 512, 4, 2, 4
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "th e", "i n", "a n", "Ġ t", "Ġ a"]


def alphabet() -> list[str]:
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [n for n in range(256) if n not in plain]
    letters = {n: chr(n) for n in plain} | {n: chr(256 + k) for k, n in enumerate(other)}
    return [letters[n] for n in range(256)]


def tokens() -> list[str]:
    return [*SPECIAL, *alphabet(), *(merge.replace(" ", "") for merge in MERGES)]


def network(
    kind: str = "llama", *, layers: int = LAYERS, seed: int = 0, vocabulary: list[str] | None = None
) -> Checkpoint:
    """Weights that do something: the answer depends on all that was read."""
    chance = np.random.default_rng(seed)
    words = vocabulary or tokens()
    head = WIDTH // HEADS
    shapes = {
        "attn_norm.weight": (WIDTH,),
        "attn_q.weight": (WIDTH, WIDTH),
        "attn_k.weight": (KV_HEADS * head, WIDTH),
        "attn_v.weight": (KV_HEADS * head, WIDTH),
        "attn_q.bias": (WIDTH,),
        "attn_k.bias": (KV_HEADS * head,),
        "attn_v.bias": (KV_HEADS * head,),
        "attn_q_norm.weight": (head,),
        "attn_k_norm.weight": (head,),
        "attn_output.weight": (WIDTH, WIDTH),
        "ffn_norm.weight": (WIDTH,),
        "ffn_gate.weight": (INNER, WIDTH),
        "ffn_up.weight": (INNER, WIDTH),
        "ffn_down.weight": (WIDTH, INNER),
    }
    architecture = ARCHITECTURES[kind]

    def tensor(shape: tuple[int, ...]) -> Tensor:
        scale = 1.0 if len(shape) == 1 else 0.6 / np.sqrt(shape[-1])
        drawn = chance.standard_normal(shape) * scale
        drawn = np.abs(drawn) + 0.5 if len(shape) == 1 else drawn
        values = drawn.astype(np.float16).astype(np.float32)
        return Tensor(shape=shape, kind="f32", load=values.copy)

    found = {"token_embd.weight": tensor((len(words), WIDTH))}
    for layer in range(layers):
        for name in architecture.tensors:
            found[f"blk.{layer}.{name}"] = tensor(shapes[name])
    found["output_norm.weight"] = tensor((WIDTH,))
    return Checkpoint(architecture=architecture, fields=head_of(kind, layers, words), tensors=found)


def head_of(kind: str, layers: int, words: list[str]) -> dict[str, Field]:
    numbers = {
        "block_count": layers,
        "context_length": 2048,
        "embedding_length": WIDTH,
        "feed_forward_length": INNER,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "attention.key_length": WIDTH // HEADS,
        "attention.value_length": WIDTH // HEADS,
        "rope.dimension_count": WIDTH // HEADS,
    }
    kinds = [3] * len(SPECIAL) + [1] * (len(words) - len(SPECIAL))
    return {
        "general.name": Field(value="Tiny", kind=STRING),
        "general.license": Field(value="apache-2.0", kind=STRING),
        "general.file_type": Field(value=1, kind=U32),
        **{f"{kind}.{k}": Field(value=v, kind=U32) for k, v in numbers.items()},
        f"{kind}.attention.layer_norm_rms_epsilon": Field(value=1e-5, kind=F32),
        f"{kind}.rope.freq_base": Field(value=10_000.0, kind=F32),
        "tokenizer.ggml.model": Field(value="gpt2", kind=STRING),
        "tokenizer.ggml.pre": Field(value="smollm", kind=STRING),
        "tokenizer.ggml.tokens": Field(value=words, kind=ARRAY, items=STRING),
        "tokenizer.ggml.token_type": Field(value=kinds, kind=ARRAY, items=I32),
        "tokenizer.ggml.merges": Field(value=MERGES, kind=ARRAY, items=STRING),
        "tokenizer.ggml.add_bos_token": Field(value=False, kind=BOOL),
        "tokenizer.ggml.bos_token_id": Field(value=1, kind=U32),
        "tokenizer.ggml.eos_token_id": Field(value=0, kind=U32),
    }


def write_network(path: Path, kind: str = "llama", *, form: str = "f16", seed: int = 0) -> Path:
    return write(network(kind, seed=seed), path, form)
