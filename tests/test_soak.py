"""Run many streams with random faults, and a million requests; `make soak` runs these tests, which
take minutes.
"""

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

import plain_http
from processes import ROOT, Serving, mocking, models, serving
from waiting import PATIENCE_S

FAULTS = [
    "mock-model",
    "fault-cut-7",
    "fault-malformed-3",
    "fault-nodone",
    "fault-errorevent-5",
    "fault-split",
    "fault-packed",
    "fault-stall-4",
]
ROUNDS = 25  # of 100 streams each
WELL = {"mock-model", "fault-split", "fault-packed", "fault-nodone"}


async def ask(client: httpx.AsyncClient, server: Serving, model: str, leave: bool) -> bool:
    """Return whether the stream ended well; None if the client leaves before its end."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": model}]}
    text = ""
    async with client.stream(
        "POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S
    ) as r:
        async for line in r.aiter_lines():
            text += line + "\n"
            if leave:
                break
    return "data: [DONE]" in text


async def soak(server: Serving, rounds: int, draw: random.Random) -> list[str]:
    wrong = []
    async with plain_http.AsyncClient(limits=httpx.Limits(max_connections=100)) as client:
        for _ in range(rounds):
            names = [draw.choice(FAULTS) for _ in range(100)]
            leave = [draw.random() < 0.1 for _ in names]
            found = await asyncio.gather(
                *(ask(client, server, n, gone) for n, gone in zip(names, leave, strict=True))
            )
            wrong += [
                n
                for n, gone, well in zip(names, leave, found, strict=True)
                if not gone and well != (n in WELL)
            ]
    return wrong


@pytest.mark.soak
def test_thousands_of_streams(tmp_path: Path) -> None:
    with mocking(tokens=20, tpot_s=0.002) as mock:
        settings = models(mock.url, *FAULTS, connection={"between_bytes": "5s"})
        with serving(tmp_path, settings=settings) as server:
            assert asyncio.run(soak(server, ROUNDS, random.Random(7))) == []
            assert "slipway_answers_in_flight 0.0" in server.get("/metrics").text
            assert "Traceback" not in server.log


@pytest.mark.soak
def test_memory_after_a_million_requests() -> None:
    command = [sys.executable, str(ROOT / "bench" / "memory.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=True)
    rows = {row["case"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["idle"]["kib_each"] < 40
    for case in ("small", "burst"):
        assert rows[case]["errors"] == 0
        assert rows[case]["rss_mib"][-1] <= 120
        assert rows[case]["slope_kib_per_1000"] < 20
