"""Test how the tokens of prompts are counted, and what calls teach about it."""

import json
from typing import Any

from slipway.routing.token_counts import TokenCounts, size_of


def test_short_prompts_teach_little_about_long_ones() -> None:
    """A provider counts some tokens of each message beside its text."""
    counts = TokenCounts()
    for _ in range(50):
        counts.learn_prompt(1, 8)
    assert counts.input_tokens(10_000) < 15_000
    for _ in range(20):
        counts.learn_prompt(2_000, 3_000)  # now a real difference
    assert 14_000 < counts.input_tokens(10_000) < 15_100


def test_prompts_that_are_not_text_teach_nothing() -> None:
    def content(*parts: dict[str, Any]) -> bytes:
        return json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()

    text = {"type": "text", "text": "What is this?"}
    for part in (
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ):
        assert not size_of(content(text, part)).is_text
    assert size_of(content(text)).is_text
    for kind in ("image_url", "image", "input_image"):
        size = size_of(content(text, {"type": kind, kind: "A" * 10_000}))
        assert (size.input, size.other) == (4 + 800, 0)
    assert 60 < size_of(content({"type": "video_url", "video_url": "A" * 10_000})).other < 80


def test_a_stream_that_broke_off_has_no_more_tokens_than_it_could_have() -> None:
    counts = TokenCounts()
    assert counts.output_tokens(events=300, chars=1200, most=250) == 250
    counts.learn_events(2, 2_000)  # of thoughts that were not shown
    assert counts.output_tokens(events=300, chars=1200, most=500) == 500
    assert counts.output_tokens(events=1, chars=4, most=5_000) == 1_000
