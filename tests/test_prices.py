"""Test what calls cost: a table of providers' facts, to the last digit, and the catalogue."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from processes import run
from slipway.ledger import cost_of, format_usd, usd
from slipway.prices import rates_of
from slipway.prices.catalogue import entry_for, entry_of, price_in
from slipway.providers.fields import usage_in
from slipway.settings import Price
from slipway.types import Usage

FILE = Path(__file__).parent / "data" / "price_cases.jsonl"
ROWS = [json.loads(line) for line in FILE.read_text().splitlines()]
MODELS = {row["name"]: row for row in ROWS if "name" in row}
CASES = [row for row in ROWS if "name" not in row]


def price(written: dict[str, Any]) -> Price:
    return msgspec.convert(written, Price)


def test_the_table_is_large_enough() -> None:
    assert len(CASES) >= 600
    assert len({case["cost_usd"] for case in CASES}) > 500


@pytest.mark.parametrize("name", MODELS)
def test_what_a_provider_reports_costs_what_it_charges(name: str) -> None:
    written = price(MODELS[name]["price"])
    rates = {batch: rates_of(written, batch=batch) for batch in (False, True)}
    for case in CASES:
        if case["model"] == name:
            usage = usage_in(case["usage"])
            assert usage is not None
            found = format_usd(usd(cost_of(rates[case["batch"]], usage)))
            assert found == case["cost_usd"], case


@pytest.mark.parametrize("name", [name for name, row in MODELS.items() if row["at"]])
def test_the_catalogue_has_the_prices_of_the_table(name: str) -> None:
    """The table was written by hand from two lists, so a slip in reading one of them shows."""
    expected, found = price(MODELS[name]["price"]), entry_for(MODELS[name]["at"], name)
    assert found is not None
    assert found.price is not None
    for field in (
        *("input", "output", "cached_input", "cache_write", "cache_write_1h"),
        *("audio_input", "audio_output"),
    ):
        assert getattr(found.price, field) == getattr(expected, field), field
    reasoning = (expected.output, expected.reasoning)
    assert (found.price.reasoning or expected.output) in reasoning
    assert [tier.above for tier in found.price.tiers] == [tier.above for tier in expected.tiers]
    for tier, other in zip(found.price.tiers, expected.tiers, strict=True):
        assert (tier.input, tier.output, tier.cached_input, tier.cache_write_1h) == (
            *(other.input, other.output, other.cached_input, other.cache_write_1h),
        )


def test_zero_in_the_catalogue_is_unknown_and_another_host_is_no_provider() -> None:
    assert price_in({"input_cost_per_token": 0.0, "output_cost_per_token": 0.0}) is None
    assert (
        price_in({"input_cost_per_token": 1e-6, "output_cost_per_token": 0, "mode": "chat"}) is None
    )
    assert entry_of("gpt-4o") is not None
    assert entry_for("http://127.0.0.1:9100/v1", "gpt-4o") is None
    assert entry_for("https://api.openai.com/v1", "gpt-9") is None


def test_tokens_without_a_price_make_the_cost_unknown() -> None:
    rates = rates_of(price({"input": "1", "output": "2"}))
    assert cost_of(rates, Usage(input_tokens=3, output_tokens=1)) == 5_000_000
    assert cost_of(rates, Usage(input_tokens=3, audio_input_tokens=1)) is None
    assert cost_of(rates, Usage(output_tokens=3, image_output_tokens=3)) is None
    assert cost_of(rates, Usage(images=1)) is None
    assert cost_of(None, Usage()) is None


SETTINGS = """
models:
  ours: {base_url: "https://api.openai.com/v1", name: gpt-4o, api_key: k}
  dear: {base_url: "https://api.openai.com/v1", name: gpt-4o, api_key: k, price: {input: 3, output: 9}}
  strange: {base_url: "http://127.0.0.1:9/v1"}
"""


def test_prices_are_shown_with_their_source(tmp_path: Path) -> None:
    (tmp_path / "slipway.yaml").write_text(SETTINGS)

    def shown(model: str) -> dict[str, Any]:
        done = run("prices", "show", model, "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    ours, dear = shown("ours"), shown("dear")
    assert (ours["source"], ours["price"]["input"]) == ("catalogue 2026-11-22", "2.5")
    assert ours["catalogue"]["page"].startswith("https://developers.openai.com/")
    assert (dear["source"], dear["price"]) == ("settings", {"input": "3", "output": "9"})
    assert dear["catalogue"]["overridden"]
    text = run("prices", "show", "strange", cwd=tmp_path).stdout
    assert "The price of strange is unknown" in text
    assert "models.strange.price" in text
    wrong = run("prices", "show", "gpt-40", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "similar: gpt-4" in wrong.stderr


@pytest.mark.parametrize(
    ("usage", "written", "for_an_hour"),
    [
        # https://platform.claude.com/docs/en/build-with-claude/prompt-caching: "usage" of a reply
        (
            {
                "input_tokens": 2048,
                "cache_read_input_tokens": 1800,
                "cache_creation_input_tokens": 248,
                "output_tokens": 503,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 148,
                    "ephemeral_1h_input_tokens": 100,
                },
            },
            248,
            100,
        ),
        (  # as LiteLLM passes it on to clients of OpenAI's API
            {
                "prompt_tokens": 900,
                "completion_tokens": 5,
                "total_tokens": 905,
                "prompt_tokens_details": {
                    "cached_tokens": 0,
                    "cache_creation_tokens": 800,
                    "cache_creation_token_details": {
                        "ephemeral_5m_input_tokens": 0,
                        "ephemeral_1h_input_tokens": 800,
                    },
                },
            },
            800,
            800,
        ),
        (  # only the parts
            {
                "input_tokens": 1,
                "output_tokens": 1,
                "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4},
            },
            7,
            4,
        ),
    ],
)
def test_tokens_written_for_an_hour_are_counted_apart(
    usage: dict[str, Any], written: int, for_an_hour: int
) -> None:
    found = usage_in(usage)
    assert found is not None
    assert (found.cache_write_tokens, found.cache_write_1h_tokens) == (written, for_an_hour)


def test_writes_for_an_hour_cost_what_other_writes_do_unless_they_have_a_price() -> None:
    usage = Usage(input_tokens=10, cache_write_tokens=10, cache_write_1h_tokens=4)
    plain = {"input": "1", "output": "5", "cache_write": "1.25"}
    assert cost_of(rates_of(price(plain)), usage) == 12_500_000
    assert cost_of(rates_of(price({**plain, "cache_write_1h": "2"})), usage) == 15_500_000
