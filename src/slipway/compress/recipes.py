"""For graphics cards: what to run there instead, since it is not run here.

A recipe for llm-compressor (its own YAML), the vLLM command that serves what it makes, and how to
measure the result with `slipway eval` beside the original.
"""

from pathlib import Path

import yaml

from slipway.compress.refusals import refused
from slipway.types import Record


class Recipe(Record, frozen=True, kw_only=True):
    """`modifiers` as llm-compressor names them; `calibrates` if it needs text."""

    about: str
    modifiers: dict[str, dict[str, object]]
    calibrates: bool = True


_LAYERS: dict[str, object] = {"targets": ["Linear"], "ignore": ["lm_head"]}

RECIPES = {
    "awq": Recipe(
        about="4-bit weights, 16-bit activations; for few requests at once",
        modifiers={
            "AWQModifier": {"duo_scaling": "both"},
            "QuantizationModifier": {**_LAYERS, "scheme": "W4A16_ASYM"},
        },
    ),
    "gptq": Recipe(
        about="4-bit weights, 16-bit activations; for few requests at once",
        modifiers={"GPTQModifier": {**_LAYERS, "scheme": "W4A16"}},
    ),
    "fp8": Recipe(
        about="8-bit floats throughout; nearly without loss, for cards since Ada and Hopper",
        modifiers={"QuantizationModifier": {**_LAYERS, "scheme": "FP8_DYNAMIC"}},
        calibrates=False,
    ),
    "w8a8": Recipe(
        about="8-bit integers throughout; for many requests at once on cards since Turing",
        modifiers={
            "SmoothQuantModifier": {"smoothing_strength": 0.8},
            "GPTQModifier": {**_LAYERS, "scheme": "W8A8"},
        },
    ),
}


def write_recipe(kind: str, model: str, out: Path) -> list[str]:
    """Write `recipe.yaml` and `compress.py`; what to do with them, line by line."""
    if kind not in RECIPES:
        raise refused(f"--recipe: `{kind}` is not one; choose {', '.join(RECIPES)}")
    recipe = RECIPES[kind]
    made = f"{Path(model).name}-{kind}"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.yaml").write_text(recipe_text(kind), encoding="utf-8")
        (out / "compress.py").write_text(_script(recipe, model, made), encoding="utf-8")
    except OSError as error:
        raise refused(f"--out: {out} cannot be written: {error.strerror}") from None
    models = f"http://127.0.0.1:8001/v1#original --model http://127.0.0.1:8000/v1#{made}"
    measure = f"--docs DOCS --questions QUESTIONS.jsonl --model {models} --against original"
    return [
        f"{kind}: {recipe.about}. Not run here; on a machine with a graphics card:",
        "  pip install llmcompressor vllm",
        f"  cd {out} && python compress.py" + (" TEXT.jsonl" if recipe.calibrates else ""),
        f"  vllm serve ./{made} --served-model-name {made} --port 8000",
        f"  vllm serve {model} --served-model-name original --port 8001",
        "then measure both on your own questions, question by question:",
        f"  slipway eval answers {measure}",
    ]


def recipe_text(kind: str) -> str:
    """The recipe as llm-compressor reads it: stages of modifiers."""
    stages = {"quantise_stage": {"quantise_modifiers": RECIPES[kind].modifiers}}
    return yaml.safe_dump(stages, sort_keys=False)


def _script(recipe: Recipe, model: str, made: str) -> str:
    given = """
    dataset=load_dataset("json", data_files=sys.argv[1], split="train").map(
        lambda row: tokenizer(row["text"], truncation=True, max_length=2048),
        remove_columns=["text"],
    ),
    num_calibration_samples=512,
    max_seq_length=2048,"""
    loads = "from datasets import load_dataset\n" if recipe.calibrates else ""
    head = "import sys\n\n" if recipe.calibrates else ""
    return f'''"""Made by `slipway compress --recipe`: compress with llm-compressor on a graphics card."""

{head}{loads}from llmcompressor import oneshot
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{model}", torch_dtype="auto", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained("{model}")
oneshot(
    model=model,
    tokenizer=tokenizer,
    recipe="recipe.yaml",{given if recipe.calibrates else ""}
    output_dir="{made}",
)
'''
