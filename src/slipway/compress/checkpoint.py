"""A model's weights and what its file says about them, in the words of GGUF.

Tensors are read when they are asked for, so that a file larger than the memory can be rewritten.
Shapes are numpy's: (rows, columns), and a row is what one output number is made from.
"""

import mmap
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from slipway.compress.architectures import ARCHITECTURES, Architecture
from slipway.compress.refusals import refused
from slipway.types import Record

Floats = NDArray[np.float32]

_MAGIC = b"GGUF"
_OWN = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture")
_FILE_TYPES = {
    "f16": 1,
    "q4_0": 2,
    "q4_0_m": 2,
    "q8_0": 7,
    "q4_k_m": 15,
}  # llama.cpp's `general.file_type`


class Field(Record, frozen=True, kw_only=True):
    """A value of the file's head with GGUF's number for its type, and for its items' type."""

    value: Any
    kind: int
    items: int | None = None


class Tensor(Record, frozen=True, kw_only=True):
    """One tensor: `load()` reads it as float32, whatever it is stored as (`kind`, as ggml says)."""

    shape: tuple[int, ...]
    kind: str
    load: Callable[[], Floats]
    packed: Callable[[], NDArray[np.uint8]] | None = None  # the bytes of `kind`, if they are fixed

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))


class Checkpoint(Record, frozen=True, kw_only=True):
    architecture: Architecture
    fields: Mapping[str, Field]
    tensors: Mapping[str, Tensor]

    @property
    def parameters(self) -> int:
        return sum(tensor.size for tensor in self.tensors.values())

    @property
    def layers(self) -> int:
        return int(self.number("block_count"))

    @property
    def vocabulary(self) -> list[str]:
        return list(self.fields["tokenizer.ggml.tokens"].value)

    @property
    def licence(self) -> str:
        found = self.fields.get("general.license")
        return str(found.value) if found else "not stated in the file"

    @property
    def name(self) -> str:
        found = self.fields.get("general.name")
        return str(found.value) if found else self.architecture.name

    def number(self, key: str, default: float | None = None) -> float:
        """A number that the file states under its architecture's name."""
        found = self.fields.get(f"{self.architecture.name}.{key}")
        if found is None and default is None:
            full = f"{self.architecture.name}.{key}"
            raise refused(f"MODEL: the file does not state `{full}`; it cannot be read")
        value = found.value if found is not None else default
        try:
            return float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError):
            full = f"{self.architecture.name}.{key}"
            raise refused(
                f"MODEL: `{full}` is not a number ({value!r}); it cannot be read"
            ) from None

    def with_numbers(self, **numbers: int) -> "dict[str, Field]":
        """The fields with other numbers under the architecture's name."""
        named = {f"{self.architecture.name}.{key}": value for key, value in numbers.items()}
        return {
            name: msgspec.structs.replace(field, value=named.get(name, field.value))
            for name, field in self.fields.items()
        }


def read_gguf(path: Path) -> Checkpoint:
    """Open a GGUF file. Raises SettingsError for what is none, or of an unknown architecture."""
    from gguf import GGUFReader, dequantize  # heavy; only compress needs it

    check_magic(path)
    try:
        reader = GGUFReader(path)
        fields = {
            str(name): Field(
                value=field.contents(),
                kind=int(field.types[0]),
                items=int(field.types[-1]) if len(field.types) > 1 else None,
            )
            for name, field in reader.fields.items()
        }
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        what = f"MODEL: {path} begins like a GGUF file, but cannot be read ({error})"
        raise refused(f"{what}; fetch it again") from None

    def tensor(each: Any) -> Tensor:
        def load() -> Floats:
            values = np.asarray(dequantize(each.data, each.tensor_type), np.float32)
            _give_back(reader.data)
            return values

        kind = each.tensor_type.name.lower()
        return Tensor(shape=tuple(int(n) for n in reversed(each.shape)), kind=kind, load=load)

    if "general.architecture" not in fields:
        raise refused(f"MODEL: {path} does not state `general.architecture`; fetch it again")
    if "tokenizer.ggml.model" not in fields:
        raise refused(
            f"MODEL: {path} has no tokenizer, so that no text can be read; give the model's own file"
        )
    architecture = known_architecture(str(fields["general.architecture"].value))
    tensors = {each.name: tensor(each) for each in reader.tensors}
    return checked(Checkpoint(architecture=architecture, fields=fields, tensors=tensors))


def _give_back(mapped: Any) -> None:
    """Give back the memory of a mapped file; what is looked at again is read again."""
    pages = getattr(mapped, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def check_magic(path: Path) -> None:
    try:
        with path.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise refused(f"MODEL: {path} cannot be read: {error.strerror}") from None
    if magic != _MAGIC:
        raise refused(f"MODEL: {path} is not a GGUF file; {WHAT_A_MODEL_IS}")


WHAT_A_MODEL_IS = (
    "give a GGUF file, a folder in Hugging Face's layout (config.json, *.safetensors, tokenizer.json), "
    "or a name that `slipway weights list` shows"
)


def known_architecture(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise refused(f"MODEL: its architecture `{name}` is not known here; known are {known}")
    return ARCHITECTURES[name]


def checked(model: Checkpoint) -> Checkpoint:
    """Raise SettingsError if a tensor that its architecture needs is missing, or has another
    shape than the model's numbers say.
    """
    wanted = ["token_embd.weight", "output_norm.weight"]
    for layer in range(model.layers):
        wanted += [f"blk.{layer}.{name}" for name in model.architecture.tensors]
    missing = [name for name in wanted if name not in model.tensors]
    if missing:
        raise refused(f"MODEL: the tensor `{missing[0]}` is missing; the file is not whole")
    for layer in range(model.layers):
        for name, shape in _shapes(model).items():
            full = f"blk.{layer}.{name}"
            if model.tensors[full].shape != shape:
                what = f"MODEL: the tensor `{full}` is {_by(model.tensors[full].shape)}"
                raise refused(
                    f"{what}, but by the model's own numbers it is {_by(shape)}; take all "
                    "files from one model"
                )
    return model


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _shapes(model: Checkpoint) -> dict[str, tuple[int, ...]]:
    """The shapes of a layer's matrices."""
    width, inner = int(model.number("embedding_length")), int(model.number("feed_forward_length"))
    heads = int(model.number("attention.head_count"))
    kv_heads = int(model.number("attention.head_count_kv", heads))
    if heads < 1 or kv_heads < 1 or heads % kv_heads:
        raise refused(
            f"MODEL: it states {heads} heads and {kv_heads} of keys and values; the first must be "
            "a multiple of the second"
        )
    keys = int(model.number("attention.key_length", width // heads))
    values = int(model.number("attention.value_length", keys))
    return {
        "attn_q.weight": (heads * keys, width),
        "attn_k.weight": (kv_heads * keys, width),
        "attn_v.weight": (kv_heads * values, width),
        "attn_output.weight": (width, heads * values),
        "ffn_gate.weight": (inner, width),
        "ffn_up.weight": (inner, width),
        "ffn_down.weight": (width, inner),
    }


_ALIKE = 0.08  # root mean square of the difference by that of the numbers; q4_0 alone has 0.09
_ROWS = 64


def stores_twice(model: Checkpoint) -> bool:
    """Whether the vocabulary's vectors are there twice, rounded differently: as what goes in, and
    as what makes the logits. Models that share them are often published so once they are quantised.
    """
    if "output.weight" not in model.tensors:
        return False
    a, b = (model.tensors[f"{name}.weight"].load() for name in ("token_embd", "output"))
    step = max(1, len(a) // _ROWS)
    a, b = a[::step], b[::step]
    size = float((b * b).mean())
    return a.shape == b.shape and float(((a - b) ** 2).mean()) < size * _ALIKE**2


def stored_once(model: Checkpoint) -> Checkpoint:
    """The model with the finer of the two, which then serves for both."""
    tensors = dict(model.tensors)
    out = tensors.pop("output.weight")
    if tensor_bytes(out.kind, out.shape) >= tensor_bytes(
        tensors["token_embd.weight"].kind, out.shape
    ):
        tensors["token_embd.weight"] = out
    return msgspec.structs.replace(model, tensors=tensors)


# Writing

Packed = tuple[str, tuple[int, ...], str, Callable[[], NDArray[Any]]]  # name, shape, kind, bytes


def write_gguf(
    path: Path,
    architecture: str,
    fields: Mapping[str, Field],
    tensors: Iterable[Packed],
    *,
    form: str = "f16",
    seen: Callable[[int], None] = lambda done: None,
) -> Path:
    """Write a whole GGUF file or nothing; one tensor is in memory at a time.

    `seen(n)` is called with the number of tensors written so far.
    """
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    tensors = list(tensors)
    half = path.with_name(f".{path.name}.part")
    writer = GGUFWriter(half, architecture)
    for name, field in fields.items():
        if name not in _OWN:
            items = None if field.items is None else GGUFValueType(field.items)
            value = _FILE_TYPES[form] if name == "general.file_type" else field.value
            writer.add_key_value(name, value, GGUFValueType(field.kind), items)
    for name, shape, kind, _ in tensors:
        packed = GGMLQuantizationType[kind.upper()]
        dtype = np.dtype({"f32": np.float32, "f16": np.float16}.get(kind, np.uint8))
        stored = shape if kind in ("f32", "f16") else (*shape[:-1], row_bytes(kind, shape[-1]))
        writer.add_tensor_info(name, stored, dtype, tensor_bytes(kind, shape), packed)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, (_, _, _, make) in enumerate(tensors, 1):
            writer.write_tensor_data(np.ascontiguousarray(make()))
            seen(done)
        _flush(writer)
    except BaseException:
        half.unlink(missing_ok=True)
        raise
    finally:
        writer.close()
    half.replace(path)
    return path


def _flush(writer: Any) -> None:
    for file in writer.fout or ():
        file.flush()
        os.fsync(file.fileno())


def row_bytes(kind: str, columns: int) -> int:
    """Bytes of a row of so many numbers. Raises ValueError if blocks do not fill it exactly."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind.upper()]]
    if columns % block:
        raise ValueError(f"{columns} is no multiple of {block}, the block of {kind}")
    return columns // block * size


def tensor_bytes(kind: str, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape[:-1], dtype=np.int64)) * row_bytes(kind, shape[-1])
