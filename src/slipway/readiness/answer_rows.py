"""A real question through the proxy: its first token as the client sees it and as the server does."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from slipway.readiness.raw_http import RawResponse, ask
from slipway.readiness.rows import Check, CheckRow, CheckState
from slipway.readiness.site import Site

ANSWER_S = 120.0
ADDED_AMBER_S = 0.3  # connection and TLS included
QUESTION = "Say hello in one word."


def checks(site: Site) -> dict[str, tuple[Check, float]]:
    """Return the check of an answer, if a name to ask was given: it is paid for."""
    name = site.wish.app or site.wish.model
    if name is None:
        return {}
    return {"answer": (lambda: answer(site, name), ANSWER_S)}


async def answer(site: Site, name: str) -> Iterable[CheckRow]:
    """Ask a short question, and compare the time to the first token with the server's own."""
    question: dict[str, Any] = {
        "model": name,
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    if site.wish.app is None:
        question["max_tokens"] = 16
    response = await ask(
        site.address,
        "/v1/chat/completions",
        method="POST",
        headers={"Content-Type": "application/json"},
        parts=(json.dumps(question).encode(),),
    )
    looked_at = f"`{name}`: {QUESTION}"
    ours_s = first_token_s(response)
    if response.status != 200 or ours_s is None:
        return [failed(response, looked_at)]
    own = await server_facts(site, response.header("x-slipway-answer-id"))
    own_s, cost = own.get("ttft_s"), own.get("cost_usd")
    said = f"The first token arrives after {ours_s:.2f} s"
    state: CheckState = "green"
    if isinstance(own_s, float | int):
        added_s = ours_s - own_s
        said += f", {1000 * max(0.0, added_s):.0f} ms later than the server's own {own_s:.2f} s"
        state = "amber" if added_s > ADDED_AMBER_S else "green"
    said += f"; it cost {cost} USD." if cost is not None else "."
    return [
        CheckRow(
            name="answer",
            looked_at=looked_at,
            state=state,
            says=said,
            do=() if state == "green" else site.fixes("buffering"),
            facts={
                "ttft_s": round(ours_s, 4),
                "server_ttft_s": own_s if isinstance(own_s, float | int) else None,
            },
        )
    ]


def first_token_s(response: RawResponse) -> float | None:
    """Return when the first text of an OpenAI stream arrived, in seconds after its request."""
    rest = b""
    for piece in response.pieces:
        *lines, rest = (rest + piece.data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {") and has_text(json.loads(line[6:])):
                return piece.at - response.sent_at
    return None


def has_text(chunk: dict[str, Any]) -> bool:
    return any((choice.get("delta") or {}).get("content") for choice in chunk.get("choices") or ())


def failed(response: RawResponse, looked_at: str) -> CheckRow:
    """Return the row of a question that got no answer."""
    error = (response.json() or {}).get("error")
    message = error.get("message") if isinstance(error, dict) else None
    says = f"HTTP {response.status}" if response.status else "The connection was closed"
    says += f": {str(message)[:300]}" if message else " without an answer."
    return CheckRow(
        name="answer",
        looked_at=looked_at,
        state="red",
        says=says,
        do=("Ask the same of the server itself; `slipway check` there names what is wrong.",),
    )


async def server_facts(site: Site, answer_id: str | None) -> dict[str, Any]:
    """Return what the server's trace says of an answer; empty if it has none."""
    if answer_id is None:
        return {}
    for _ in range(10):  # the trace is complete a moment after the answer
        response = await ask(site.address, f"/v1/traces/{answer_id}")
        tries = (response.json() or {}).get("tries")
        if isinstance(tries, list) and tries and isinstance(tries[-1].get("answer"), dict):
            found: dict[str, Any] = tries[-1]["answer"]
            return found
        await asyncio.sleep(0.1)
    return {}
