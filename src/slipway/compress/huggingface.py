"""A folder in Hugging Face's layout: read as a checkpoint, and written from one.

`config.json`, `*.safetensors` and `tokenizer.json`; only tokenizers of byte-level BPE, which is
what the known families use. Tensors are read from the file when they are asked for. The format is a
head of JSON and the numbers; we read it here, since the library's numpy side has no bfloat16, in
which most models are published.
"""

import hashlib
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slipway.compress.architectures import ARCHITECTURES, NAMES, Architecture
from slipway.compress.checkpoint import WHAT_A_MODEL_IS, Checkpoint, Field, Floats, Tensor, checked
from slipway.compress.refusals import refused

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5  # GGUF's numbers for types
_NORMAL, _CONTROL, _USER = 1, 3, 4  # and for kinds of tokens
_STORED = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}

# GGUF names a tokenizer's splitting rule. llama.cpp knows it by what the tokenizer makes of a text;
# we know it by the rule's own words in tokenizer.json.
_QWEN2_RULE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_RULE = _QWEN2_RULE.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
_RULES = {_QWEN2_RULE: "qwen2", _LLAMA3_RULE: "llama-bpe"}
_PRE = {"qwen2": _QWEN2_RULE, "llama-bpe": _LLAMA3_RULE}
_COMPUTED = ("rotary_emb.inv_freq",)  # stored by old versions, and computed by all
_SMOLLM = "smollm"  # single digits, then GPT-2's rule


# Reading


def read_folder(folder: Path) -> Checkpoint:
    """Raises SettingsError for what is no model, or one that is not known here."""
    config = _json(folder / "config.json")
    architecture = _architecture(config)
    stored = _stored(folder)
    _refuse_scaled(config)
    heads = _number(config, "num_attention_heads")
    kv_heads = _number(config, "num_key_value_heads", heads)
    names = _names(architecture, _number(config, "num_hidden_layers"))
    _refuse_other_tensors(config, stored, set(names.values()), folder)
    tensors = dict[str, Tensor]()
    for name, theirs in names.items():
        if theirs in stored:
            count = heads if ".attn_q." in name else kv_heads if ".attn_k." in name else 0
            tensors[name] = _paired(stored[theirs], count if architecture.interleaved else 0)
    fields = {**_head(config, architecture, folder), **_tokenizer(folder, config)}
    return checked(Checkpoint(architecture=architecture, fields=fields, tensors=tensors))


def _refuse_scaled(config: Mapping[str, Any]) -> None:
    """Both names under which transformers keeps how positions are scaled."""
    for name in ("rope_scaling", "rope_parameters"):
        scaling = config.get(name) or {}
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            what = f"MODEL: its rotary positions are scaled by `{kind}` (`{name}` of config.json)"
            raise refused(f"{what}; convert it with llama.cpp and give the GGUF file")


def _refuse_other_tensors(
    config: Mapping[str, Any], stored: Mapping[str, Tensor], known: set[str], folder: Path
) -> None:
    """A tensor that is left out, or one that is not there, makes another model of it."""
    other = [name for name in stored if name not in known and not name.endswith(_COMPUTED)]
    if other:
        what = f"MODEL: {folder} has tensors that its architecture does not know, such as"
        raise refused(f"{what} `{other[0]}`; convert it with llama.cpp and give the GGUF file")
    head = NAMES["output.weight"]
    if config.get("tie_word_embeddings") is False and head not in stored:
        raise refused(
            f"MODEL: the tensor `{head}` is missing, and config.json says that the model has one "
            "(`tie_word_embeddings`); a file of the folder is missing"
        )


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or value < 1:
        raise refused(f"MODEL: `{key}` of config.json is not a number of 1 or more ({value!r})")
    return value


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        what = f"MODEL: {path.parent} has no {path.name}"
        raise refused(f"{what}; {WHAT_A_MODEL_IS}") from None
    except (ValueError, OSError) as error:
        raise refused(f"MODEL: {path} cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise refused(f"MODEL: {path} is not an object of JSON")
    return found


def _architecture(config: Mapping[str, Any]) -> Architecture:
    kind = str(config.get("model_type", "none"))
    found = next((each for each in ARCHITECTURES.values() if each.model_type == kind), None)
    if found is None:
        known = ", ".join(each.model_type for each in ARCHITECTURES.values())
        raise refused(f"MODEL: its architecture `{kind}` is not known here; known are {known}")
    return found


def _names(architecture: Architecture, layers: int) -> dict[str, str]:
    """GGUF's names of all tensors, with Hugging Face's."""
    found = {name: NAMES[name] for name in ("token_embd.weight", "output_norm.weight")}
    for layer in range(layers):
        for name in architecture.tensors:
            found[f"blk.{layer}.{name}"] = f"model.layers.{layer}.{NAMES[name]}"
    return {**found, "output.weight": NAMES["output.weight"]}


def _stored(folder: Path) -> dict[str, Tensor]:
    files = _files(folder)
    if not files:
        raise refused(f"MODEL: {folder} has no *.safetensors; {WHAT_A_MODEL_IS}")
    return {name: tensor for file in files for name, tensor in _tensors_of(file)}


def _files(folder: Path) -> list[Path]:
    """Those that transformers would read: of the index, or the one file. Others may be older."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if whole.is_file():
        return [whole]
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    named = _json(index).get("weight_map")
    if not isinstance(named, dict):
        raise refused(f"MODEL: {index} has no `weight_map`; fetch it again")
    files = [folder / Path(str(name)).name for name in sorted(set(map(str, named.values())))]
    if gone := [file.name for file in files if not file.is_file()]:
        raise refused(f"MODEL: {folder} lacks {', '.join(gone)}, which {index.name} names")
    return files


def _tensors_of(file: Path) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a file of safetensors; `load` maps its own part of it."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            head = json.loads(opened.read(min(length, file.stat().st_size)))
    except (OSError, struct.error, ValueError) as error:
        raise refused(f"MODEL: {file} is not a whole safetensors file ({error})") from None
    if not isinstance(head, dict):
        raise refused(f"MODEL: {file} is not a safetensors file: its head is no object of JSON")
    for name, about in head.items():
        if name == "__metadata__":
            continue
        if not isinstance(about, dict) or not {"dtype", "shape", "data_offsets"} <= set(about):
            raise refused(f"MODEL: {file} does not describe `{name}`; fetch it again")
        if about["dtype"] not in _STORED:
            known = ", ".join(_STORED)
            raise refused(
                f"MODEL: `{name}` of {file} is stored as {about['dtype']}; known are {known}. "
                "Give the model as it was before it was quantised"
            )
        shape, (start, end) = tuple(about["shape"]), about["data_offsets"]
        load = _loader(file, about["dtype"], 8 + length + start, end - start, shape)
        yield name, Tensor(shape=shape, kind=about["dtype"].lower(), load=load)


def _loader(
    file: Path, kind: str, start: int, size: int, shape: tuple[int, ...]
) -> Callable[[], Floats]:
    def load() -> Floats:
        plain = np.dtype(_STORED[kind])
        raw: NDArray[Any] = np.fromfile(file, plain, size // plain.itemsize, offset=start)
        if raw.size != math.prod(shape):
            raise refused(f"MODEL: {file} is not a whole safetensors file; fetch it again")
        if kind == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.reshape(shape).astype(np.float32)

    return load


def _paired(tensor: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys from halves to pairs, if this family's GGUF wants them so."""
    if not heads:
        return tensor
    load = tensor.load

    def paired() -> Floats:
        x = load()
        out = x.reshape(heads, 2, x.shape[0] // heads // 2, *x.shape[1:]).swapaxes(1, 2)
        return out.reshape(x.shape)

    return Tensor(shape=tensor.shape, kind=tensor.kind, load=paired)


def _halved(x: Floats, heads: int) -> Floats:
    """The inverse of `_paired`."""
    out = x.reshape(heads, x.shape[0] // heads // 2, 2, *x.shape[1:]).swapaxes(1, 2)
    return out.reshape(x.shape)


def _head(config: Mapping[str, Any], kind: Architecture, folder: Path) -> dict[str, Field]:
    heads = _number(config, "num_attention_heads")
    width = _number(config, "hidden_size")
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta")
    numbers = {
        "block_count": _number(config, "num_hidden_layers"),
        "context_length": int(config.get("max_position_embeddings", 2048)),
        "embedding_length": width,
        "feed_forward_length": _number(config, "intermediate_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": _number(config, "num_key_value_heads", heads),
        "attention.key_length": int(config.get("head_dim") or width // heads),
        "attention.value_length": int(config.get("head_dim") or width // heads),
        "rope.dimension_count": int(config.get("head_dim") or width // heads),
    }
    fields = {f"{kind.name}.{k}": Field(value=v, kind=U32) for k, v in numbers.items()}
    epsilon = float(config.get("rms_norm_eps", 1e-5))
    fields[f"{kind.name}.attention.layer_norm_rms_epsilon"] = Field(value=epsilon, kind=F32)
    fields[f"{kind.name}.rope.freq_base"] = Field(value=float(theta or 10_000.0), kind=F32)
    fields["general.name"] = Field(
        value=str(config.get("_name_or_path") or folder.name), kind=STRING
    )
    fields["general.file_type"] = Field(value=1, kind=U32)
    fields["general.quantization_version"] = Field(value=2, kind=U32)
    if licence := _licence(folder):
        fields["general.license"] = Field(value=licence, kind=STRING)
    return fields


def _licence(folder: Path) -> str:
    """What the model's card states in its head."""
    card = folder / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines()[:60] if card.is_file() else []
    return next((line[8:].strip() for line in lines if line.startswith("license:")), "")


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> dict[str, Field]:
    file = _json(folder / "tokenizer.json")
    model = file.get("model", {})
    if model.get("type") != "BPE" or model.get("byte_fallback") or "merges" not in model:
        what = "MODEL: its tokenizer is not byte-level BPE"
        raise refused(f"{what}; convert it with llama.cpp and give the GGUF file")
    tokens, kinds = _tokens(file, model, _number(config, "vocab_size"))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    about = _json(folder / "tokenizer_config.json") if _has(folder, "tokenizer_config.json") else {}
    fields = {
        "tokenizer.ggml.model": Field(value="gpt2", kind=STRING),
        "tokenizer.ggml.pre": Field(value=_rule_of(file), kind=STRING),
        "tokenizer.ggml.tokens": Field(value=tokens, kind=ARRAY, items=STRING),
        "tokenizer.ggml.token_type": Field(value=kinds, kind=ARRAY, items=I32),
        "tokenizer.ggml.merges": Field(value=merges, kind=ARRAY, items=STRING),
        "tokenizer.ggml.add_bos_token": Field(value=bool(about.get("add_bos_token")), kind=BOOL),
    }
    if template := about.get("chat_template"):
        fields["tokenizer.chat_template"] = Field(value=str(template), kind=STRING)
    elif _has(folder, "chat_template.jinja"):
        text = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        fields["tokenizer.chat_template"] = Field(value=text, kind=STRING)
    return {**fields, **_special(config, about, tokens)}


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _tokens(
    file: Mapping[str, Any], model: Mapping[str, Any], size: int
) -> tuple[list[str], list[int]]:
    numbers = {int(n): str(text) for text, n in model["vocab"].items()}
    kinds = dict.fromkeys(numbers, _NORMAL)
    for each in file.get("added_tokens", []):
        numbers[int(each["id"])] = each["content"]
        kinds[int(each["id"])] = _CONTROL if each.get("special") else _USER
    if max(numbers, default=0) >= size:
        raise refused(
            f"MODEL: tokenizer.json has the token {max(numbers)}, but the model's vocabulary "
            f"ends at {size - 1}: the vocabulary differs; take both files from one model"
        )
    unused = 5
    tokens = [numbers.get(n, f"[PAD{n}]") for n in range(size)]
    return tokens, [kinds.get(n, unused) for n in range(size)]


def _rule_of(file: Mapping[str, Any]) -> str:
    """GGUF's name of how the text is split before BPE."""
    given = file.get("pre_tokenizer") or {}
    parts = given.get("pretokenizers", [given])
    for part in parts:
        rule = part.get("pattern", {}).get("Regex")
        if part.get("type") == "Split" and rule in _RULES:
            return _RULES[rule]
        if part.get("type") == "Digits" and part.get("individual_digits"):
            return _SMOLLM
    if [part.get("type") for part in parts] == ["ByteLevel"]:
        return "gpt-2"
    what = "MODEL: how its tokenizer splits text is not known here"
    raise refused(f"{what}; convert it with llama.cpp and give the GGUF file")


def _special(
    config: Mapping[str, Any], about: Mapping[str, Any], tokens: list[str]
) -> dict[str, Field]:
    found = dict[str, Field]()
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        named = about.get(f"{theirs}_token")
        text = named.get("content") if isinstance(named, dict) else named
        number = tokens.index(text) if text in tokens else config.get(f"{theirs}_token_id")
        if isinstance(number, list):
            number = number[0]
        if number is not None:
            found[f"tokenizer.ggml.{ours}_token_id"] = Field(value=int(number), kind=U32)
    return found


# Writing


def write_folder(
    model: Checkpoint, folder: Path, seen: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Write config.json, model.safetensors (float16) and the tokenizer. Raises SettingsError if the
    tokenizer is of a kind that cannot be written."""
    tokenizer = _tokenizer_file(model)
    _refuse_unwritten(model)
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config(model))
    _write_json(folder / "tokenizer.json", tokenizer)
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(model))
    card = f"---\nlicense: {model.licence}\n---\n# {model.name}\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    _write_tensors(model, folder / "model.safetensors", seen)
    return folder


def _refuse_unwritten(model: Checkpoint) -> None:
    """What the folder would not say makes another model of it."""
    scaling = model.fields.get(f"{model.architecture.name}.rope.scaling.type")
    known = _names(model.architecture, model.layers)
    other = [name for name in model.tensors if name not in known]
    if scaling is not None and scaling.value not in ("none", ""):
        raise refused(
            f"MODEL: its rotary positions are scaled by `{scaling.value}`, which the folder could "
            "not say; the GGUF file itself can be quantised"
        )
    if other:
        raise refused(
            f"MODEL: its tensor `{other[0]}` has no place in the folder; the GGUF file itself can "
            "be quantised"
        )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False), encoding="utf-8")


def _config(model: Checkpoint) -> dict[str, Any]:
    kind, number = model.architecture, model.number
    heads = int(number("attention.head_count"))
    width = int(number("embedding_length"))
    special = {
        f"{theirs}_token_id": int(field.value)
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"))
        if (field := model.fields.get(f"tokenizer.ggml.{ours}_token_id"))
    }
    return {
        "architectures": [kind.class_name],
        "model_type": kind.model_type,
        "_name_or_path": model.name,
        "hidden_act": "silu",
        "hidden_size": width,
        "intermediate_size": int(number("feed_forward_length")),
        "num_hidden_layers": model.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": int(number("attention.head_count_kv", heads)),
        "head_dim": int(number("attention.key_length", width // heads)),
        "max_position_embeddings": int(number("context_length", 2048)),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon"),
        "rope_theta": number("rope.freq_base", 10_000.0),
        "vocab_size": len(model.vocabulary),
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "attention_bias": False,
        "torch_dtype": "float16",
        **special,
    }


def _tokenizer_file(model: Checkpoint) -> dict[str, Any]:
    kind = str(model.fields["tokenizer.ggml.model"].value)
    pre = str(model.fields["tokenizer.ggml.pre"].value) if kind == "gpt2" else kind
    if kind != "gpt2" or pre not in (*_PRE, _SMOLLM, "gpt-2"):
        what = f"MODEL: its tokenizer (`{pre}`) cannot be written in Hugging Face's layout"
        raise refused(f"{what}; the GGUF file itself can be quantised and pruned")
    tokens, kinds = model.vocabulary, list(model.fields["tokenizer.ggml.token_type"].value)
    added = [
        {"id": n, "content": text, "special": kinds[n] == _CONTROL, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
        for n, text in enumerate(tokens) if kinds[n] in (_CONTROL, _USER)
    ]  # fmt: skip
    merges = list(model.fields["tokenizer.ggml.merges"].value)
    vocabulary = {text: n for n, text in enumerate(tokens) if kinds[n] != 5}
    return {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": _splitting(pre),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges, "byte_fallback": False},
    }


def _splitting(pre: str) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    if pre in _PRE:
        rule = {
            "type": "Split",
            "pattern": {"Regex": _PRE[pre]},
            "behavior": "Isolated",
            "invert": False,
        }
        return {"type": "Sequence", "pretokenizers": [rule, {**level, "use_regex": False}]}
    if pre == _SMOLLM:
        digits = {"type": "Digits", "individual_digits": True}
        return {"type": "Sequence", "pretokenizers": [digits, {**level, "use_regex": True}]}
    return {**level, "use_regex": True}


def _tokenizer_config(model: Checkpoint) -> dict[str, Any]:
    tokens, found = model.vocabulary, dict[str, Any]()
    for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("padding", "pad"), ("unknown", "unk")):
        if field := model.fields.get(f"tokenizer.ggml.{ours}_token_id"):
            found[f"{theirs}_token"] = tokens[int(field.value)]
    if template := model.fields.get("tokenizer.chat_template"):
        found["chat_template"] = template.value
    add_bos = model.fields.get("tokenizer.ggml.add_bos_token")
    found["add_bos_token"] = bool(add_bos.value) if add_bos else False
    return {"tokenizer_class": "PreTrainedTokenizerFast", **found}


def _write_tensors(model: Checkpoint, path: Path, seen: Callable[[int, int], None]) -> None:
    names = {
        ours: theirs
        for ours, theirs in _names(model.architecture, model.layers).items()
        if ours in model.tensors
    }
    head, at = dict[str, Any](), 0
    for ours, theirs in names.items():
        tensor = model.tensors[ours]
        head[theirs] = {
            "dtype": "F16",
            "shape": list(tensor.shape),
            "data_offsets": [at, at + 2 * tensor.size],
        }
        at += 2 * tensor.size
    words = json.dumps({"__metadata__": {"format": "pt"}, **head}).encode()
    words += b" " * (-len(words) % 8)
    heads = int(model.number("attention.head_count"))
    kv_heads = int(model.number("attention.head_count_kv", heads))
    half = path.with_name(f".{path.name}.part")
    with half.open("wb") as out:
        out.write(struct.pack("<Q", len(words)) + words)
        for done, ours in enumerate(names, 1):
            values = model.tensors[ours].load()
            count = heads if ".attn_q." in ours else kv_heads if ".attn_k." in ours else 0
            if count and model.architecture.interleaved:
                values = _halved(values, count)
            out.write(np.ascontiguousarray(values, np.float16).tobytes())
            seen(done, len(names))
    half.replace(path)


def digest(path: Path) -> str:
    """The sha256 of a file, or of a folder's files and their names."""
    if path.is_file():
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    whole = hashlib.sha256()
    for file in sorted(f for f in path.iterdir() if f.is_file()):
        whole.update(f"{file.name} {digest(file)}\n".encode())
    return whole.hexdigest()
