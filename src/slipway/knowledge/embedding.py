"""Embed text with all-MiniLM-L6-v2 (Reimers & Gurevych 2019; mean of the last layer, normalised) in
int8, on onnxruntime.

Each text goes through the model alone. Batches are not faster on a CPU (measured in floats: 25 long
passages per second and core alone, 16 in batches of four), they cost memory, and the order of sums
would depend on the other texts. Alone, a vector depends on its text only.
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
LONGEST = 256  # tokens; the rest of the text is ignored
_QUERIES_KEPT = 1024
_QUERY_CHARACTERS = 4000  # far more than LONGEST tokens have
_UNKNOWN_SHARE = 0.4  # the share of unknown pieces that makes a text unreadable for the model
_UNKNOWN_PIECE = re.compile(
    r"\[UNK\]|##.|[\u2e80-\U0003ffff]"
)  # an unknown piece, a single letter of a word, a character of a script without spaces


def is_folder(named: str) -> bool:
    """Return whether the settings name a folder rather than weights."""
    return "/" in named or "\\" in named


def opened(named: str, *, threads: int = 1) -> "Embedder":
    """Open the embedder that the settings name: weights, or a folder with `model.onnx` and
    `tokenizer.json` of the same architecture.

    Raises WeightsError if the files are missing, SettingsError for an unknown name, ImportError
    without the extra `vectors`.
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
    """Embed texts. Loading takes 0.2 s and 60 MB; safe for any number of threads.

    Vectors of another `model` cannot be compared with these. `files` are the weights `minilm`, as
    `weights.found` returns them. `threads` is per text; one gives most texts per second if several
    callers embed, since Python's lock is released meanwhile. Raises ImportError without the extra
    `vectors`.
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
        self.model = (
            f"{model}/8" if integers else model
        )  # integer sums give other vectors, so another name
        self._session, self._tokenizer = (
            _session(integers or str(files[_MODEL]), threads),
            _tokenizer(files["tokenizer.json"]),
        )
        self.kept_query = lru_cache(_QUERIES_KEPT)(self._one)

    def embed(
        self, texts: Sequence[str], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> "Floats":
        """Return float32 [len(texts), 384] with rows of length 1. A row depends on its text only,
        to the bit. `progress(done, total)` counts texts.
        """
        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            vectors[row] = self._one(text)
            progress(row + 1, len(texts))
        return vectors

    def embed_query(self, text: str) -> "Floats":
        """Return float32 [384], read-only: the last 1024 are cached."""
        return self.kept_query(text[:_QUERY_CHARACTERS])

    def understands(self, text: str) -> bool:
        """Return whether the model knows the words of this text. A script that it was not trained
        on is split into unknown pieces and single characters, and its vector is meaningless.
        """
        pieces = self._tokenizer.encode(
            text[:_QUERY_CHARACTERS].encode("utf-8", "ignore").decode(), add_special_tokens=False
        ).tokens
        unknown = sum(bool(_UNKNOWN_PIECE.fullmatch(piece)) for piece in pieces)
        return bool(pieces) and unknown < _UNKNOWN_SHARE * len(pieces)

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
    """Open a model's bytes or file; a file may keep weights in further files beside it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = options.enable_mem_pattern = (
        False  # give the memory of a long text back
    )
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _tokenizer(file: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    return tokenizer
