"""The store: what must outlive the process. Its users call verbs; only this package knows SQL."""

from slipway.store.contract import (
    Conversations,
    FeedbackFilter,
    FeedbackRow,
    Grouping,
    Ledger,
    LedgerFilter,
    LedgerSum,
    Records,
    SavedConversation,
    SavedFeedback,
    SectionTiming,
    Shared,
    StoreError,
)
from slipway.store.sqlite import Holder, InUse, Store, check_usable, file_of, holder_of
from slipway.store.sqlite_records import list_feedback

__all__ = [
    "Conversations",
    "FeedbackFilter",
    "FeedbackRow",
    "Grouping",
    "Holder",
    "InUse",
    "Ledger",
    "LedgerFilter",
    "LedgerSum",
    "Records",
    "SavedConversation",
    "SavedFeedback",
    "SectionTiming",
    "Shared",
    "Store",
    "StoreError",
    "check_usable",
    "file_of",
    "holder_of",
    "list_feedback",
]
