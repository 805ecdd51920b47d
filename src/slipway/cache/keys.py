"""Keys of kept answers: the same question has the same key in every process and after a restart."""

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

FORMAT = 1  # raise it when what is kept changes: older answers are then never found
_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


def digest(*parts: Any) -> str:
    """Return a key of values that JSON can write; the order of the fields of objects is ignored."""
    return hashlib.blake2b(_encode((FORMAT, *parts)), digest_size=16).hexdigest()


def parameters_of(body: bytes) -> dict[str, Any]:
    """Return the fields of a chat request that its answer depends on.

    `stream` and the name of the model are left out: streamed and whole answers serve each other,
    and the caller names the model by what it resolves to. 0 and 0.0 are the same value.
    """
    fields = _decode(body)
    for name in ("model", "stream", "stream_options"):
        fields.pop(name, None)
    return plain(fields)


def plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters without those that are null, and with whole numbers as integers."""
    return {
        name: int(value) if type(value) is float and value.is_integer() else value
        for name, value in parameters.items()
        if value is not None
    }
