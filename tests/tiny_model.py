"""Make a GGUF model of 100 KB that writes a few words at thousands of tokens a second."""

import random
import struct
from pathlib import Path
from typing import Any

WIDTH = 32  # of a token's vector, and of everything else
WORDS = ["tide", "ramp", "hull", "keel", "water", "slow", "the", "a", "is", "of", "[1]", "[2]"]
CONTROL = ["<unk>", "<s>", "</s>"]
NORMAL, UNKNOWN, CONTROLS, BYTE = 1, 2, 3, 6
NEVER = -40.0  # as a logit


def string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(thing: Any) -> bytes:
    """GGUF's type and value (ggml's docs/gguf.md): u32, f32, string, and arrays of i32, f32 and
    strings.
    """
    match thing:
        case int():
            return struct.pack("<II", 4, thing)
        case float():
            return struct.pack("<If", 6, thing)
        case str():
            return struct.pack("<I", 8) + string(thing)
    kind, form = {int: (5, "<i"), float: (6, "<f"), str: (8, "")}[type(thing[0])]
    items = b"".join(struct.pack(form, each) if form else string(each) for each in thing)
    return struct.pack("<IIQ", 9, kind, len(thing)) + items


def vectors(tokens: list[str], ends: bool) -> tuple[list[float], list[float]]:
    """Return the input and output vector of each token; the first number is the same for all
    inputs.
    """
    rng = random.Random(7)
    into, out = list[float](), list[float]()
    for token in tokens:
        may = token.removeprefix("▁") in WORDS or (ends and token == "</s>")
        into += [1.0, *(rng.uniform(-1, 1) for _ in range(WIDTH - 1))]
        out += [
            0.0 if may else NEVER,
            *(rng.uniform(-0.5, 0.5) if may else 0.0 for _ in range(WIDTH - 1)),
        ]
    return into, out


def write_tiny(path: Path, *, ends: bool = True, context: int = 200_000) -> Path:
    """Write a llama of one layer that does nothing: its output depends on the last token. Without
    `ends` it never stops by itself.
    """
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    words = [f"▁{word}" for word in WORDS]
    tokens = [*CONTROL, *bytes_, *words]
    into, out = vectors(tokens, ends)
    nothing, ones = [0.0] * WIDTH * WIDTH, [1.0] * WIDTH
    square = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    tensors = {
        "token_embd.weight": ((WIDTH, len(tokens)), into),
        "output.weight": ((WIDTH, len(tokens)), out),
        **{
            f"{name}.weight": ((WIDTH,), ones)
            for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
        },
        **{f"blk.0.{name}.weight": ((WIDTH, WIDTH), nothing) for name in square},
    }
    about = {
        "general.architecture": "llama",
        "llama.context_length": context,
        "llama.embedding_length": WIDTH,
        "llama.block_count": 1,
        "llama.feed_forward_length": WIDTH,
        "llama.attention.head_count": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * (len(tokens) - len(words)) + [-1.0] * len(words),
        "tokenizer.ggml.token_type": [
            UNKNOWN,
            CONTROLS,
            CONTROLS,
            *[BYTE] * 256,
            *[NORMAL] * len(words),
        ],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    head = (
        b"GGUF"
        + struct.pack("<IQQ", 3, len(tensors), len(about))
        + b"".join(string(k) + value(v) for k, v in about.items())
    )
    data = b""
    for name, (shape, numbers) in tensors.items():
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        data += struct.pack(f"<{len(numbers)}f", *numbers)
        data += b"\0" * (-len(data) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + data)
    return path
