"""Test what compress does to a model's numbers, against llama.cpp, gguf and tokenizers as oracles."""

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from networks import INNER, LAYERS, network, tokens, write_network
from processes import run
from slipway.compress import gate, measuring, pruning, quantising, registering, rounding, texts
from slipway.compress.activations import logits
from slipway.compress.checkpoint import (
    Checkpoint,
    Field,
    Floats,
    Tensor,
    read_gguf,
    stored_once,
    stores_twice,
    tensor_bytes,
)
from slipway.compress.huggingface import read_folder, write_folder
from slipway.compress.judging import checks_of
from slipway.compress.recipes import RECIPES, recipe_text
from slipway.compress.results import DOMAIN, RESULT, ResultFile
from slipway.compress.runner import Runner, Window
from slipway.compress.state import held
from slipway.errors import SettingsError, SlipwayError

KINDS = ("llama", "qwen2", "qwen3")
SAID = "In 1999, Zoë's tide rose 12.5 metres\n\nat the harbour... <|im_start|> 你好"


# Reading and running


@pytest.mark.parametrize("kind", KINDS)
def test_our_forward_pass_agrees_with_llama_cpp(tmp_path: Path, kind: str) -> None:
    """Weights, positions and heads must be read as llama.cpp reads them."""
    model = read_gguf(write_network(tmp_path / "a.gguf", kind))
    window = [(7 * n + 3) % len(tokens()) for n in range(60)]
    found = logits(model, [window])[0]
    found = found - np.log(np.exp(found).sum(-1, keepdims=True))
    ours = -float(found[np.arange(32, 59), window[33:]].sum())
    with Runner(tmp_path / "a.gguf", original=tmp_path / "a.gguf", context=64) as runner:
        theirs = runner.score(window)
    assert theirs.tokens == 27
    assert theirs.nll == pytest.approx(ours, rel=2e-3)
    assert theirs.same_top == 27
    assert theirs.kl == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_goes_to_hugging_face_and_back_unchanged(tmp_path: Path, kind: str) -> None:
    write_network(tmp_path / "a.gguf", kind)
    for args in (("a.gguf", "folder"), ("folder", "b.gguf")):
        done = run("compress", "convert", *args, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    before, after = read_gguf(tmp_path / "a.gguf"), read_gguf(tmp_path / "b.gguf")
    assert set(before.tensors) == set(after.tensors)
    for name, tensor in before.tensors.items():
        assert np.array_equal(tensor.load(), after.tensors[name].load()), name
    kept = ("tokens", "merges", "token_type", "pre", "eos_token_id")
    for name in kept:
        key = f"tokenizer.ggml.{name}"
        assert before.fields[key].value == after.fields[key].value, name


def safetensors(path: Path, changed: dict[str, Any], zeros: bool = False) -> None:
    """Write the folder's file again with other tensors in its head, or with other numbers."""
    data = (path.parent / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    head = json.loads(data[8:end]) | changed
    words = json.dumps({name: about for name, about in head.items() if about}).encode()
    rest = bytes(len(data) - end) if zeros else data[end:]
    path.write_bytes(len(words).to_bytes(8, "little") + words + rest)


BIAS = {
    "model.layers.0.self_attn.o_proj.bias": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}
}
BROKEN: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "scaled": ({"rope_parameters": {"rope_type": "llama3"}}, {}, "are scaled by `llama3`"),
    "head": ({"tie_word_embeddings": False}, {"lm_head.weight": None}, "`lm_head.weight` is missing"),
    "bias": ({}, BIAS, "tensors that its architecture does not know, such as `model.layers.0"),
    "heads": ({"num_attention_heads": 5}, {}, "it states 5 heads and 2 of keys and values"),
    "no number": ({"hidden_size": "wide"}, {}, "`hidden_size` of config.json is not a number"),
    "shape": ({"intermediate_size": 500}, {}, "by the model's own numbers it is 500 x 64"),
    "no shape": ({}, {"model.norm.weight": {"dtype": "F16"}}, "does not describe `model.norm.weight`"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_that_would_become_another_model_is_refused(tmp_path: Path, name: str) -> None:
    folder, (config, head, sentence) = tmp_path / "folder", BROKEN[name]
    write_folder(read_gguf(write_network(tmp_path / "a.gguf")), folder)
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    safetensors(folder / "model.safetensors", head)
    with pytest.raises(SettingsError) as refused:
        read_folder(folder)
    assert sentence in str(refused.value)


def test_only_the_files_that_belong_to_the_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_folder(read_gguf(write_network(tmp_path / "a.gguf")), folder)
    wanted = read_folder(folder).tensors["token_embd.weight"].load()
    safetensors(folder / "older-00001-of-00002.safetensors", {}, zeros=True)
    assert np.array_equal(read_folder(folder).tensors["token_embd.weight"].load(), wanted)
    index = {"weight_map": {"model.embed_tokens.weight": "part-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "part-1.safetensors")
    assert np.array_equal(read_folder(folder).tensors["token_embd.weight"].load(), wanted)
    (folder / "part-1.safetensors").unlink()
    with pytest.raises(SettingsError, match="lacks part-1"):
        read_folder(folder)


def test_a_folder_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    write_folder(read_gguf(write_network(tmp_path / "a.gguf")), folder)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(SettingsError, match="not a whole safetensors file; fetch it again"):
        [each.load() for each in read_folder(folder).tensors.values()]


@pytest.mark.parametrize(
    ("field", "changed", "sentence"),
    [
        ("tokenizer.ggml.model", None, "has no tokenizer"),
        ("llama.block_count", Field(value="four", kind=8), "`llama.block_count` is not a number"),
        ("llama.attention.head_count", Field(value=0, kind=4), "it states 0 heads"),
        ("llama.feed_forward_length", None, "does not state `llama.feed_forward_length`"),
    ],
)
def test_a_gguf_file_with_a_head_that_cannot_be_is_refused(
    tmp_path: Path, field: str, changed: Field | None, sentence: str
) -> None:
    model = network()
    fields = {name: value for name, value in model.fields.items() if name != field}
    fields |= {field: changed} if changed else {}
    quantising.write(model, tmp_path / "a.gguf", "f16", fields=fields)
    with pytest.raises(SettingsError) as refused:
        read_gguf(tmp_path / "a.gguf")
    assert sentence in str(refused.value)


def test_scaled_positions_are_not_lost_on_the_way_to_a_folder(tmp_path: Path) -> None:
    model = network()
    fields = {**model.fields, "llama.rope.scaling.type": Field(value="yarn", kind=8)}
    quantising.write(model, tmp_path / "a.gguf", "f16", fields=fields)
    with pytest.raises(SettingsError, match="scaled by `yarn`, which the folder could not say"):
        write_folder(read_gguf(tmp_path / "a.gguf"), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_the_folder_splits_text_as_llama_cpp_does(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    write_network(tmp_path / "a.gguf")
    assert run("compress", "convert", "a.gguf", "folder", cwd=tmp_path).returncode == 0
    theirs = Tokenizer.from_file(str(tmp_path / "folder" / "tokenizer.json"))
    with Runner(tmp_path / "a.gguf") as runner:
        assert runner.tokens(SAID, special=True) == theirs.encode(SAID).ids


# Quantising


@pytest.mark.parametrize("kind", ["q8_0", "q4_0", "q5_0", "q5_1"])
def test_ggml_and_gguf_pack_rows_alike(kind: str) -> None:
    """Within one unit of one number in a thousand: ties are rounded to different sides."""
    rows = np.random.default_rng(1).standard_normal((64, 256)).astype(np.float32)
    ours, theirs = quantising.pack(rows, kind), quantising._in_python(rows, kind)
    assert ours.shape == theirs.shape
    assert (ours != theirs).mean() < 0.001


@pytest.mark.parametrize("kind", sorted(quantising._ERROR))
def test_quantised_weights_decode_to_the_original_values(kind: str) -> None:
    assert quantising.is_right(quantising.pack, kind)


def test_a_wrong_library_is_noticed() -> None:
    def wrong(rows: Floats, kind: str) -> NDArray[Any]:
        return np.zeros((len(rows), tensor_bytes(kind, (1, rows.shape[1]))), np.uint8)

    assert not quantising.is_right(wrong, "q8_0")


def test_types_that_cannot_be_packed_are_rejected_with_the_fix(tmp_path: Path) -> None:
    """Runs in a Python that has no xllamacpp."""
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'xllamacpp' else find(n, *a)\n"
        "import numpy as np\n"
        "from slipway.compress import quantising as q\n"
        "from slipway.errors import SlipwayError\n"
        "rows = np.ones((2, 256), np.float32)\n"
        "print(q.pack(rows, 'q8_0').shape)\n"
        "try: q.pack(rows, 'q4_k')\n"
        "except SlipwayError as e: print(e.next)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(2, 272)" in done.stdout
    assert "Put `llama-quantize` of llama.cpp on PATH, or choose --quant q8_0" in done.stdout


def test_rounding_by_its_effect_keeps_more_than_rounding_to_the_nearest(tmp_path: Path) -> None:
    """And what is written decodes to what the rounding was judged by."""
    model = network()
    kinds = quantising.types_of(model, "q4_0")
    chance = np.random.default_rng(5)
    read = chance.integers(0, 200, (8, 128)).tolist()
    held = chance.integers(0, 200, (2, 128)).tolist()
    made = rounding.rounded(model, kinds, read, lambda done, total: None)
    near = read_gguf(quantising.write(model, tmp_path / "near.gguf", "q4_0"))
    best = read_gguf(quantising.write(made, tmp_path / "best.gguf", "q4_0"))
    for name, tensor in made.tensors.items():
        if kinds[name] == "q4_0":
            assert best.tensors[name].kind == "q4_0"
            assert np.array_equal(best.tensors[name].load(), tensor.load()), name
    right = logits(model, held)
    lost = [float(((logits(each, held) - right) ** 2).mean()) for each in (near, best)]
    assert lost[1] < 0.8 * lost[0]


def wide(columns: int, layers: int = 30) -> Checkpoint:
    """Return a model of that width in name only."""
    model = network(layers=layers)

    def changed(name: str, each: Tensor) -> Tensor:
        last = columns if each.shape[-1] == 64 else each.shape[-1]
        return msgspec.structs.replace(each, shape=(*each.shape[:-1], last))

    return msgspec.structs.replace(
        model, tensors={name: changed(name, each) for name, each in model.tensors.items()}
    )


def test_tensors_get_the_types_of_llama_quantize() -> None:
    """Read off llama-quantize's own output for SmolLM2-135M (rows of 576) and a width of 1024."""
    odd = quantising.types_of(wide(576), "q4_k_m")
    assert odd["token_embd.weight"] == "q8_0"
    assert odd["blk.5.attn_q.weight"] == "q5_0"
    assert odd["blk.0.attn_v.weight"] == "q8_0"
    assert odd["blk.0.ffn_down.weight"] == "q6_k"  # its rows are 512 here
    assert odd["blk.4.ffn_down.weight"] == "q4_k"
    even = quantising.types_of(wide(1024), "q4_k_m")
    assert even["token_embd.weight"] == "q6_k"
    assert even["blk.5.attn_q.weight"] == "q4_k"
    more = [n for n in range(30) if even[f"blk.{n}.attn_v.weight"] == "q6_k"]
    assert more == [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]


@pytest.mark.parametrize("form", ["q8_0", "q4_k_m", "q4_0_m", "q4_0"])
def test_the_size_is_known_before_and_the_file_runs(tmp_path: Path, form: str) -> None:
    path = write_network(tmp_path / "a.gguf", form=form)
    model = read_gguf(path)
    f16 = write_network(tmp_path / "b.gguf")
    size = quantising.size_of(read_gguf(f16), form) + quantising.head_of(path, model)
    assert path.stat().st_size == size
    with Runner(path, original=f16) as runner:
        assert runner.score([5] * 20 + list(range(60))).same_top > 30


@pytest.mark.skipif(not shutil.which("llama-quantize"), reason="llama-quantize is not on PATH")
@pytest.mark.parametrize("form", ["q8_0", "q4_k_m"])
def test_llama_quantize_writes_the_same_tensors(tmp_path: Path, form: str) -> None:
    f16 = write_network(tmp_path / "f16.gguf")
    theirs = quantising.write_with_tool(f16, tmp_path / "theirs.gguf", form)
    assert theirs is not None
    ours = quantising.write(read_gguf(f16), tmp_path / "ours.gguf", form)
    mine, its = read_gguf(ours).tensors, read_gguf(theirs).tensors
    assert {n: t.kind for n, t in mine.items()} == {n: t.kind for n, t in its.items()}


def test_vectors_that_are_stored_twice_are_found_and_stored_once() -> None:
    model = network()
    whole = model.tensors["token_embd.weight"]
    rough = np.round(whole.load() * 64) / 64
    tensors = {
        **model.tensors,
        "token_embd.weight": msgspec.structs.replace(whole, kind="q5_0", load=rough.copy),
        "output.weight": msgspec.structs.replace(whole, kind="q8_0"),
    }
    twice = msgspec.structs.replace(model, tensors=tensors)
    assert stores_twice(twice)
    once = stored_once(twice)
    assert "output.weight" not in once.tensors
    assert np.array_equal(once.tensors["token_embd.weight"].load(), whole.load())
    other = {**tensors, "output.weight": network(seed=9).tensors["token_embd.weight"]}
    assert not stores_twice(msgspec.structs.replace(model, tensors=other))
    assert not stores_twice(model)


# Pruning


def idle(model: Checkpoint, layer: int) -> Checkpoint:
    """Return the same with a layer that adds nothing."""
    tensors = dict(model.tensors)
    for name in ("attn_output.weight", "ffn_down.weight"):
        whole = tensors[f"blk.{layer}.{name}"]
        nothing = np.zeros(whole.shape, np.float32)
        tensors[f"blk.{layer}.{name}"] = msgspec.structs.replace(whole, load=nothing.copy)
    return msgspec.structs.replace(model, tensors=tensors)


WINDOWS = [[(11 * n + 5 * k) % 200 for n in range(48)] for k in range(2)]


def test_the_layer_that_does_nothing_goes_and_nothing_changes() -> None:
    model = idle(network(), 2)
    cut = pruning.cut_from("depth:1", model)
    found = pruning.scores(model, WINDOWS, lambda done, total: None)
    assert pruning.dropped(cut, found) == [2]
    assert found.influence[2] == pytest.approx(0, abs=1e-6)
    small = pruning.pruned(model, cut, found)
    assert small.layers == LAYERS - 1
    assert np.allclose(logits(model, WINDOWS), logits(small, WINDOWS), atol=1e-5)


def test_the_neurons_that_do_nothing_go_and_nothing_changes() -> None:
    model = network()
    tensors = dict(model.tensors)
    used = np.random.default_rng(3).permutation(INNER)[:256]
    for layer in range(LAYERS):
        name = f"blk.{layer}.ffn_down.weight"
        values = np.zeros(tensors[name].shape, np.float32)
        values[:, used] = tensors[name].load()[:, used]
        tensors[name] = msgspec.structs.replace(tensors[name], load=values.copy)
    model = msgspec.structs.replace(model, tensors=tensors)
    cut = pruning.cut_from("width:256", model)
    small = pruning.pruned(model, cut, pruning.scores(model, WINDOWS, lambda done, total: None))
    assert small.tensors["blk.0.ffn_up.weight"].shape == (256, 64)
    assert small.number("feed_forward_length") == 256
    assert np.allclose(logits(model, WINDOWS), logits(small, WINDOWS), atol=1e-4)


def test_torch_and_numpy_predict_the_same() -> None:
    torch = pytest.importorskip("torch")
    from slipway.compress.network import Network, as_q4_0, weights_of

    for kind in KINDS:
        model = network(kind)
        with torch.no_grad():
            found = Network(model, 64)(weights_of(model), torch.tensor(WINDOWS)).numpy()
        assert np.allclose(found, logits(model, WINDOWS), atol=1e-4), kind
    rows = np.random.default_rng(2).standard_normal((8, 64)).astype(np.float32)
    from gguf import GGMLQuantizationType, dequantize

    stored = dequantize(quantising.pack(rows, "q4_0"), GGMLQuantizationType.Q4_0)
    assert np.array_equal(as_q4_0(torch.tensor(rows)).numpy(), stored)


# Text

PASSAGE = " ".join(f"word{n}" for n in range(60))


def test_documents_that_share_a_passage_stay_on_one_side() -> None:
    documents = [f"{PASSAGE} question {n}" for n in range(12)]
    documents += [" ".join(f"own{n}x{k}" for k in range(60)) for n in range(48)]
    training, test = texts.split(documents)
    assert training
    assert test
    assert not texts.shared(training, test)
    assert sum(PASSAGE in text for text in test) in (0, 12)


NUMBERED = [f"café{n}" for n in range(30)]
QUESTION = "How many days of leave does a captain have?"
HAN = "".join(chr(0x4E00 + 7 * n) for n in range(300))


@pytest.mark.parametrize(
    ("training", "test"),
    [
        (f"{HAN} Q: {QUESTION} A: thirty. {' '.join(NUMBERED)}", QUESTION),
        (QUESTION.upper(), f"{' '.join(NUMBERED)} {QUESTION}"),
        (unicodedata.normalize("NFD", " ".join(NUMBERED)), " ".join(NUMBERED)),
        ("_".join(NUMBERED), "\n\n".join(NUMBERED)),
        (" ".join(f"ca\u00adf\u200bé{n}" for n in range(30)), " ".join(NUMBERED)),
        (f"{HAN}港口的员工每年有三十天的带薪休假。{HAN}", "港口的员工每年有三十天的带薪休假"),
    ],
)
def test_shared_text_is_found_however_it_is_written(training: str, test: str) -> None:
    assert texts.shared([training], [test])
    assert not texts.shared([training], [test[::-1]])
    assert len(texts._groups([training, test, HAN[::-1]])) == 2


def test_a_form_of_words_is_no_shared_text() -> None:
    form = "which of the following is the most likely cause of the symptoms of this patient"
    first = " ".join(f"a{n}" for n in range(80)) + f" {form}"
    second = " ".join(f"b{n}" for n in range(80)) + f" {form}"
    assert texts.shared([first], [second]) == []
    assert texts.shared([f"{PASSAGE} {first}"], [PASSAGE])[0][0] == 0


# Measuring and the gate


def windows(losses: list[float], original: list[float]) -> list[Window]:
    return [
        Window(tokens=100, nll=100 * a, nll_original=100 * b, kl=1.0, same_top=90)
        for a, b in zip(losses, original, strict=True)
    ]


def test_a_difference_is_taken_window_by_window() -> None:
    """The text's own spread is large; the difference is the same in each window, so it is certain."""
    own = [1.0, 2.0, 3.0, 4.0]
    found = measuring.reading_of(windows([each + 0.1 for each in own], own))
    assert found.ratio == pytest.approx(np.exp(0.1))
    assert found.low == pytest.approx(found.high)
    assert found.error > 1


def test_a_noisy_machine_is_reported_and_no_speed_is_printed() -> None:
    calm = {"a": [(1.0, 0.1)] * 7, "b": [(2.0, 0.05)] * 7}
    assert measuring._noise(calm) == ""
    busy = {"a": [(1.0, 0.1)] * 7, "b": [(1.0 + n % 3, 0.05) for n in range(7)]}
    assert "the machine is too busy: the middle half of 7 rounds differs" in measuring._noise(busy)
    pace = measuring._pace(calm, "b", 5)
    assert (pace.ttft_ratio, pace.speed_ratio) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ([1.0] * 38 + [0.9, 1.0], "keep"),
        ([0.0] * 38 + [1.0] * 2, "reject"),
        ([1.0] * 37 + [0.0] * 3, "undecided"),
        ([1.0] * 40, "undecided"),  # forty that are equal may have missed one in twelve
    ],
)
def test_answers_are_kept_only_beyond_doubt(new: list[float], verdict: str) -> None:
    check = gate.not_worse(gate.paired([1.0] * 40, new), 0.05)
    assert check.verdict == verdict
    assert ("more items would decide it" in check.found) == (verdict == "undecided")


def test_a_loss_of_few_items_is_not_overlooked() -> None:
    """Of 200 items, 2 % lose all in truth: 2.5 of 100 samples may hide that (Student's: 8.4)."""
    chance, kept = np.random.default_rng(0), 0
    for _ in range(1000):
        new = (chance.random(200) >= 0.02).astype(float).tolist()
        kept += gate.not_worse(gate.paired([1.0] * 200, new), 0.02).verdict == "keep"
    assert kept <= 35
    assert gate.paired([1.0] * 3, [0.5, 0.4, 0.3]).low < -0.8  # all lost


def test_items_that_are_all_equal_decide_once_there_are_enough() -> None:
    few = gate.not_worse(gate.paired([1.0] * 20, [1.0] * 20), 0.02)
    assert few.found.endswith("undecided, about 163 more items would decide it")
    enough = gate.not_worse(gate.paired([1.0] * 183, [1.0] * 183), 0.02)
    assert enough.verdict == "keep"


@pytest.mark.parametrize(
    ("wanted", "verdict"),
    [(1.6, "keep"), (1.69, "undecided"), (1.71, "undecided"), (1.8, "reject")],
)
def test_a_speed_is_met_or_missed_only_beyond_the_noise(wanted: float, verdict: str) -> None:
    pace = measuring.Throughput(
        ttft_s=0.1, tokens_a_second=10.0, ttft_ratio=1.0, speed_ratio=1.7, ttft_spread=0.04,
        speed_spread=0.04, memory=0,
    )  # fmt: skip
    paces = measuring.Paces(rounds=7, threads=1, load=0.0, models={RESULT: pace})
    targets = gate.Targets(speed=wanted)
    (check,) = checks_of(targets, result_file(8.0), paces, None)
    assert check.verdict == verdict
    assert check.found.startswith("1.70x [1.65, 1.75]")


def test_a_model_that_predicts_no_numbers_is_rejected() -> None:
    (check,) = checks_of(gate.Targets(), result_file(float("nan")), None, None)
    assert check.verdict == "reject"
    assert not checks_of(gate.Targets(), result_file(8.0), None, None)


def result_file(perplexity: float) -> ResultFile:
    reading = measuring.Reading(
        tokens=9, perplexity=perplexity, error=0.1, ratio=1.0, low=1.0, high=1.0, kl=0.0, same_top=1.0
    )  # fmt: skip
    return ResultFile(
        path="a.gguf", form="q8_0", bytes=9, bits=8.0, parameters=9, readings={DOMAIN: reading}
    )


def test_one_missed_target_rejects_and_one_open_leaves_it_open() -> None:
    def check(verdict: gate.Verdict) -> gate.Check:
        return gate.Check(name="x", wanted="", found="", verdict=verdict)

    assert gate.verdict_of([check("keep"), check("undecided"), check("reject")]) == "reject"
    assert gate.verdict_of([check("keep"), check("undecided")]) == "undecided"
    assert gate.verdict_of([]) == "keep"


# Settings, edited in place


@pytest.mark.parametrize(
    "text",
    [
        "models:\n  a: {base_url: x}\nroutes:\n  main:\n    - a  # one\n    - {model: b, role: twin}\n",
        "models: {a: {base_url: x}, b: {base_url: y}}\nroutes: {main: [a, b]}\n",
        "models:\n  a:\n    base_url: x\n\n# routes\nroutes:\n  main: [a]\n\n  other: [a]\n",
        "models:\n    a: {base_url: x}\nroutes:\n    main:\n    - model: a\n      role: primary\n",
    ],
)
def test_a_model_is_put_into_settings_and_taken_out_without_a_trace(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text(text)
    registering.enter(file, "small", "main", "5%", lambda path: None)
    entered = yaml.safe_load(file.read_text())
    assert entered["models"]["small"] == {"provider": "local", "weights": "small"}
    assert entered["routes"]["main"][-1] == {"model": "small", "canary": "5%"}
    assert entered["models"]["a"] == {"base_url": "x"}
    registering.enter(file, "small", "main", "10%", lambda path: None)
    shares = [e for e in yaml.safe_load(file.read_text())["routes"]["main"] if "small" in str(e)]
    assert shares == [{"model": "small", "canary": "10%"}]
    assert registering.rollback("small", file, lambda path: None)
    assert file.read_text() == text


def test_entries_of_several_lines_are_taken_out_without_their_neighbours(tmp_path: Path) -> None:
    file = tmp_path / "slipway.yaml"
    neighbours = "  next: {base_url: y}\nroutes:\n  main:\n    - a\n"
    ours = "  small:\n    provider: local\n    weights: small\n"
    entry = "    - model: small\n      canary: 5%\n"
    before = "models:\n  a: {base_url: x}\n" + neighbours + "  # the other\n  other:\n    - a\n"
    head, tail = before.split(neighbours)
    file.write_text(head + ours + neighbours + entry + tail)
    assert registering.rollback("small", file, lambda path: None)
    assert file.read_text() == before


@pytest.mark.parametrize("given", ["{base_url: y}", "{provider: local, weights: tiny}"])
def test_a_model_that_compress_did_not_enter_is_left_alone(tmp_path: Path, given: str) -> None:
    file = tmp_path / "slipway.yaml"
    text = f"models: {{a: {{base_url: x}}, small: {given}}}\nroutes: {{main: [a, small]}}\n"
    file.write_text(text)
    with pytest.raises(SettingsError, match="does not run the weights `small`"):
        registering.rollback("small", file, lambda path: None)
    with pytest.raises(SettingsError, match="choose another name"):
        registering.enter(file, "small", "main", "5%", lambda path: None)
    assert file.read_text() == text


def test_what_a_stage_kept_is_not_used_for_other_text(tmp_path: Path) -> None:
    """Lessons and sampled answers of a run that was stopped belong to its text and its options."""

    def lesson(text: str) -> str:
        with held(tmp_path) as state:

            def do() -> str:
                half = state.kept("lessons", ".pt")
                before = half.read_text() if half.is_file() else ""
                half.write_text(text)
                if not before:
                    raise KeyboardInterrupt
                return before

            return state.stage("distil", [text], [], str, do)

    for text in ("old", "new"):
        with pytest.raises(KeyboardInterrupt):
            lesson(text)
    assert len(list(tmp_path.glob("lessons.*.pt"))) == 1
    assert lesson("new") == "new"


def test_a_route_that_is_not_there_is_named(tmp_path: Path) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text("models: {a: {base_url: x}}\nroutes: {main: [a]}\n")
    with pytest.raises(SettingsError, match="there is no route `mian`; there are: main"):
        registering.enter(file, "small", "mian", "5%", lambda path: None)


def test_settings_come_back_if_the_check_fails(tmp_path: Path) -> None:
    file = tmp_path / "slipway.yaml"
    file.write_text("models: {a: {base_url: x}}\n")

    def check(path: Path) -> None:
        raise SettingsError([f"{path.name} is wrong"])

    with pytest.raises(SlipwayError):
        registering.enter(file, "small", None, "5%", check)
    assert file.read_text() == "models: {a: {base_url: x}}\n"


# Recipes

SCHEMA = json.loads((Path(__file__).parent / "data" / "llmcompressor.json").read_text())


@pytest.mark.parametrize("kind", sorted(RECIPES))
def test_recipes_are_what_llm_compressor_reads(kind: str) -> None:
    """Beside the fields and preset schemes of llm-compressor 0.14, read off its own sources."""
    (stage,) = yaml.safe_load(recipe_text(kind)).values()
    ((group, modifiers),) = stage.items()
    assert group.endswith("_modifiers")
    for name, given in modifiers.items():
        assert set(given) <= set(SCHEMA["modifiers"][name]), name
        if "scheme" in given:
            assert given["scheme"] in SCHEMA["presets"]


def test_a_recipe_says_what_to_run_and_how_to_measure_it(tmp_path: Path) -> None:
    done = run("compress", "org/model-7b", "--recipe", "awq", "--out", "made", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "vllm serve ./model-7b-awq --served-model-name model-7b-awq" in done.stdout
    assert "slipway eval answers --docs DOCS --questions QUESTIONS.jsonl" in done.stdout
    compile((tmp_path / "made" / "compress.py").read_text(), "compress.py", "exec")
    assert yaml.safe_load((tmp_path / "made" / "recipe.yaml").read_text())
