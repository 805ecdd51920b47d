"""The mock's own invoice: what it charges for each call, computed by itself from what it sent.

A call is charged if its status is 200: its prompt, and every token that was sent before the reply
ended, whoever ended it. A call that was answered with an error, or whose connection the mock reset
before it answered, is free. A whole reply that was not sent to its end is charged its prompt only.
"""

import csv
import io
import time
from collections.abc import Iterable
from fractions import Fraction

import msgspec

COLUMNS = ("id", "at", "model", "input_tokens", "output_tokens", "cost_usd")
MILLION = 1_000_000
DIGITS = 18  # more than any price with twelve decimals needs


class CallBill(msgspec.Struct, frozen=True):
    """What a call would be charged for if its whole reply is sent."""

    id: str
    model: str
    input_tokens: int
    output_tokens: int


class InvoiceLine(msgspec.Struct, frozen=True):
    id: str
    at: float
    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: str


class Invoice:
    """The lines of all calls so far. `prices` are USD per million tokens, input and output."""

    def __init__(self, prices: tuple[str, str]) -> None:
        self.input, self.output = (Fraction(price) / MILLION for price in prices)
        self.lines: list[InvoiceLine] = []

    def add(self, bill: CallBill, output_tokens: int) -> None:
        """Charge a call whose reply has ended after so many tokens."""
        cost = bill.input_tokens * self.input + output_tokens * self.output
        self.lines.append(
            InvoiceLine(
                bill.id, time.time(), bill.model, bill.input_tokens, output_tokens, in_digits(cost)
            )
        )


def in_digits(amount: Fraction) -> str:
    """Return an amount as decimal text, to its last digit."""
    scaled = amount * 10**DIGITS
    if scaled.denominator != 1:
        raise ValueError(f"{amount} USD has no end in {DIGITS} decimals")
    whole, part = divmod(scaled.numerator, 10**DIGITS)
    return f"{whole}.{part:0{DIGITS}d}".rstrip("0").rstrip(".")


def as_csv(lines: Iterable[InvoiceLine]) -> bytes:
    """Return the invoice as a table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(msgspec.structs.asdict(line) for line in lines)
    return text.getvalue().encode()
