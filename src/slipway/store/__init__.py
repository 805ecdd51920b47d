"""The store: what must outlive the process. Its users call verbs; only this package knows SQL."""

from slipway.store.contract import (
    Conversations,
    FeedbackFilter,
    FeedbackRow,
    Grouping,
    KeyHash,
    Keys,
    Ledger,
    LedgerFilter,
    LedgerSum,
    Records,
    RowError,
    SavedConversation,
    SavedFeedback,
    SavedKey,
    SectionTiming,
    Shared,
    StoreError,
    Withdrawal,
)
from slipway.store.ledger_writer import LedgerWriter
from slipway.store.record_store import RecordStore, file_of, open_records
from slipway.store.sqlite import Holder, InUse, Store, check_usable, holder_of
from slipway.store.writer import ANSWERS_KEPT_DAYS, RowWriter

__all__ = [
    "ANSWERS_KEPT_DAYS",
    "Conversations",
    "FeedbackFilter",
    "FeedbackRow",
    "Grouping",
    "Holder",
    "InUse",
    "KeyHash",
    "Keys",
    "Ledger",
    "LedgerFilter",
    "LedgerSum",
    "LedgerWriter",
    "RecordStore",
    "Records",
    "RowError",
    "RowWriter",
    "SavedConversation",
    "SavedFeedback",
    "SavedKey",
    "SectionTiming",
    "Shared",
    "Store",
    "StoreError",
    "Withdrawal",
    "check_usable",
    "file_of",
    "holder_of",
    "open_records",
]
