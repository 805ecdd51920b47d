"""Test that the ledger equals the invoice of a provider that prices its own calls, to the last
digit, over calls of every kind: whole, streamed, cut, continued, retried, raced, refused, left.
"""

import contextlib
import csv
import json
import random
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from processes import Serving, mocking, run, serving
from slipway.commands.ledger_reconcile import read_invoice, reconcile
from slipway.ledger import LedgerRow
from slipway.providers.mock import MockServer
from slipway.providers.mock.invoice import as_csv
from slipway.settings import Settings
from slipway.store import LedgerFilter, open_records
from waiting import until

PRICES = ("0.37", "1.093")  # USD per million tokens
SAYS = "one two three four five six seven eight nine ten eleven twelve"
WORDS = ("tea", "is", "brewed", "at", "eighty", "degrees", "for", "two", "minutes")
RACED = 6  # this call is so slow that another model is asked as well
FAULTS = ("cut-5%7", "status-500%2", "errorevent-3%2")


def settings(folder: Path, url: str) -> dict[str, Any]:
    price = {"input": PRICES[0], "output": PRICES[1]}
    names = {"plain": "plain", "other": "other", "stall": "fault-stall-4", "mute": "fault-nousage"}
    names["reset"] = "fault-reset"
    models = {
        name: {"base_url": url, "name": theirs, "price": price} for name, theirs in names.items()
    }
    models["stall"]["connection"] = {"between_bytes": "3s"}
    return {
        "store": f"sqlite:///{folder}/slipway.db",
        "models": models,
        "routes": {"both": ["plain", {"model": "other", "role": "twin"}]},
    }


def body(draw: random.Random, model: str, *, stream: bool) -> bytes:
    content = " ".join(draw.choices(WORDS, k=draw.randint(1, 60)))
    messages = [{"role": "user", "content": content}]
    return json.dumps({"model": model, "messages": messages, "stream": stream}).encode()


def send(server: Serving, sent: bytes, *, leave_after: int | None = None) -> None:
    """Send a chat request and read its reply, or leave after so many words."""
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=90) as connection:
        connection.sendall(head.encode() + sent)
        read = b""
        while data := connection.recv(65536):
            read += data
            if leave_after is not None and read.count(b'"content":"') > leave_after:
                return


def mixed_call(server: Serving, seed: int) -> None:
    """Send one call of the mix; the same seed sends the same."""
    draw = random.Random(seed)
    kinds = ("whole", "stream", "route", "left", "mute", "reset")
    kind = draw.choices(kinds, (20, 25, 30, 15, 10, 1))[0]
    if kind == "left":
        send(server, body(draw, "stall", stream=True), leave_after=4)
    elif kind in ("mute", "reset"):
        send(server, body(draw, kind, stream=True))
    else:
        model = "both" if kind == "route" else "plain"
        send(server, body(draw, model, stream=kind != "whole"))


def in_flight(server: Serving) -> bool:
    return "slipway_answers_in_flight 0" not in server.get("/metrics").text


def charged(folder: Path) -> int:
    with contextlib.closing(
        open_records(Settings(store=f"sqlite:///{folder}/slipway.db"))
    ) as store:
        rows = store.ledger.rows(LedgerFilter(), limit=100_000)
    return sum(bool(row.cost) for row in rows)


def mix(folder: Path, calls: int, at_a_time: int) -> dict[str, Any]:
    """Run the mix, and return what `ledger reconcile` says of the mock's invoice."""
    script = (f"slow-40@{RACED}", *(f"{fault}@{RACED + 1}x{10 * calls}" for fault in FAULTS))
    with (
        mocking(text=SAYS, prices=PRICES, script=script) as mock,
        serving(folder, settings=settings(folder, mock.url)) as server,
        ThreadPoolExecutor(at_a_time + 1) as pool,
    ):
        draw = random.Random(0)
        for _ in range(RACED - 1):
            send(server, body(draw, "plain", stream=False))
        race = pool.submit(send, server, body(draw, "both", stream=False))
        until(lambda: len(mock.requests) >= RACED)
        list(pool.map(lambda seed: mixed_call(server, seed), range(calls)))
        race.result()
        until(lambda: not in_flight(server))
        assert mock.invoice is not None
        invoice = mock.invoice
        until(lambda: charged(folder) == len(invoice.lines) or None)
        check_the_mix(server, mock)
        file = folder / "invoice.csv"
        file.write_bytes(as_csv(invoice.lines))
        config = str(next(folder.glob("settings-*.yaml")))
        done = run("ledger", "reconcile", str(file), "--config", config, "--json", cwd=folder)
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == (1 if found["differences"] else 0)
        return found


def check_the_mix(server: Serving, mock: MockServer) -> None:
    """Check that every kind of call was among them."""
    counted = server.get("/metrics").text
    for error in ('error=""', "provider_cut", "provider_down", "cancelled"):
        assert error in counted, error
    continued = [r for r in mock.requests if "cut off" in json.dumps(r.body)]
    assert continued
    assert mock.invoice is not None
    assert {line.model for line in mock.invoice.lines} > {"plain", "other", "fault-stall-4"}


def check_equal(found: dict[str, Any], calls: int) -> None:
    """Check that invoice and ledger are equal to the last digit.

    There is one exception: what was sent and never read, which nobody but the provider knows. The
    loser of a race may be cancelled in the moment when it answers, and a client may leave while the
    last words are on their way. Reconciling names both sides of each such call, and nothing else.
    """
    assert found["calls"] >= calls
    assert found["estimated"] > calls / 8
    differences = found["differences"]
    never_read = [each for each in differences if "never answered" in each["where"]]
    unknown = [each for each in differences if each["what"] == "not in the ledger"]
    counted = [each for each in differences if "had to count" in each["what"]]
    explained = len(never_read) + len(unknown) + len(counted)
    assert len(differences) == explained, "\n".join(map(str, differences))
    assert len(never_read) == len(unknown)
    assert len(unknown) + len(counted) <= calls / 500
    more, less = (
        sum((Decimal(each[side]) for each in each_side), Decimal(0))
        for side, each_side in (
            ("invoice_usd", [*unknown, *counted]),
            ("ledger_usd", [*never_read, *counted]),
        )
    )
    assert Decimal(found["invoice_usd"]) - more == Decimal(found["ledger_usd"]) - less


def test_the_ledger_equals_the_invoice_to_the_last_digit(tmp_path: Path) -> None:
    check_equal(mix(tmp_path, 240, 8), 240)


@pytest.mark.soak
def test_the_ledger_equals_the_invoice_of_20_000_calls(tmp_path: Path) -> None:
    check_equal(mix(tmp_path, 20_000, 24), 20_000)


def written(folder: Path, change: Callable[[list[dict[str, str]]], None]) -> Path:
    """Write the mock's invoice of three calls after a change."""
    rows = list(csv.DictReader((folder / "invoice.csv").read_text().splitlines()))
    change(rows)
    file = folder / "changed.csv"
    with file.open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_each_difference_is_named(tmp_path: Path) -> None:
    with (
        mocking(text=SAYS, prices=PRICES) as mock,
        serving(tmp_path, settings=settings(tmp_path, mock.url)) as server,
    ):
        for _ in range(3):
            send(server, body(random.Random(1), "plain", stream=True))
        assert mock.invoice is not None
        (tmp_path / "invoice.csv").write_bytes(as_csv(mock.invoice.lines))
        assert server.get("/v1/ledger").json()["calls"] == 3  # they are saved by then
        config = str(next(tmp_path.glob("settings-*.yaml")))

    def reconcile(file: Path) -> str:
        return run("ledger", "reconcile", str(file), "--config", config, cwd=tmp_path).stdout

    assert "They are equal." in reconcile(tmp_path / "invoice.csv")

    def dearer(rows: list[dict[str, str]]) -> None:
        rows[0]["output_tokens"], rows[0]["cost_usd"] = "13", "0.000021"
        rows[1]["id"] = "chatcmpl-unknown"

    refused = run(
        *("ledger", "reconcile", str(tmp_path / "invoice.csv"), "--config", config),
        *("--since", "2026-02-01", "--until", "2026-01-01"),
        cwd=tmp_path,
    )
    assert (refused.returncode, "--until: it is not after" in refused.stderr) == (2, True)
    text = reconcile(written(tmp_path, dearer))
    assert "13 tokens instead of" in text
    assert "line 3, chatcmpl-unknown, plain: not in the ledger" in text
    assert "chatcmpl-mock-2, plain: not on the invoice" in text
    assert "3 differences." in text

    def by_model(rows: list[dict[str, str]]) -> None:
        for row in rows:
            del row["id"]

    assert "They are equal." in reconcile(written(tmp_path, by_model))
    of = ("--provider", "opnai", "--config", config)
    refused = run("ledger", "reconcile", str(tmp_path / "invoice.csv"), *of, cwd=tmp_path)
    assert "no call of `opnai` in this time, but of `openai`" in refused.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "when,what\n1,2\n",
            "needs a column `cost_usd`, and `id` or `model`; it has `when`, `what`",
        ),
        ("model,cost_usd\nm,0,28\n", "invoice.csv:2: it has more values than the head"),
        ('model,cost_usd\nm,"0,28"\n', "`0,28` is no amount; write USD with a point"),
        ("model,cost_usd\nm,1.2.3\n", "invoice.csv:2: `1.2.3` is no amount; write USD"),
        ("model,cost_usd,input_tokens\nm,1,-4\n", "`-4` is no number of tokens"),
        (
            "model,day,cost_usd\nm,11/01/2026,1\n",
            "`11/01/2026` is no day; write it as `2026-01-31`",
        ),
        ("model,cost_usd\n,1\n", "invoice.csv:2: it names neither a call (`id`) nor a `model`"),
        ("model;cost_usd\nm;1\n", "its values are separated by `;`; save it with commas"),
        ("model,cost_usd\n", "it has no lines below its head"),
        ("", "it has none"),
    ],
)
def test_an_invoice_that_cannot_be_read_is_refused_with_the_fix(
    tmp_path: Path, text: str, says: str
) -> None:
    file = tmp_path / "invoice.csv"
    file.write_text(text)
    refused = run("ledger", "reconcile", str(file), cwd=tmp_path)
    assert refused.returncode == 2, refused.stdout
    assert says in refused.stderr


def test_a_call_that_costs_nothing_may_be_on_an_invoice(tmp_path: Path) -> None:
    free = LedgerRow(
        id="call-1",
        answer="ans-1",
        at=1.0,
        owner="k",
        tenant="t",
        app="m",
        model="m",
        provider="openai",
        zone="default",
        kind="first",
        upstream="chatcmpl-1",
        cost=0,
    )
    file = tmp_path / "invoice.csv"
    file.write_text("id,model,cost_usd\nchatcmpl-1,m,0.00\n")
    assert reconcile(read_invoice(file), [free], {}).differences == ()
    file.write_text("id,model,cost_usd\nchatcmpl-1,m,0.01\n")
    (found,) = reconcile(read_invoice(file), [free], {}).differences
    assert (found.what, found.invoice_usd, found.ledger_usd) == ("another amount", "0.01", "0")
    file.write_text("id,model,cost_usd\nchatcmpl-2,m,0.01\n")
    (found,) = reconcile(read_invoice(file), [free], {}).differences
    assert found.what == "not in the ledger"


def test_the_mock_charges_for_a_whole_answer_however_late_it_comes() -> None:
    """And not for one whose body it has cut."""
    with mocking(text=SAYS, prices=PRICES, script=("slow-0.2@1", "cut-0@2")) as mock:
        ask = {"model": "plain", "messages": [{"role": "user", "content": "tea"}]}
        assert httpx.post(f"{mock.url}/chat/completions", json=ask).status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{mock.url}/chat/completions", json=ask)
        assert mock.invoice is not None
        assert [line.output_tokens for line in mock.invoice.lines] == [12, 0]
