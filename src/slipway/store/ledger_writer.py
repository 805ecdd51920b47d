"""The ledger's rows on their way into the store."""

from collections.abc import Callable, Sequence
from typing import Any

from slipway.ledger import LedgerRow
from slipway.store.writer import RowWriter


class LedgerWriter:
    """Takes the ledger's rows from the event loop; they are in the journal when `add` returns.

    `saved`, if set, is called in a thread with each batch that is in the store.
    """

    def __init__(self, writer: RowWriter) -> None:
        self._writer = writer
        self.saved: Callable[[Sequence[LedgerRow]], None] | None = None
        writer.saved = self._saved

    def add(self, row: LedgerRow) -> None:
        """Keep a row until the store has it."""
        self._writer.add(row)

    def _saved(self, kind: str, rows: Sequence[Any]) -> None:
        if kind == "ledger" and self.saved is not None:
            self.saved(rows)
