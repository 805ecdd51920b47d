"""Measure what a client sees of each fault of a provider: directly, and through a route whose first
model has the fault and whose second one is healthy.

    python bench/faults.py    # a Markdown table, in about two minutes

Faults, settings and words are those of tests/provider_faults.py. Questions are asked one after
another, each with its own models, so that no breaker is open. For the route, `+N ms` is how much
longer it took than the median of healthy models, and `N calls` how many calls were made to models
of any kind. The client waits at most 10 s; `hang` means that this was not enough.
"""

import asyncio
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from chat_client import ChatReply, ask
from provider_faults import BAD_KEY, FAULTS, Fault, FaultCase, FaultServers, fault_servers

PATIENCE_S = 10.0
HEALTHY = 15  # questions to measure the healthy case
FALSE = ("false success", "no end, no error", "wrong text", "error and an end")


class Found(NamedTuple):
    word: str
    took_s: float
    case: FaultCase


async def direct(everything: FaultServers, case: FaultCase) -> Found:
    headers = {"Authorization": f"Bearer {BAD_KEY}"} if case.fault.where == "bad key" else {}
    async with httpx.AsyncClient(headers=headers) as client:
        body = {**case.body, "model": case.fault.says or "m"}
        return found(
            everything,
            case,
            await ask(client, everything.urls[case.fault.where], body, patience_s=PATIENCE_S),
        )


async def routed(everything: FaultServers, case: FaultCase) -> Found:
    async with httpx.AsyncClient() as client:
        return found(
            everything,
            case,
            await ask(client, f"{everything.server.url}/v1", case.body, patience_s=PATIENCE_S),
        )


def found(everything: FaultServers, case: FaultCase, seen: ChatReply) -> Found:
    is_wrong = seen.word in ("whole", "continued") and seen.text != everything.truth(case)
    return Found("wrong text" if is_wrong else seen.word, seen.took_s, case)


async def measure(everything: FaultServers) -> dict[str, list[Found]]:
    """Ask with each fault: directly and through the route, streamed and not."""
    rows = dict[str, list[Found]]()
    for fault in FAULTS:
        cases = [FaultCase(fault, "routed", streamed) for streamed in (True, False)]
        rows[fault.name] = [await direct(everything, case) for case in cases] + [
            await routed(everything, case) for case in cases
        ]
        print(f"\r{len(rows)}/{len(FAULTS)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return rows


async def healthy_s(everything: FaultServers, streamed: bool) -> float:
    case = FaultCase(FAULTS[0], "routed", streamed)
    return statistics.median([(await routed(everything, case)).took_s for _ in range(HEALTHY)])


def show(rows: dict[str, list[Found]], calls: Counter[str], healthy: list[float]) -> None:
    print(
        "| what the provider does | direct, streamed | direct, whole | route, streamed | route, "
        "whole |"
    )
    print("|---|---|---|---|---|")
    for name, (one, two, *ours) in rows.items():
        routed = [
            f"{each.word}, +{max(0.0, each.took_s - well) * 1000:.0f} ms, "
            + counted(calls[each.case.name], each.case.fault)
            for each, well in zip(ours, healthy, strict=True)
        ]
        print(f"| {name} | {one.word} | {two.word} | {routed[0]} | {routed[1]} |")
    for who, columns in (("direct", slice(0, 2)), ("route", slice(2, 4))):
        words = Counter(each.word for row in rows.values() for each in row[columns])
        false = sum(words[word] for word in FALSE)
        print(
            f"\n{who}: {words['whole'] + words['continued']} of {words.total()} whole, "
            f"{false} false successes, {words['hang']} hangs"
        )


def counted(calls: int, fault: Fault) -> str:
    """Return the calls for one question; the healthy case was asked more often, for the medians."""
    calls = 1 if fault is FAULTS[0] else calls
    return f"{calls} call{'s' if calls != 1 else ''}"


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of localhost that nobody trusts, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        str(key),
        "-out",
        str(cert),
        *names,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


def main() -> None:
    cases = [FaultCase(fault, "routed", streamed) for fault in FAULTS for streamed in (True, False)]
    with (
        tempfile.TemporaryDirectory() as folder,
        fault_servers(Path(folder), certificate(Path(folder)), *cases) as everything,
    ):
        rows = asyncio.run(measure(everything))
        calls = everything.attempts()
        healthy = [asyncio.run(healthy_s(everything, streamed)) for streamed in (True, False)]
    show(rows, calls, healthy)


if __name__ == "__main__":
    main()
