"""Text to vectors: all-MiniLM-L6-v2 (Reimers & Gurevych 2019; mean of the last layer, normalised)
in int8, on onnxruntime.

Each text goes through the model by itself. Batches would not be faster on a CPU (measured in
floats: 25 long passages a second and core alone, 16 in fours), they cost memory, and the order of
sums would depend on the neighbours. Alone a vector depends on nothing but the text.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from slipway import weights
from slipway.errors import WeightsError
from slipway.knowledge.int8 import exact_if_signed, in_integers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    Floats = NDArray[np.float32]

_MODEL = "model.onnx"
EMBEDDERS = tuple(
    name
    for name, each in weights.WEIGHTS.items()
    if any(file.name == _MODEL for file in each.files)
)
LONGEST = 256  # tokens; what lies behind them is not seen
_QUERIES_KEPT = 2048
_QUERY_CHARACTERS = 8000
_STRANGE = 0.4  # of the pieces
_SIGN = re.compile(
    r"\[UNK\]|##.|[\u2e80-\U0003ffff]"
)  # an unknown piece, a letter torn out of a word, a sign of a script without spaces


def is_folder(named: str) -> bool:
    """Whether the settings name a folder, and not weights."""
    return "/" in named or "\\" in named


def opened(named: str, *, threads: int = 1) -> "Embedder":
    """The embedder of the settings: weights by their name, or a folder with `model.onnx` and
    `tokenizer.json` of the same architecture.

    Raises WeightsError where they are not here, SettingsError for a name that is not known,
    ImportError without the extra `vectors`.
    """
    if not is_folder(named):
        files = weights.found(named)
        if files is None:
            raise WeightsError(
                f"the weights {named} are not here.", f"Fetch them: slipway weights pull {named}"
            )
        return Embedder(files, threads=threads)
    files = {name: Path(named).expanduser() / name for name in (_MODEL, "tokenizer.json")}
    if missing := [str(path) for path in files.values() if not path.is_file()]:
        raise WeightsError(f"{missing[0]} is missing.", "Put it there, or set `embedding: minilm`.")
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files.values())).hexdigest()
    return Embedder(files, threads=threads, model=f"{digest[:16]}/{LONGEST}")


class Embedder:
    """Ready when made (0.2 s, 60 MB); used by any number of threads. Vectors of another `model`
    cannot be compared with these.

    `files` are the weights `minilm`, as `weights.found` names them. `threads` work on one text; one
    gives most texts a second where several callers embed. Python's lock is free meanwhile. Raises
    ImportError where the extra `vectors` is not installed.
    """

    dimensions = 384

    def __init__(
        self,
        files: Mapping[str, Path],
        *,
        threads: int = 1,
        model: str = "all-MiniLM-L6-v2-int8/256",
    ) -> None:
        with files[_MODEL].open("rb") as file:
            integers = in_integers(
                memoryview(mmap(file.fileno(), 0, access=ACCESS_READ)), signed=_signed_is_exact()
            )
        self.model = f"{model}/8" if integers else model  # other sums, other vectors
        self._session, self._tokenizer = (
            _session(integers or str(files[_MODEL]), threads),
            _tokenizer(files["tokenizer.json"]),
        )
        self._query = lru_cache(_QUERIES_KEPT)(self._one)

    def embed(
        self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> "Floats":
        """float32 [len(texts), 384], each row of length 1. A text alone decides its row, to the
        bit. `progress(done, total)` counts texts.
        """
        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._one(text)
            progress(row + 1, len(texts))
        return vectors

    def embed_query(self, text: str) -> "Floats":
        """float32 [384]; not to be written to, since the last 2048 are kept."""
        return self._query(text[:_QUERY_CHARACTERS])

    def reads(self, text: str) -> bool:
        """Whether the model knows the words of this text: a script that it was not taught falls
        into unknown and single signs, and the vector of such a text says nothing.
        """
        pieces = self._tokenizer.encode(
            text[:_QUERY_CHARACTERS].encode("utf-8", "ignore").decode(), add_special_tokens=False
        ).tokens
        strange = sum(bool(_SIGN.fullmatch(piece)) for piece in pieces)
        return bool(pieces) and strange < _STRANGE * len(pieces)

    def _one(self, text: str) -> "Floats":
        import numpy as np

        ids = np.array(
            [self._tokenizer.encode(text.encode("utf-8", "ignore").decode()).ids], np.int64
        )
        inputs = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "token_type_ids": np.zeros_like(ids),
        }
        states: Floats = np.asarray(self._session.run(None, inputs)[0])
        mean = states[0].mean(axis=0)
        vector: Floats = mean / np.linalg.norm(mean)
        vector.flags.writeable = False
        return vector


@cache
def _signed_is_exact() -> bool:
    sums = _session(exact_if_signed(), 1).run(None, {})[0]
    return bool((sums == 64 * 255 * 127).all())


def _session(model: bytes | str, threads: int) -> "InferenceSession":
    """Of a model or a file; one may keep its weights in further files beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = (
        False  # the memory of a long text is given back
    )
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _tokenizer(file: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer
