"""llama.cpp as it is in the wheel of xllamacpp, called through its C interface.

Measuring needs every logit of a text, and the wheel's Python does not hand them out. The structures
that llama.cpp passes by value grow at their ends and middles between versions, so no layout is
written down here: they are taken as opaque bytes, larger than any of them is, and only the first
two fields of the context's (`n_ctx`, `n_batch`, in place since 2023) are set. All else has setters.
A wrong guess would crash, so this runs in a child process (`runner.py`) and nowhere else.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from slipway.compress.checkpoint import Floats

_UBATCH = 512


class _Opaque(ctypes.Structure):
    _fields_ = [("data", ctypes.c_uint8 * 1024)]


class _LlamaBatch(ctypes.Structure):
    """llama_batch: tokens, with null pointers for what llama.cpp fills in by itself."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.c_void_p),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.c_void_p),
    ]


_LOG = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


_quiet = _LOG(lambda level, text, data: None)  # drops what llama.cpp would print


def _functions(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    for name, returns, takes in (
        ("llama_model_default_params", _Opaque, []),
        ("llama_context_default_params", _Opaque, []),
        ("llama_model_load_from_file", pointer, [ctypes.c_char_p, _Opaque]),
        ("llama_init_from_model", pointer, [pointer, _Opaque]),
        ("llama_set_n_threads", None, [pointer, number, number]),
        ("llama_model_get_vocab", pointer, [pointer]),
        ("llama_vocab_n_tokens", number, [pointer]),
        ("llama_vocab_is_eog", ctypes.c_bool, [pointer, number]),
        ("llama_get_memory", pointer, [pointer]),
        ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
        ("llama_decode", number, [pointer, _LlamaBatch]),
        ("llama_get_logits", pointer, [pointer]),
        ("llama_tokenize", number,
         [pointer, ctypes.c_char_p, number, pointer, number, ctypes.c_bool, ctypes.c_bool]),
        ("llama_token_to_piece", number,
         [pointer, number, ctypes.c_char_p, number, number, ctypes.c_bool]),
    ):  # fmt: skip
        function = getattr(library, name)
        function.restype, function.argtypes = returns, takes
    library.llama_backend_init()
    library.llama_log_set(_quiet, None)
    return library


class Llama:
    """A model in llama.cpp, with memory for one sequence of `context` tokens."""

    def __init__(self, library: Path, path: Path, context: int, threads: int) -> None:
        self._c = _functions(library)
        self._model = self._c.llama_model_load_from_file(
            str(path).encode(), self._c.llama_model_default_params()
        )
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {path}")
        params = self._c.llama_context_default_params()
        ctypes.memmove(ctypes.byref(params), (ctypes.c_uint32 * 2)(context, context), 8)
        self._context = self._c.llama_init_from_model(self._model, params)
        if not self._context:
            raise ValueError(f"llama.cpp has no memory for {context} tokens of {path}")
        self._c.llama_set_n_threads(self._context, threads, threads)
        self._vocab = self._c.llama_model_get_vocab(self._model)
        self.vocabulary = int(self._c.llama_vocab_n_tokens(self._vocab))

    def clear(self) -> None:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), True)

    def decode(self, tokens: Sequence[int], *, every: bool = False) -> Floats:
        """Read these tokens after those before; the logits of the last, or of each (a copy)."""
        count = len(tokens)
        given = (ctypes.c_int32 * count)(*tokens)
        wanted = (ctypes.c_int8 * count)(*([1] * count if every else [0] * (count - 1) + [1]))
        batch = _LlamaBatch(
            n_tokens=count,
            token=ctypes.cast(given, ctypes.c_void_p),
            logits=ctypes.cast(wanted, ctypes.c_void_p),
        )
        if code := self._c.llama_decode(self._context, batch):
            raise ValueError(f"llama.cpp could not read {count} tokens (code {code})")
        rows = count if every else 1
        at = ctypes.cast(self._c.llama_get_logits(self._context), ctypes.POINTER(ctypes.c_float))
        found = np.ctypeslib.as_array(at, (rows, self.vocabulary))
        return cast(Floats, found.copy())

    def tokens(self, text: str, *, special: bool = False) -> list[int]:
        """The text as tokens; `special` reads words such as <|im_start|> as what they mean."""
        data = text.encode()
        capacity = len(data) + 8
        into = (ctypes.c_int32 * capacity)()
        count = self._c.llama_tokenize(
            self._vocab,
            data,
            len(data),
            ctypes.cast(into, ctypes.c_void_p),
            capacity,
            True,
            special,
        )
        if count < 0:
            raise ValueError("llama.cpp could not split the text into tokens")
        return list(into[:count])

    def text(self, tokens: Sequence[int]) -> str:
        found = b""
        for token in tokens:
            into = ctypes.create_string_buffer(256)
            length = self._c.llama_token_to_piece(self._vocab, token, into, 256, 0, False)
            found += into.raw[: max(0, length)]
        return found.decode(errors="replace")

    def ends(self, token: int) -> bool:
        return bool(self._c.llama_vocab_is_eog(self._vocab, token))
