"""Fewer bits for a weight: which tensor gets which type, and the one function that packs rows.

Packing is ggml's own code (`ggml_quantize_chunk`), which the wheel of xllamacpp carries and
exports. It is checked once in each process against gguf's decoder. If it is missing or wrong,
gguf's Python packs what it can (`q4_0`, `q5_0`, `q5_1`, `q8_0`) and other types are refused with a
sentence.
"""

import ctypes
import importlib.util
import logging
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipway.compress.checkpoint import (
    Checkpoint,
    Field,
    Floats,
    Packed,
    Tensor,
    tensor_bytes,
    write_gguf,
)
from slipway.compress.refusals import refused
from slipway.errors import SlipwayError

FORMS = ("f16", "q8_0", "q4_k_m", "q4_0_m", "q4_0")
ROUNDED = ("q4_0", "q4_0_m")  # forms that are rounded by their effect, if there is text
TOOL = "llama-quantize"

_IN_PYTHON = ("q4_0", "q5_0", "q5_1", "q8_0")
_BLOCK_256 = {
    "q4_k": "q5_0",
    "q5_k": "q5_1",
    "q6_k": "q8_0",
}  # llama.cpp's stand-ins for other rows
_ERROR = {"q4_0": 0.13, "q5_0": 0.07, "q5_1": 0.07, "q8_0": 0.01, "q4_k": 0.13, "q6_k": 0.04}

log = logging.getLogger("slipway")


# Which tensor gets which type


def types_of(model: Checkpoint, form: str) -> dict[str, str]:
    """The type of each tensor in a file of this form; the rules are those of `llama-quantize`."""
    return {name: _type_of(name, each, model, form) for name, each in model.tensors.items()}


def _type_of(name: str, tensor: Tensor, model: Checkpoint, form: str) -> str:
    if len(tensor.shape) < 2 or "_norm" in name:
        return "f32"
    if form == "f16":
        return "f16"
    return _fitting(_wanted(name, model, form), tensor.shape[-1])


def _wanted(name: str, model: Checkpoint, form: str) -> str:
    is_tied = "output.weight" not in model.tensors
    if form == "q8_0":
        return "q8_0"
    if name == "output.weight" or (is_tied and name == "token_embd.weight"):
        return "q6_k"  # it makes every logit: errors there cost most
    if form in ROUNDED:
        return "q8_0" if form == "q4_0_m" and _is_touchy(name, model.layers) else "q4_0"
    found = re.match(r"blk\.(\d+)\.(attn_v|ffn_down)\.", name)
    return "q6_k" if found and _more_bits(int(found[1]), model.layers) else "q4_k"


def _is_touchy(name: str, layers: int) -> bool:
    """Keys and values, and what the first and last layers add: few numbers that cost most in 4
    bits.
    """
    found = re.match(r"blk\.(\d+)\.(attn_k|attn_v|ffn_down)\.", name)
    if found is None:
        return False
    layer = int(found[1])
    return found[2] != "ffn_down" or 8 * min(layer, layers - 1 - layer) < layers


def _more_bits(layer: int, layers: int) -> bool:
    """The first and last eighth of the layers, and every third between (llama.cpp's Q4_K_M)."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fitting(kind: str, columns: int) -> str:
    if columns % 256 and kind in _BLOCK_256:
        kind = _BLOCK_256[kind]
    return kind if columns % 32 == 0 else "f16"


def size_of(model: Checkpoint, form: str) -> int:
    """Bytes of all tensors in a file of this form, without its head."""
    kinds = types_of(model, form)
    return sum(tensor_bytes(kinds[name], each.shape) for name, each in model.tensors.items())


def head_of(path: Path, model: Checkpoint) -> int:
    """Bytes of a file that are not tensors: the vocabulary, above all."""
    return path.stat().st_size - sum(
        tensor_bytes(each.kind, each.shape) for each in model.tensors.values()
    )


# Writing a file


def write(
    model: Checkpoint,
    path: Path,
    form: str,
    seen: Callable[[int, int], None] = lambda done, total: None,
    fields: Mapping[str, Field] | None = None,
) -> Path:
    """Write the model in this form. `seen(done, total)` counts tensors."""
    kinds = types_of(model, form)

    def packed(name: str) -> Packed:
        tensor, kind = model.tensors[name], kinds[name]
        if tensor.packed is not None and tensor.kind == kind:
            return name, tensor.shape, kind, tensor.packed
        return name, tensor.shape, kind, lambda: pack(tensor.load(), kind)

    return write_gguf(
        path,
        model.architecture.name,
        fields if fields is not None else model.fields,
        [packed(name) for name in model.tensors],
        form=form,
        seen=lambda done: seen(done, len(model.tensors)),
    )


def write_with_tool(source: Path, path: Path, form: str) -> Path | None:
    """Let `llama-quantize` do it if it is on PATH; None if it is not there."""
    tool = shutil.which(TOOL)
    if tool is None or form == "q4_0_m":  # a form of our own
        return None
    half = path.with_name(f".{path.name}.part")
    made = subprocess.run(  # noqa: S603 - the operator's own tool, our own file names
        [tool, str(source), str(half), form.upper()], capture_output=True, text=True, check=False
    )
    if made.returncode:
        half.unlink(missing_ok=True)
        last = (made.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SlipwayError(
            f"{tool} failed: {last}", "Take it off PATH; Slipway then uses its own quantiser."
        )
    half.replace(path)
    return path


# Packing rows


def pack(rows: Floats, kind: str) -> NDArray[Any]:
    """The rows as ggml stores them: float16 or float32 as such, other types as bytes.

    Raises SlipwayError if nothing here can pack this type.
    """
    if kind in ("f32", "f16"):
        return rows.astype(np.float32 if kind == "f32" else np.float16)
    chunk = _native()
    if chunk is not None:
        return chunk(rows, kind)
    if kind in _IN_PYTHON:
        return _in_python(rows, kind)
    raise SlipwayError(
        f"Nothing here can quantise to {kind}: this xllamacpp does not export ggml's quantiser.",
        f"Put `{TOOL}` of llama.cpp on PATH, or choose --quant q8_0 or q4_0.",
    )


def _in_python(rows: Floats, kind: str) -> NDArray[Any]:
    from gguf import GGMLQuantizationType, quantize

    return np.asarray(quantize(rows, GGMLQuantizationType[kind.upper()]))


Chunk = Callable[[Floats, str], NDArray[Any]]


@cache
def _native() -> Chunk | None:
    """ggml's packing, if it is there and its results decode to what went in."""
    path = library_path()
    if path is None:
        return None
    try:
        chunk = _bound(ctypes.CDLL(str(path)))
    except (OSError, AttributeError) as error:
        log.warning("ggml's quantiser cannot be used (%s); gguf's Python is used instead", error)
        return None
    wrong = [kind for kind in _ERROR if not is_right(chunk, kind)]
    if wrong:
        log.warning("ggml's quantiser is wrong for %s; gguf's Python is used instead", wrong)
        return None
    return chunk


def library_path() -> Path | None:
    """The shared library in the wheel of xllamacpp."""
    found = importlib.util.find_spec("xllamacpp")
    folders = found.submodule_search_locations if found else None
    return next((file for each in folders or () for file in Path(each).glob("xllamacpp*.so")), None)


def _bound(library: ctypes.CDLL) -> Chunk:
    """size_t ggml_quantize_chunk(type, const float *, void *, start, rows, columns, imatrix)."""
    from gguf import GGMLQuantizationType

    call = library.ggml_quantize_chunk
    call.restype = ctypes.c_size_t
    call.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip

    def chunk(rows: Floats, kind: str) -> NDArray[Any]:
        rows = np.ascontiguousarray(rows, np.float32)
        count, columns = rows.shape
        out = np.empty((count, tensor_bytes(kind, (1, columns))), np.uint8)
        number = int(GGMLQuantizationType[kind.upper()])
        into, source = out.ctypes.data, rows.ctypes.data
        written = call(number, source, into, 0, count, columns, None)
        if written != out.nbytes:
            raise SlipwayError(f"ggml wrote {written} bytes of {kind}, not {out.nbytes}.")
        return out

    return chunk


def is_right(chunk: Chunk, kind: str) -> bool:
    """Whether packing and gguf's decoding give back the numbers, within the type's own error."""
    from gguf import GGMLQuantizationType, dequantize

    rows = np.random.default_rng(0).standard_normal((4, 512)).astype(np.float32)
    back = dequantize(chunk(rows, kind), GGMLQuantizationType[kind.upper()])
    return float(np.sqrt(np.mean((back - rows) ** 2))) < _ERROR[kind]


def check_form(form: str) -> str:
    if form not in FORMS:
        raise refused(f"--quant: `{form}` is not one; choose {', '.join(FORMS)}")
    return form
